"""Folders of adapters, as the peft library opens them, and the way from such a folder to its base.

adapter_config.json and adapter_model.safetensors are PEFT's. adapter_base.json beside them says what that format has no
place for: the SHA-256 of the weights that the adapter was trained on, and how they were rounded.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from legollm import __version__
from legollm.architectures.scored import ScoredConfig, with_scores
from legollm.checkpoints.huggingface import write_json
from legollm.checkpoints.peft import adapter_config, adapter_tensors, attach, fill_adapters
from legollm.checkpoints.quantized import tensors_of
from legollm.checkpoints.reader import DTYPES, TensorFile, inside, read_json
from legollm.checkpoints.shards import bytes_of
from legollm.config import resolve
from legollm.config.tree import tree_of
from legollm.errors import CheckpointError, ConfigError
from legollm.team import ALONE, Team
from legollm.transforms.lora import LoraConfig
from legollm.transforms.quantize import QuantizeConfig, quantize

SETTINGS, TENSORS, NOTE = "adapter_config.json", "adapter_model.safetensors", "adapter_base.json"
FORMAT = 1
"""Of the note: one number up when an older legollm would misread it."""


@dataclass(frozen=True)
class Adapter:
    """What makes a checkpoint of a model one of its adapters only."""

    base: Path
    """The folder of the model that stands still."""
    fingerprint: str
    """Of its weights."""
    lora: LoraConfig
    scored: ScoredConfig | None = None
    """Where the base got a head for scores, which the adapter's folder then holds, too."""


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's names and numbers, whatever files they came from; adapters are not counted."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors_of(model).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(bytes_of(tensor.detach().cpu()))
    return digest.hexdigest()


def is_adapter(folder: Path) -> bool:
    return (folder / SETTINGS).is_file()


def refuse_adapter(folder: Path) -> None:
    """
    Raises:
        CheckpointError: a whole model is wanted, and the folder holds none.
    """
    if is_adapter(folder):
        raise CheckpointError(
            f"{folder}: holds an adapter, not a model; `legollm merge {folder} out=FOLDER` makes one of it and its base"
        )


def write_adapter(folder: Path, adapter: Adapter, arch: str, model: nn.Module, team: Team = ALONE) -> None:
    """Write the adapters of a model; of a divided one, all processes call this, and the leader writes."""
    tensors = adapter_tensors(arch, model)
    if not team.leads:
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / TENSORS, {"format": "pt"})
    write_json(folder / SETTINGS, adapter_config(arch, model, adapter.lora, str(adapter.base)))
    note = {
        "format": FORMAT,
        "version": __version__,
        "base": os.path.relpath(adapter.base, folder.resolve()),
        "fingerprint": adapter.fingerprint,
        "lora": asdict(adapter.lora),
        "scores": adapter.scored
        and {
            "labels": list(adapter.scored.labels),
            "pad_id": adapter.scored.pad_id,
            "per_token": adapter.scored.per_token,
        },
    }
    write_json(folder / NOTE, note)


def load_adapters(model: nn.Module, arch: str, folder: Path, adapter: Adapter) -> None:
    """Fill the adapters that a model has with those of a folder, in place.

    Raises:
        CheckpointError: the folder holds other adapters, those of another base, or none.
    """
    if (said := note_of(folder).get("fingerprint")) != adapter.fingerprint:
        raise CheckpointError(
            f"{folder}: was trained on other weights than those of {adapter.base} ({str(said)[:12]}, found "
            f"{adapter.fingerprint[:12]}); give the base it was trained on, or run=ANOTHER_FOLDER"
        )
    try:
        fill_adapters(arch, model, read_tensors(folder))
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}; the adapters are those of another lora.*") from error


def put_adapters(folder: Path, base: Path, arch: str, config: Any, model: nn.Module) -> tuple[str, Any]:
    """Put the adapters of a folder, ours or PEFT's, around the maps of the base they were trained on, in place.

    Returns the architecture and configuration of what it is then: with a head for scores, if the adapters brought one.

    Raises:
        CheckpointError: another base, or adapters that it cannot have.
    """
    note = note_of(folder)
    lora = lora_of(folder, note)
    if note and (found := fingerprint(model)) != note["fingerprint"]:
        raise CheckpointError(
            f"{folder}: was trained on other weights than those of {base} ({note['fingerprint'][:12]}, found "
            f"{found[:12]}); give it the base it was trained on: `legollm merge {folder} base=FOLDER out=FOLDER`"
        )
    if lora and lora.quantize != "none":
        quantize(model, QuantizeConfig(precision=lora.quantize))
    try:
        if scores := note.get("scores"):
            config = ScoredConfig(
                base=config,
                labels=tuple(scores["labels"]),
                pad_id=scores["pad_id"],
                per_token=scores.get("per_token", False),  # older notes lack it
            )
            arch = config.arch
            with_scores(model, len(config.labels))  # type: ignore[arg-type]
        attach(arch, model, read_tensors(folder), read_json(folder / SETTINGS), lora)
    except (CheckpointError, ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return arch, config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """
    Raises:
        CheckpointError: no such file, or what is in it are no floats.
    """
    path = inside(folder, TENSORS)
    if not path.is_file():
        pickled = "; adapter_model.bin may hold a program and is never read, save it as safetensors"
        raise CheckpointError(f"{path}: no such file{pickled if (folder / 'adapter_model.bin').exists() else ''}")
    file = TensorFile(path)
    if strange := [name for name, one in file.entries.items() if one.dtype not in DTYPES]:
        raise CheckpointError(f"{path}: {strange[0]} is stored as {file.entries[strange[0]].dtype}, which is no float")
    return {name: file.read(name) for name in file.entries}


def note_of(folder: Path) -> Mapping[str, Any]:
    """What legollm noted beside its adapters; empty for those of PEFT.

    Raises:
        CheckpointError: a note of another version, or one that makes no sense.
    """
    if not (folder / NOTE).is_file():
        return {}
    match note := read_json(folder / NOTE):
        case {"format": 1, "base": str(), "fingerprint": str(), "lora": dict()}:
            return note
        case {"format": int(number), "version": str(version)} if number != FORMAT:
            raise CheckpointError(
                f"{folder / NOTE}: format {number} of legollm {version}; this version reads {FORMAT}; update it"
            )
    raise CheckpointError(f"{folder / NOTE}: no note that legollm wrote about an adapter; restore it")


def lora_of(folder: Path, note: Mapping[str, Any]) -> LoraConfig | None:
    if not note:
        return None
    try:
        return resolve(LoraConfig, tree_of(note["lora"], NOTE)).value
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def base_of(folder: Path) -> Path:
    """The folder of the model that an adapter belongs to, by the path it was trained with, or as it lies from here.

    Raises:
        CheckpointError: it is not there, or is an adapter itself.
    """
    said = read_json(folder / SETTINGS).get("base_model_name_or_path")
    note = note_of(folder)
    if not isinstance(said, str) or not said:
        raise CheckpointError(f"{folder / SETTINGS}: base_model_name_or_path does not say which model it belongs to")
    places = [Path(said), folder / said, *([folder.resolve() / str(note["base"])] if note else [])]
    for place in places:
        if is_adapter(place):
            raise CheckpointError(f"{folder}: its base {place} is an adapter itself; `legollm merge` that one first")
        if (place / "config.json").is_file():
            return place
    raise CheckpointError(
        f"{folder}: the base of this adapter is not at {said}; put it back, or give a copy: "
        f"`legollm merge {folder} base=FOLDER out=FOLDER`"
    )
