"""Memory spared: what is large and quick to compute is not kept for the backward pass but computed again.

Between its two products a feed-forward layer makes its widest tensors by arithmetic on single numbers. To keep them
costs more memory than anything else in a block; to make them again, one or two hundredths of a step (the idea is the
selective recomputation of Korthikanti et al. 2022, arXiv:2205.05198). Gradients are the same in every bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LARGE = 8 << 20
"""Bytes of an input from which on memory matters more than the microseconds of Python that sparing it takes."""
FORGETS_ALL = ContextVar("forgets_all", default=False)


def spared(part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """part(*inputs), of which the backward pass keeps the inputs only, where those are large. It draws no numbers."""
    is_kept = not torch.is_grad_enabled() or inputs[0].nbytes < LARGE
    if is_kept or torch.compiler.is_compiling() or FORGETS_ALL.get():  # the compiler chooses by itself what it keeps
        return part(*inputs)
    again: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
    return again


@contextmanager
def forgetting_all() -> Iterator[None]:
    """Within a block that keeps nothing but its input, there is nothing left to spare."""
    before = FORGETS_ALL.set(True)
    try:
        yield
    finally:
        FORGETS_ALL.reset(before)
