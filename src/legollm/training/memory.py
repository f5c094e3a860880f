"""Micro-batches that do not fit into memory are divided, until they do: the same rows, in the same order and step."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from legollm.errors import TooLargeError
from legollm.team import ALONE, Team

log = logging.getLogger(__name__)


def within_memory(
    gradients: Callable[[list[Any]], Tensor],
    model: nn.Module,
    micro_batches: Sequence[Any],
    max_rows: int | None,
    team: Team = ALONE,
) -> tuple[Tensor, int | None]:
    """Call `gradients` with the micro-batches of a step, in parts of at most max_rows rows.

    Where the device runs out of memory, the step begins anew with parts half as large. Returns what `gradients`
    returned and the max_rows that did.

    Raises:
        TooLargeError: a single row does not fit; or one of several processes has too little, which cannot begin a step
            anew while the others wait for its gradient.
    """
    while True:
        parts = [part for batch in micro_batches for part in divided(batch, max_rows)]
        random = torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        try:
            return gradients(parts), max_rows
        except torch.OutOfMemoryError:
            pass  # only afterwards: while the error is handled, its traceback holds the tensors of the pass
        n_rows = max(map(rows_of, parts))
        if n_rows == 1:
            raise TooLargeError(
                "out of memory with a single row; give train.recompute=full, a smaller train.seq_len or a smaller model"
            )
        max_rows = -(-n_rows // 2)
        settings = f"train.batch_size={max_rows} with train.grad_accum={-(-sum(map(rows_of, parts)) // max_rows)}"
        if team.size > 1:
            raise TooLargeError(f"out of memory with micro-batches of {n_rows} rows; give {settings}, the same step")
        log.warning(
            "out of memory with micro-batches of %d rows; from now on they are divided into parts of at most %d, the "
            "same rows in the same step; %s says so from the start",
            *(n_rows, max_rows, settings),
        )
        model.zero_grad(set_to_none=True)
        torch.set_rng_state(random[0])
        if random[1] is not None:
            torch.cuda.set_rng_state(random[1])
            torch.cuda.empty_cache()


def rows_of(batch: Any) -> int:
    """Of a batch, a tuple of tensors whose first dimension are its rows."""
    return int(batch[0].size(0))


def divided(batch: Any, max_rows: int | None) -> list[Any]:
    """The batch in parts of at most max_rows rows, in order."""
    if max_rows is None or rows_of(batch) <= max_rows:
        return [batch]
    return [type(batch)(*part) for part in zip(*(tensor.split(max_rows) for tensor in batch), strict=True)]
