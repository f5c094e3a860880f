"""Hugging Face folders in and out: config.json and safetensors, through each architecture's reversible weight map.

Only data is read: no code that a folder brings along runs, and no file outside the folder is opened. Names and shapes
are compared with the configuration before a tensor is loaded.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES
from legollm.architectures.weight_map import INDEX, Row, from_theirs, listing, resolve_rows, to_theirs
from legollm.components.decoder import Decoder
from legollm.errors import CheckpointError

CONFIG, GENERATION = "config.json", "generation_config.json"
WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
MAX_SHARD_BYTES = 5_000_000_000
DTYPES = ("F64", "F32", "BF16", "F16")


def config_to_hf(arch: str, cfg: Any) -> dict[str, Any]:
    """config.json for a model of ours, without its dtype."""
    other = ARCHITECTURES[arch].hugging_face
    return {"model_type": other.model_type, "architectures": [other.class_name]} | other.config_to_hf(cfg)


def config_from_hf(config: Mapping[str, Any]) -> tuple[str, Any]:
    """config.json -> the name of one of our architectures and its configuration.

    Raises:
        CheckpointError: a model that the bricks do not compute, or one that brings its own code.
    """
    by_type = {row.hugging_face.model_type: name for name, row in ARCHITECTURES.items()}
    found = config.get("model_type")
    if "auto_map" in config:
        raise CheckpointError(
            f"{CONFIG}: auto_map asks to run code from the folder, which never happens; supported as they are: "
            + ", ".join(by_type)
        )
    if found not in by_type:
        raise CheckpointError(f"{CONFIG}: model_type {found!r} is not supported; supported: {', '.join(by_type)}")
    arch = by_type[found]
    try:
        return arch, ARCHITECTURES[arch].hugging_face.config_from_hf(config)
    except (TypeError, ValueError) as error:  # ours about an impossible value, or Python's about its type
        raise CheckpointError(f"{CONFIG}: {error}") from error


def to_hf(arch: str, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters, as `dict(model.named_parameters())` has them (a tied head once), under the other names."""
    return to_theirs(resolve_rows(ARCHITECTURES[arch].hugging_face.rows, parameters), parameters)


def from_hf(arch: str, tensors: Mapping[str, Tensor], like: nn.Module) -> dict[str, Tensor]:
    """The inverse of `to_hf`, for a model like `like` (which may be on the meta device)."""
    parameters = dict(like.named_parameters())
    rows = resolve_rows(ARCHITECTURES[arch].hugging_face.rows, parameters)
    return from_theirs(rows, tensors, {name: p.size(0) for name, p in parameters.items()})


def save_hf_folder(
    folder: Path, arch: str, cfg: Any, model: nn.Module, *, special_ids: Mapping[str, int] | None = None
) -> None:
    """Write config.json, generation_config.json and the weights, in shards if they exceed 5 GB.

    special_ids: such as {"bos_token_id": 0, "eos_token_id": 0}, for programs that generate from the folder.

    Raises:
        CheckpointError: the model has parameters that the format has no place for.
    """
    parameters = {name: p.detach().cpu() for name, p in model.named_parameters()}
    tensors = to_hf(arch, parameters)
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    ids: dict[str, int | None] = {"bos_token_id": None, "eos_token_id": None, **(special_ids or {})}
    folder.mkdir(parents=True, exist_ok=True)
    # Version 4 of transformers reads torch_dtype, version 5 dtype.
    write_json(folder / CONFIG, {**config_to_hf(arch, cfg), **ids, "dtype": dtype, "torch_dtype": dtype})
    write_json(folder / GENERATION, ids)
    save_tensors(folder, tensors)


def save_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """One file, or files of at most 5 GB and an index of what is where."""
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(t.nbytes for t in shards[-1].values()) + tensor.nbytes > MAX_SHARD_BYTES:
            shards.append({})
        shards[-1][name] = tensor.contiguous()
    if len(shards) == 1:
        save_file(shards[0], folder / WEIGHTS, {"format": "pt"})
        return
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, {"format": "pt"})
    where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / SHARDS, {"metadata": {"total_size": size}, "weight_map": where})


def load_hf_folder(folder: Path, *, dtype: torch.dtype | None = None) -> tuple[str, Any, Decoder]:
    """Architecture, configuration and model of a folder. dtype: of the weights; None keeps what is stored.

    Raises:
        CheckpointError: not a model of a supported kind, or tensors that do not fit its configuration.
    """
    arch, cfg = config_from_hf(read_json(folder / CONFIG))
    with torch.device("meta"):  # no memory and no random numbers for weights that are about to be replaced
        model = ARCHITECTURES[arch].build(cfg)
    tied = tied_names(model)
    weights = read_weights(folder, arch, model, dtype)
    model.load_state_dict(weights | {name: weights[first] for name, first in tied.items()}, assign=True)
    for name, first in tied.items():  # two names for one parameter, not two parameters that share memory
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, model.get_parameter(first))
    return arch, cfg, model


