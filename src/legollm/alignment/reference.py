"""What the model at the start thinks of every answer: computed once, kept in the run's folder, checked at each start.

A run that compares with its reference needs no second model in memory: of the reference only these numbers enter.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from legollm.alignment.pairs import Pair, fingerprint, pair_batch
from legollm.alignment.preferences import token_log_probs
from legollm.device import Precision, autocast
from legollm.errors import CheckpointError
from legollm.training.train import on_device
from legollm.whole_file import write_whole

REFERENCE = "reference.safetensors"


class Known(NamedTuple):
    """Log-probabilities under the model at the start, and the precision they were computed in."""

    precision: Precision
    numbers: dict[str, Tensor]
    """For each part of the data those of all tokens of all answers, one after the other."""


def with_reference(pairs: Sequence[Pair], numbers: Tensor) -> list[Pair]:
    """The pairs with their own numbers."""
    values: list[float] = numbers.tolist()
    found, at = [], 0
    for pair in pairs:
        mine = []
        for answer in pair.answers:
            mine.append(values[at : at + len(answer)])
            at += len(answer)
        found.append(pair._replace(reference=tuple(mine)))
    return found


def reference_of(
    folder: Path,
    model: nn.Module,
    parts: Mapping[str, Sequence[Pair]],
    *,
    base: str,
    precision: Precision,
    batch_size: int,
    max_len: int,
    is_resumed: bool,
) -> Known:
    """The reference of a run: read from its folder, or computed with `model`, as it is now, and written there.

    base: a fingerprint of the model's weights. is_resumed: whether the run has learned from a reference already.

    Raises:
        CheckpointError: it has, and from another one.
    """
    path = folder / REFERENCE
    about = {"base": base} | {name: fingerprint(pairs) for name, pairs in parts.items()}
    found = read(path)
    if found and all(found[0].get(key) == value for key, value in about.items()):
        return Known(cast(Precision, found[0]["precision"]), found[1])
    if is_resumed and not found:
        raise CheckpointError(
            f"{path}: is gone, and the run has learned from it already; put it back, or give run=ANOTHER_FOLDER"
        )
    if is_resumed and found:
        changed = [key for key, value in about.items() if found[0].get(key) != value]
        raise CheckpointError(
            f"{path}: not of this run's {' and '.join(changed)}; put back what the run was started with, or give "
            "run=ANOTHER_FOLDER"
        )
    numbers = {
        name: log_probs_of(model, pairs, batch_size=batch_size, max_len=max_len, precision=precision)
        for name, pairs in parts.items()
    }
    write_whole(path, save(numbers, metadata=about | {"precision": precision}))
    return Known(precision, numbers)


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]] | None:
    """What is known about a reference file, and its numbers; None if there is none."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); remove it, and it is computed again") from error


@torch.no_grad()
def log_probs_of(
    model: nn.Module, pairs: Sequence[Pair], *, batch_size: int, max_len: int, precision: str = "float32"
) -> Tensor:
    """Of every token of every answer its log-probability, (N,) float32, in the order of the pairs."""
    device = next(model.parameters()).device
    is_training = model.training
    model.eval()
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].prompt) + max(map(len, pairs[i].answers)))
    found: list[Any] = [None] * len(pairs)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = on_device(pair_batch([pairs[i] for i in chosen], max_len), device)
        with autocast(precision, device):
            rows = token_log_probs(model, batch.tokens.flatten(0, 1), batch.targets.flatten(0, 1))
        rows = rows.view(batch.tokens.shape).float().cpu()
        for i, answers in zip(chosen, rows, strict=True):
            first = len(pairs[i].prompt) - 1
            found[i] = [row[first : first + len(ids)] for row, ids in zip(answers, pairs[i].answers, strict=True)]
    model.train(is_training)
    return torch.cat([row for rows in found for row in rows])
