"""Memory spared on request: what is wide and quick to compute is not kept for the backward pass but computed again.

Between its two products a feed-forward layer makes its widest tensors by arithmetic on single numbers, and attention
has a weight for each pair of tokens. To keep them costs more memory than anything else in a block; to make them again
costs a tenth of a step (the selective recomputation of Korthikanti et al. 2022, arXiv:2205.05198). Gradients are the
same in every bit.
"""

from collections.abc import Callable
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SPARING: ContextVar[Callable[[Tensor], object] | None] = ContextVar("sparing", default=None)
"""Set while a block runs that is to spare memory (train.recompute=wide): it is told each tensor that is kept."""


def spared(part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """part(*inputs), of which the backward pass keeps the inputs only, where memory is to be spared."""
    if torch.compiler.is_compiling():  # the compiler chooses by itself what it keeps
        return part(*inputs)
    tell = SPARING.get()
    if tell is None or not torch.is_grad_enabled():
        return part(*inputs)
    for one in inputs:
        tell(one)
    again: Tensor = checkpoint(part, *inputs, use_reentrant=False)
    return again