def load_weights(model: nn.Module, arch: str, cfg: Any, folder: Path) -> None:
    """Fill a model with a folder's weights, in place, keeping its device and dtype.

    Raises:
        CheckpointError: the folder holds another model, or tensors that do not fit.
    """
    found = config_from_hf(read_json(folder / CONFIG))
    if found != (arch, cfg):
        raise CheckpointError(f"{folder / CONFIG}: another model, {found[1]}; expected {cfg}")
    weights = read_weights(folder, arch, model, None)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def tied_names(model: nn.Module) -> dict[str, str]:
    """Each further name of a parameter -> its first one."""
    first: dict[int, str] = {}
    names = [(name, first.setdefault(id(p), name)) for name, p in model.named_parameters(remove_duplicate=False)]
    return {name: original for name, original in names if name != original}


def read_weights(folder: Path, arch: str, like: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The parameters of a model like `like`, every name and shape checked before anything large is read."""
    other = ARCHITECTURES[arch].hugging_face
    meta = {name: torch.empty_like(p, device="meta") for name, p in like.named_parameters()}
    expected = {name: list(t.shape) for name, t in to_hf(arch, meta).items()}
    with ExitStack() as stack:
        files: dict[str, Any] = {}  # name of a tensor -> the open file that has it
        for path in shard_paths(folder):
            file = stack.enter_context(open_safetensors(path))
            if twice := sorted(files.keys() & file.keys()):
                raise CheckpointError(f"{path}: {listing(twice)} also in another shard; fetch the folder again")
            files |= dict.fromkeys(file.keys(), file)
        names = {name: name for name in files}  # what the rows call it -> what the file calls it
        tied = tied_theirs(arch, like)  # a head that is stored although it is tied is not read by transformers either
        if other.base and not any(name.startswith(other.base) for name in files):
            names = {name if name in expected.keys() | tied else other.base + name: name for name in files}
        ignored = tied | {name for name in names if INDEX.sub("{}", name) in other.leftovers}
        compare(folder, {n: files[f].get_slice(f) for n, f in names.items() if n not in ignored}, expected)
        tensors = {name: files[names[name]].get_tensor(names[name]) for name in expected}
    if dtype:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    return from_hf(arch, tensors, like)


def tied_theirs(arch: str, model: nn.Module) -> set[str]:
    """What the other side calls the further names of our tied parameters."""
    rows: list[Row] = resolve_rows(ARCHITECTURES[arch].hugging_face.rows, tied_names(model))
    return {row.theirs for row in rows}


def compare(folder: Path, found: Mapping[str, Any], expected: Mapping[str, list[int]]) -> None:
    """Raise unless the files have exactly the expected tensors; `found` are their headers."""
    shapes = {name: header.get_shape() for name, header in found.items()}
    problems = []
    if missing := sorted(expected.keys() - shapes.keys()):
        problems.append(f"{len(missing)} missing: {listing(missing)}")
    if unexpected := sorted(shapes.keys() - expected.keys()):
        problems.append(f"{len(unexpected)} unexpected: {listing(unexpected)}")
    both = sorted(expected.keys() & shapes.keys())
    if wrong := [f"{n} {shapes[n]} instead of {expected[n]}" for n in both if shapes[n] != expected[n]]:
        problems.append(f"{len(wrong)} of another shape: {listing(wrong)}")
    if strange := [f"{n} {found[n].get_dtype()}" for n in both if found[n].get_dtype() not in DTYPES]:
        problems.append(f"{len(strange)} of a dtype other than {', '.join(DTYPES)}: {listing(strange)}")
    if problems:
        raise CheckpointError(f"{folder}: the tensors do not fit {CONFIG}: {'; '.join(problems)}")


def shard_paths(folder: Path) -> list[Path]:
    """The files that hold the weights, all of them inside `folder`."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / SHARDS).exists():
        raise CheckpointError(f"{folder}: no weights; expected {WEIGHTS} or {SHARDS} (pickled .bin files are not read)")
    index = read_json(folder / SHARDS).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise CheckpointError(f"{folder / SHARDS}: has no weight_map; fetch it again")
    names = sorted(set(map(str, index.values())))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{folder / SHARDS}: {name!r} is not the plain name of a .safetensors file")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: missing; {SHARDS} lists it")
    return [folder / name for name in names]


def open_safetensors(path: Path) -> Any:
    """An open file, whose tensors are read one by one."""
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: a pointer to a large file, not the file; run `git lfs pull` where it came from")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file, or cut short ({error}); fetch it again") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; a model folder has one") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
