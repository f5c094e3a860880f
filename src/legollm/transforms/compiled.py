"""Blocks whose training passes are compiled: elementwise operations in one walk over memory instead of one each.

All blocks of one kind share what the compiler made of the first, so that a deep model is compiled as fast as a shallow
one. Outside of training, a block stays as it is written: shapes change there with every token.
"""

import logging
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

from legollm.components.adapted import AdaptedByDirection
from legollm.transforms.recompute import Forgetful, Sparing, blocks

log = logging.getLogger(__name__)

Compile = Literal["auto", "always", "never"]

BUDGET = 0.8
"""Share of the memory for activations that compiled blocks may keep; what is cheapest is computed again instead.

The shape of GPT-2 124M, 4 x 512 tokens in bfloat16 on two cores: 2.9 GiB at most instead of 3.6, for 1.06 of the time.
"""


def compile_blocks(model: nn.Module) -> bool:
    """Have the compiler take the training passes of all blocks, when they come -> False where no compiler works.

    In place; parameters and their names stay as they are. Of blocks that compute again what they forgot, both passes.
    """
    if any(isinstance(module, AdaptedByDirection) for module in model.modules()):
        # PyTorch 2.13, bfloat16 products, rows of 64 ids: compiled gradients of the lengths in k_proj are no numbers.
        log.warning("train.compile: blocks with lora.kind=dora are not compiled; lora and rslora are")
        return False
    if not compiler_works(next(model.parameters()).device):
        return False
    from torch._functorch import config

    config.activation_memory_budget = BUDGET
    for holder, name in passes(model):
        if not isinstance(getattr(holder, name), Compiled):
            setattr(holder, name, Compiled(getattr(holder, name)))
    return True


def uncompile_blocks(model: nn.Module) -> None:
    """Have all blocks compute as they are written again."""
    for holder, name in passes(model):
        if isinstance(one := getattr(holder, name), Compiled):
            setattr(holder, name, one.as_written)


def passes(model: nn.Module) -> Iterator[tuple[Any, str]]:
    """Where the function lies that computes a block, for each of them."""
    for block in blocks(model):
        yield (block.forward, "compute") if isinstance(block.forward, Forgetful | Sparing) else (block, "forward")


class Compiled:
    """Takes the place of a block's `forward`; without a gradient it is just that."""

    def __init__(self, forward: Any) -> None:
        self.as_written, self.compiled = forward, torch.compile(forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self.compiled if torch.is_grad_enabled() else self.as_written)(*args, **kwargs)


def compiler_works(device: torch.device) -> bool:
    """Whether the smallest of functions can be compiled here; if not, that is warned of, once."""
    from torch._dynamo.exc import BackendCompilerFailed

    x = torch.ones(8, device=device)
    try:
        torch.compile(plus_one)(x)
    except (BackendCompilerFailed, RuntimeError) as error:
        why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        log.warning("train.compile: no compiler works here (%s); training goes on without one", why.strip())
        return False
    return True


def plus_one(x: torch.Tensor) -> torch.Tensor:
    return x * x + 1
