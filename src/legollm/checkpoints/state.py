"""Checkpoints of a run: the model as a Hugging Face folder, and beside it all that the next step depends on."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from legollm import __version__
from legollm.checkpoints.adapter import Adapter, write_adapter
from legollm.checkpoints.divided import Divided, write_divided
from legollm.checkpoints.huggingface import save_hf_folder
from legollm.checkpoints.manifest import atomic_folder, discard, remove_orphans, steps, verify
from legollm.checkpoints.shards import Shape
from legollm.errors import CheckpointError, DivergedError
from legollm.interfaces import Tokenizer
from legollm.parts import is_divided, n_not_finite, own_part, whole
from legollm.team import ALONE, Team, agree
from legollm.tokenizers import save_to_folder

log = logging.getLogger(__name__)

FORMAT = 1
TENSORS, STATE = "optim.safetensors", "state.json"
PARTS = "optim-*-of-*.safetensors"
"""Where several processes wrote what the optimizer remembers."""


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
    folder: Path,
    model: nn.Module,
    arch: str,
    config: Any,
    tokenizer: Tokenizer | None,
    extra: Mapping[str, Any],
    team: Team = ALONE,
    adapter: Adapter | None = None,
) -> None:
    """adapter: what makes this a folder of the model's adapters alone."""
    if adapter:
        write_adapter(folder, adapter, arch, model, team)
        if tokenizer is not None and team.leads:
            save_to_folder(tokenizer, folder, **extra)
        return
    eos = tokenizer.special_tokens.get(extra.get("eos", "")) if tokenizer else None
    special_ids = {} if eos is None else {"eos_token_id": eos}
    save_hf_folder(folder, arch, config, model, special_ids=special_ids, team=team)
    if tokenizer is not None and team.leads:
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
    team: Team = ALONE,
    adapter: Adapter | None = None,
) -> Path:
    """Write `root/step-NNNNNNNN` atomically, point `root/../checkpoint` at it, then drop what is not kept.

    team: all of its processes call this. Those that have a part of the model write it, the leader all else, the
    manifest last. adapter: of a model with adapters, which are then all that is written of it.

    Raises:
        DivergedError: weights or memories of the optimizer that are not finite; nothing is written.
        CheckpointError: a disk that refused; earlier checkpoints are untouched.
    """
    final = root / f"step-{step:08d}"
    check_finite(model.state_dict() | dict(state.tensors), final, step, team)

    def write(folder: Path) -> None:
        write_model(folder, model, arch, config, tokenizer, extra or {}, team, adapter)
        small = write_state_parts(folder, state.tensors, team)
        if team.leads:
            save_file({k: v.contiguous() for k, v in small.items()}, folder / TENSORS, {"format": "pt"})
            document = {"version": FORMAT, "legollm": __version__, "step": step} | dict(state.values)
            (folder / STATE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    is_shared = any(map(is_divided, model.parameters()))
    with agreed(team, final):
        if is_shared or team.leads:
            with team_folder(
                final, checkpoint_bytes(model, state.tensors, adapter), team if is_shared else ALONE
            ) as temporary:
                write(temporary)
        if team.leads:
            finish(root, step, keep, best)
    return final


def finish(root: Path, step: int, keep: int, best: int | None) -> None:
    """Make the checkpoint of this step the newest one, and drop what is not kept."""
    final = root / f"step-{step:08d}"
    verify(final)  # read back before anything older is dropped
    point_at(root.parent / "checkpoint", final)
    for old_step, old in list(steps(root).items())[keep:]:
        if old_step not in (step, best):
            try:
                discard(old)
            except OSError as error:  # the new one is safe all the same
                log.warning("%s: could not be removed (%s); remove it to get its room back", old, error.strerror)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that hold a number which is none, among what lies on this process."""
    return [name for name, tensor in tensors.items() if n_not_finite(tensor)]


def check_finite(tensors: Mapping[str, Tensor], folder: Path, step: int, team: Team) -> None:
    """
    Raises:
        DivergedError: numbers that are none, at any process; at all of them.
    """
    bad = not_finite(tensors)
    found = (
        f"{len(bad)} tensors hold numbers that are not finite, first {bad[0]}"
        if bad
        else "numbers at another process are not finite"
    )
    problem = DivergedError(
        f"{folder}: not saved, {found}; the checkpoints before it are sound; lower optim.lr or raise "
        "optim.warmup_steps",
        {"step": step, "not_finite": bad},
    )
    agree(team, problem if bad else None, problem)


def checkpoint_bytes(model: nn.Module, tensors: Mapping[str, Tensor], adapter: Adapter | None = None) -> int:
    """What the large files of a checkpoint weigh: all but the tokenizer's and a few small ones."""
    saved = {n: p for n, p in model.named_parameters() if p.requires_grad} if adapter else model.state_dict()
    weights: dict[int, int] = {own_part(t).data_ptr(): t.nbytes for t in saved.values()}  # tied ones once
    return sum(weights.values()) + sum(tensor.nbytes for tensor in tensors.values())


@contextmanager
def agreed(team: Team, folder: Path) -> Iterator[None]:
    """What fails at one process fails at all of them, at the end of the block.

    Raises:
        CheckpointError: the one's own, or that another has one.
    """
    problem: CheckpointError | OSError | SafetensorError | None = None
    try:
        yield
    except (CheckpointError, OSError, SafetensorError) as error:
        problem = error
    agree(team, problem, CheckpointError(f"{folder}: another process could not write its part"))


@contextmanager
def team_folder(final: Path, n_bytes: int, team: Team) -> Iterator[Path]:
    """`atomic_folder` for all processes of a team: the leader's, in which the others write, too."""
    with ExitStack() as stack:
        folder = Path()
        with agreed(team, final):
            if team.leads:  # replaces a damaged one that was passed over
                folder = stack.enter_context(atomic_folder(final, replace=True, n_bytes=n_bytes))
        folder = Path(team.tell(lambda: str(folder)))
        with agreed(team, final):  # with all parts there the manifest may be written
            yield folder


def write_state_parts(folder: Path, tensors: Mapping[str, Tensor], team: Team) -> dict[str, Tensor]:
    """Write those that lie on several processes -> the others."""
    divided = {
        name: Divided(Shape(tensor.dtype, tensor.shape), partial(gathered, tensor))
        for name, tensor in tensors.items()
        if is_divided(tensor)
    }
    if divided:
        write_divided(folder, Path(TENSORS).stem, divided, team)
    return {name: tensor for name, tensor in tensors.items() if name not in divided}


def gathered(tensor: Tensor) -> Tensor:
    return whole(tensor).cpu()


def load_state(folder: Path) -> TrainingState:
    """The training state of a verified checkpoint.

    Raises:
        CheckpointError: there is none, or this version cannot read it.
    """
    try:
        values = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
        for path in sorted(folder.glob(PARTS)):
            tensors |= load_file(path)  # mapped, not read: a process touches only the rows that it takes
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


def rng_tensors(team: Team = ALONE) -> dict[str, Tensor]:
    """The states of torch's own generators, which dropout draws from: `rng.cpu`, and `rng.cpu.1` of process 1."""
    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return {of_rank(name, rank): s for name, mine in states.items() for rank, s in enumerate(team.gather(mine))}


def restore_rng(tensors: Mapping[str, Tensor], team: Team = ALONE, *, otherwise: int = 0) -> None:
    """Go on where each process was; one that is new draws from the seed `otherwise`."""
    if of_rank("rng.cpu", team.rank) not in tensors:
        torch.manual_seed(otherwise)
        return
    torch.set_rng_state(tensors[of_rank("rng.cpu", team.rank)])
    cuda = of_rank("rng.cuda", team.rank)
    if cuda in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[cuda])


def of_rank(name: str, rank: int) -> str:
    return f"{name}.{rank}" if rank else name
