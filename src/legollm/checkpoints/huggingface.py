"""Hugging Face folders in and out: config.json and safetensors, through each architecture's reversible weight map.

Only data is read: no code that a folder brings along runs, and no file outside the folder is opened. Names and shapes
are compared with the configuration before a tensor is loaded.
"""

import dataclasses
import json
import os
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from legollm import __version__
from legollm.architectures import ARCHITECTURES, architecture, name_in
from legollm.architectures.weight_map import INDEX, Row, from_theirs, listing, resolve_rows, their_shapes, to_theirs
from legollm.checkpoints.divided import Divided, write_divided
from legollm.checkpoints.reader import DTYPES, Entry, read_json
from legollm.checkpoints.shards import Shape, Shards, write_index, write_shards
from legollm.components.decoder import Decoder
from legollm.components.outside import names_outside
from legollm.device import without_memory
from legollm.errors import CheckpointError
from legollm.parts import is_divided, whole
from legollm.team import ALONE, Team

CONFIG, GENERATION = "config.json", "generation_config.json"
QUANTIZATION = "quantization"
"""The key of config.json that only quantised models have; see quantized.py."""
BRICKS = "LEGOLLM_BRICKS"
"""Environment variable: the bricks from outside that model folders may name, module:Name, with commas between."""
MAX_SHARD_BYTES = 5_000_000_000
FORMAT = 1
"""Of the folders written here: one number up when an older legollm would misread them."""
MAX_SIZE = 1 << 26
"""Of any whole number in a configuration: hundreds of times the largest vocabulary or context in use."""


def config_to_hf(arch: str, cfg: Any) -> dict[str, Any]:
    """config.json for a model of ours, without its dtype."""
    other = architecture(arch).hugging_face
    kind = {"model_type": other.model_type, "architectures": [other.class_name]}
    return kind | other.config_to_hf(cfg) | {"legollm": {"format": FORMAT, "version": __version__}}


def config_from_hf(config: Mapping[str, Any], *, trusted: Collection[str] = ()) -> tuple[str, Any]:
    """config.json -> the name of one of our architectures and its configuration.

    trusted: bricks from outside that the model may name, beside those of LEGOLLM_BRICKS.

    Raises:
        CheckpointError: a model that the bricks do not compute, or one that brings its own code.
    """
    check_format(config)
    supported = ", ".join(row.hugging_face.model_type for row in ARCHITECTURES.values())
    if "auto_map" in config:
        raise CheckpointError(
            f"{CONFIG}: auto_map asks to run code from the folder, which never happens; supported as they are: "
            + supported
        )
    if "quantization_config" in config:
        raise CheckpointError(
            f"{CONFIG}: quantised by another program, whose numbers are not read; fetch the model as it was before, "
            "and use `legollm quantize`"
        )
    arch = name_in(config)
    if arch is None:
        raise CheckpointError(
            f"{CONFIG}: model_type {config.get('model_type')!r} is not supported; supported: {supported}"
        )
    try:
        cfg = architecture(arch).hugging_face.config_from_hf(config)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # an impossible value, or its type
        raise CheckpointError(f"{CONFIG}: {error}") from error
    refuse_strangers(cfg, trusted)
    return arch, cfg


def refuse_strangers(cfg: Any, trusted: Collection[str]) -> None:
    """A folder may come from anywhere, and building a brick imports its module: only what the user named is built.

    Raises:
        CheckpointError: a brick from outside that nobody here named.
    """
    named = {*trusted, *os.environ.get(BRICKS, "").split(",")}
    if strange := sorted({path for path in names_outside(cfg).values() if path not in named}):
        raise CheckpointError(
            f"{CONFIG}: names bricks from outside, whose code would run: {', '.join(strange)}; if they are yours, set "
            f"{BRICKS}={','.join(strange)}"
        )


def refuse_quantized(folder: Path, config: Mapping[str, Any]) -> None:
    """
    Raises:
        CheckpointError: the weights of the folder are whole numbers, which can neither be converted nor trained.
    """
    if config.get(QUANTIZATION):
        raise CheckpointError(
            f"{folder}: quantised weights can be used, but neither trained nor converted; give the model they were "
            "made from"
        )


def check_format(config: Mapping[str, Any]) -> None:
    """Refuse what a later version wrote in a way that this one does not know.

    Raises:
        CheckpointError: says which version made it. Folders of other programs and the oldest of ours have no format.
    """
    match config.get("legollm"):
        case None | {"format": int(1)}:
            return
        case {"format": int(number), "version": str(version)}:
            raise CheckpointError(
                f"{CONFIG}: format {number}, written by legollm {version}; this is {__version__} and reads up to "
                f"format {FORMAT}; update it"
            )
        case other:
            raise CheckpointError(f"{CONFIG}: legollm is {other!r}, no format and version; remove the key")


