"""Checkpoints of a run: the model as a Hugging Face folder, and beside it all that the next step depends on."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from legollm import __version__
from legollm.checkpoints.huggingface import save_hf_folder
from legollm.checkpoints.manifest import atomic_folder, discard, remove_orphans, steps, verify
from legollm.errors import CheckpointError, DivergedError
from legollm.interfaces import Tokenizer
from legollm.tokenizers import save_to_folder

log = logging.getLogger(__name__)

FORMAT = 1
TENSORS, STATE = "optim.safetensors", "state.json"


@dataclass(frozen=True)
class TrainingState:
    """Everything besides the weights that decides the next step."""

    values: Mapping[str, Any]
    """JSON-ready: the loop's state, the cursor of the batches, the precision, the best step so far."""
    tensors: Mapping[str, Tensor]
    """The optimizer's memory and the random generators."""


def save_model(
    folder: Path, model: nn.Module, arch: str, config: Any, tokenizer: Tokenizer | None, **extra: Any
) -> None:
    """The weights, configuration and tokenizer of a model, without a training state.

    extra: handed to the tokenizer's writer, such as `chat_template` and `eos`.

    Raises:
        CheckpointError: weights that are not finite; nothing is written.
    """
    if bad := not_finite(model.state_dict()):
        raise CheckpointError(
            f"{folder}: not saved, {len(bad)} tensors hold numbers that are not finite, first {bad[0]}"
        )
    with atomic_folder(folder, n_bytes=checkpoint_bytes(model, {})) as temporary:
        write_model(temporary, model, arch, config, tokenizer, extra)


def write_model(
    folder: Path, model: nn.Module, arch: str, config: Any, tokenizer: Tokenizer | None, extra: Mapping[str, Any]
) -> None:
    eos = tokenizer.special_tokens.get(extra.get("eos", "")) if tokenizer else None
    save_hf_folder(folder, arch, config, model, special_ids={} if eos is None else {"eos_token_id": eos})
    if tokenizer is not None:
        save_to_folder(tokenizer, folder, **extra)


def save_checkpoint(
    root: Path,
    step: int,
    *,
    model: nn.Module,
    arch: str,
    config: Any,
    tokenizer: Tokenizer | None,
    state: TrainingState,
    keep: int = 2,
    best: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write `root/step-NNNNNNNN` atomically, point `root/../checkpoint` at it, then drop what is not kept.

    Raises:
        DivergedError: weights or memories of the optimizer that are not finite; nothing is written.
        CheckpointError: a disk that refused; earlier checkpoints are untouched.
    """
    final = root / f"step-{step:08d}"
    if bad := not_finite(model.state_dict() | dict(state.tensors)):
        raise DivergedError(
            f"{final}: not saved, {len(bad)} tensors hold numbers that are not finite, first {bad[0]}; the checkpoints "
            "before it are sound; lower optim.lr or raise optim.warmup_steps",
            {"step": step, "not_finite": bad},
        )
    size = checkpoint_bytes(model, state.tensors)
    with atomic_folder(final, replace=True, n_bytes=size) as temporary:  # replaces a damaged one that was passed over
        write_model(temporary, model, arch, config, tokenizer, extra or {})
        save_file({k: v.contiguous() for k, v in state.tensors.items()}, temporary / TENSORS, {"format": "pt"})
        document = {"version": FORMAT, "legollm": __version__, "step": step} | dict(state.values)
        (temporary / STATE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    verify(final)  # read back before anything older is dropped
    point_at(root.parent / "checkpoint", final)
    for old_step, old in list(steps(root).items())[keep:]:
        if old_step not in (step, best):
            try:
                discard(old)
            except OSError as error:  # the new one is safe all the same
                log.warning("%s: could not be removed (%s); remove it to get its room back", old, error.strerror)
    return final


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that hold a number which is none."""
    return [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]


def checkpoint_bytes(model: nn.Module, tensors: Mapping[str, Tensor]) -> int:
    """What the large files of a checkpoint weigh: all but the tokenizer's and a few small ones."""
    weights: dict[int, int] = {t.data_ptr(): t.nbytes for t in model.state_dict().values()}  # tied ones once
    return sum(weights.values()) + sum(tensor.nbytes for tensor in tensors.values())


def load_state(folder: Path) -> TrainingState:
    """The training state of a verified checkpoint.

    Raises:
        CheckpointError: there is none, or this version cannot read it.
    """
    try:
        values = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: holds a model but no training state; start a new run from it") from error
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the training state cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{folder}: the training state cannot be read: {STATE} holds no JSON object")
    if values.get("version") != FORMAT:
        raise CheckpointError(
            f"{folder / STATE}: format {values.get('version')} of legollm {values.get('legollm', '(unknown)')}; this "
            f"version reads {FORMAT}; continue with the one that wrote it, or start a new run from the model"
        )
    return TrainingState(values, tensors)


def prepare_root(root: Path) -> None:
    """Make the folder of a run's checkpoints, without the leftovers of a killed process."""
    root.mkdir(parents=True, exist_ok=True)
    remove_orphans(root)


def point_at(link: Path, target: Path) -> None:
    """`link` -> `target`, replaced in one step; where the system has no links, `load` finds the newest by itself."""
    temporary = link.with_name(f".tmp-{link.name}-{os.getpid()}")
    try:
        temporary.symlink_to(target.relative_to(link.parent), target_is_directory=True)
        temporary.replace(link)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        log.debug("no link at %s: %s", link, error)


def rng_tensors() -> dict[str, Tensor]:
    """The state of torch's own generators, which dropout draws from."""
    tensors = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors


def restore_rng(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