def check_sizes(cfg: Any, n_tensors: int) -> None:
    """Refuse a configuration that would take forever to build, before anything is built.

    Raises:
        CheckpointError: more layers or experts than the files have tensors, or a size that no model has.
    """
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if dataclasses.is_dataclass(value):  # the decoder of one that scores
            check_sizes(value, n_tensors)
        if type(value) is not int:
            continue
        if value > MAX_SIZE:
            raise CheckpointError(f"{CONFIG}: {field.name} is {value}, and {MAX_SIZE} is the most; correct it")
        if field.name.endswith(("layers", "experts")) and value > n_tensors:
            raise CheckpointError(
                f"{CONFIG}: {field.name} is {value}, and the files hold {n_tensors} tensors; fetch the folder again"
            )


def to_hf(arch: str, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters, as `dict(model.named_parameters())` has them (a tied head once), under the other names."""
    return to_theirs(resolve_rows(architecture(arch).hugging_face.rows, parameters), parameters)


def from_hf(arch: str, tensors: Mapping[str, Tensor], like: nn.Module) -> dict[str, Tensor]:
    """The inverse of `to_hf`, for a model like `like` (which may be on the meta device)."""
    parameters = dict(like.named_parameters())
    rows = resolve_rows(architecture(arch).hugging_face.rows, parameters)
    return from_theirs(rows, tensors, {name: p.size(0) for name, p in parameters.items()})


def save_hf_folder(
    folder: Path,
    arch: str,
    cfg: Any,
    model: nn.Module,
    *,
    special_ids: Mapping[str, int] | None = None,
    team: Team = ALONE,
) -> None:
    """Write config.json, generation_config.json and the weights, in shards if they exceed 5 GB.

    special_ids: such as {"bos_token_id": 0, "eos_token_id": 0}, for programs that generate from the folder.
    team: the processes that a divided model lies on, all of which call this; each writes a shard.

    Raises:
        CheckpointError: the model has parameters that the format has no place for.
    """
    if any(map(is_divided, model.parameters())):
        divided = divided_hf(arch, model)
        files = write_divided(folder, "model", divided, team)
        if team.leads:
            write_config(folder, arch, cfg, next(iter(divided.values())).shape.dtype, special_ids or {})
            write_index(folder, {name: one.shape for name, one in divided.items()}, files)
        return
    parameters = {name: p.detach().cpu() for name, p in model.named_parameters()}
    tensors = to_hf(arch, parameters)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, arch, cfg, next(iter(tensors.values())).dtype, special_ids or {})
    shapes = {name: Shape(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    write_shards(folder, shapes, lambda name: [tensors[name]], max_bytes=MAX_SHARD_BYTES)


def divided_hf(arch: str, model: nn.Module) -> dict[str, Divided]:
    """The weights of a model that lies on several processes, under the other names."""
    ours = dict(model.named_parameters())

    def gathered(row: Row) -> Tensor:
        return to_theirs([row], {name: whole(ours[name].detach()).cpu() for name in row.ours})[row.theirs]

    found = {}
    for row in resolve_rows(architecture(arch).hugging_face.rows, ours):
        (shape,) = their_shapes([row], {n: tuple(ours[n].shape) for n in row.ours}).values()
        found[row.theirs] = Divided(Shape(ours[row.ours[0]].dtype, shape), partial(gathered, row))
    return found


def write_config(folder: Path, arch: str, cfg: Any, dtype: torch.dtype, special_ids: Mapping[str, Any]) -> None:
    """config.json and generation_config.json."""
    ids: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, **special_ids}
    name = str(dtype).removeprefix("torch.")
    # Version 4 of transformers reads torch_dtype, version 5 dtype.
    write_json(folder / CONFIG, {**config_to_hf(arch, cfg), **ids, "dtype": name, "torch_dtype": name})
    write_json(folder / GENERATION, ids)


class Stored:
    """The weights of a model that lies in a folder: they fit its configuration, and none is read yet.

    Raises:
        CheckpointError: tensors that do not fit.
    """

    def __init__(self, shards: Shards, arch: str, like: nn.Module) -> None:
        """like: the model, whose weights may be on the meta device."""
        other = architecture(arch).hugging_face
        ours = {name: tuple(p.shape) for name, p in like.named_parameters()}
        rows = resolve_rows(other.rows, ours)
        self.shards = shards
        self.sizes = {name: shape[0] for name, shape in ours.items()}
        self.rows = {name: row for row in rows for name in row.ours}
        # Not by calling to_theirs on the meta device: there torch answers some calls by way of its compiler, whose
        # import takes two seconds.
        self.shapes = their_shapes(rows, ours)
        names = {name: name for name in shards.entries}  # what the rows call it -> what the file calls it
        tied = tied_theirs(arch, like)  # a head that is stored although it is tied is not read by transformers either
        if other.base and not any(name.startswith(other.base) for name in names):
            names = {name if name in self.shapes.keys() | tied else other.base + name: name for name in names}
        ignored = tied | {name for name in names if INDEX.sub("{}", name) in other.leftovers}
        self.names = {name: file for name, file in names.items() if name not in ignored}
        compare(shards.folder, {name: shards.entries[file] for name, file in self.names.items()}, self.shapes)

    def entry(self, theirs: str) -> Entry:
        """What the files say about a tensor, by the name that the rows give it."""
        return self.shards.entries[self.names[theirs]]

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Each weight once, under our name."""
        for row in dict.fromkeys(self.rows.values()):
            whole = {row.theirs: self.shards.read(self.names[row.theirs])}
            yield from from_theirs([row], whole, self.sizes).items()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """One weight under our name, or its rows from `start` to before `stop`."""
        row = self.rows[name]
        if row.transpose or len(row.ours) > 1:
            whole = {row.theirs: self.shards.read(self.names[row.theirs])}
            return from_theirs([row], whole, self.sizes)[name][start:stop].clone()
        return self.shards.read(self.names[row.theirs], start, stop)


class Opened(NamedTuple):
    """A folder whose configuration and tensors were found to fit."""

    arch: str
    config: Any
    model: Decoder
    """On the meta device: its shape, without weights."""
    stored: Stored


def open_hf_folder(folder: Path) -> Opened:
    """Look at everything in a folder except the numbers.

    Raises:
        CheckpointError: not a model of a supported kind, or tensors that do not fit its configuration.
    """
    config = read_json(folder / CONFIG)
    refuse_quantized(folder, config)
    arch, cfg = config_from_hf(config)
    shards = Shards(folder)
    check_sizes(cfg, len(shards.entries))
    with without_memory():
        model = architecture(arch).build(cfg)
    return Opened(arch, cfg, model, Stored(shards, arch, model))


def load_hf_folder(folder: Path, *, dtype: torch.dtype | None = None) -> tuple[str, Any, Decoder]:
    """Architecture, configuration and model of a folder. dtype: of the weights; None keeps what is stored.

    Raises:
        CheckpointError: not a model of a supported kind, or tensors that do not fit its configuration.
    """
    arch, cfg, model, stored = open_hf_folder(folder)
    adopt(model, {name: tensor.to(dtype) if dtype else tensor for name, tensor in stored.parameters()})
    return arch, cfg, model


def adopt(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Let tensors be the weights of a model without memory, each under its first name."""
    tied = tied_names(model)
    model.load_state_dict({**weights, **{name: weights[first] for name, first in tied.items()}}, assign=True)
    for name, first in tied.items():  # two names for one parameter, not two parameters that share memory
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, model.get_parameter(first))


def load_weights(model: nn.Module, arch: str, cfg: Any, folder: Path) -> None:
    """Fill a model with a folder's weights, in place, keeping its device and dtype.

    Raises:
        CheckpointError: the folder holds another model, or tensors that do not fit.
    """
    config = read_json(folder / CONFIG)
    refuse_quantized(folder, config)
    found = config_from_hf(config, trusted=names_outside(cfg).values())
    if found != (arch, cfg):
        raise CheckpointError(f"{folder / CONFIG}: another model, {found[1]}; expected {cfg}")
    with torch.no_grad():
        for name, tensor in Stored(Shards(folder), arch, model).parameters():
            model.get_parameter(name).copy_(tensor)


def tied_names(model: nn.Module) -> dict[str, str]:
    """Each further name of a parameter -> its first one."""
    first: dict[int, str] = {}
    names = [(name, first.setdefault(id(p), name)) for name, p in model.named_parameters(remove_duplicate=False)]
    return {name: original for name, original in names if name != original}


def tied_theirs(arch: str, model: nn.Module) -> set[str]:
    """What the other side calls the further names of our tied parameters."""
    return {row.theirs for row in resolve_rows(architecture(arch).hugging_face.rows, tied_names(model))}


def compare(
    folder: Path,
    found: Mapping[str, Entry],
    expected: Mapping[str, tuple[int, ...]],
    dtypes: Collection[str] = DTYPES.keys(),
) -> None:
    """Raise unless the files have exactly the expected tensors; `found` are their headers."""
    problems = []
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(f"{len(missing)} missing: {listing(missing)}")
    if unexpected := sorted(found.keys() - expected.keys()):
        problems.append(f"{len(unexpected)} unexpected: {listing(unexpected)}")
    both = sorted(expected.keys() & found.keys())
    if wrong := [n for n in both if found[n].shape != expected[n]]:
        details = [f"{n} {list(found[n].shape)} instead of {list(expected[n])}" for n in wrong]
        problems.append(f"{len(wrong)} of another shape: {listing(details)}")
    if strange := [f"{n} {found[n].dtype}" for n in both if found[n].dtype not in dtypes]:
        problems.append(f"{len(strange)} of a dtype other than {', '.join(dtypes)}: {listing(strange)}")
    if problems:
        raise CheckpointError(
            f"{folder}: the tensors do not fit {CONFIG}: {'; '.join(problems)}; fetch the files of one model again"
        )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
