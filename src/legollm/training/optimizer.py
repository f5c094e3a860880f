"""What all optimizers here share: groups of parameters with their settings, and a memory for each parameter.

The attributes are those of `torch.optim.Optimizer`, which works in the training loop as well. These do not inherit from
it: making one loads PyTorch's compiler, 2.5 seconds of every start.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from legollm.parts import own_part

BLOCK = 1 << 19
"""Numbers that are moved at a time: the tensors of a step's arithmetic, 2 MB each, stay in the processor's cache.

Smaller blocks are no faster, and each pass over one makes threads wait for each other: dear on a busy machine.
"""


class GroupedOptimizer(ABC):
    """Moves parameters that have a gradient; how is up to `move`."""

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        """params: parameters, or groups of them: dicts with `params` and settings that win over the defaults."""
        given = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = [{**defaults, **group} for group in groups]
        for group in self.param_groups:
            group["params"] = list(group["params"])
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; with set_to_none their memory, too."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:  # each number moves by itself, on whichever process it lies
                    self.move(own_part(parameter), own_grad(parameter), self.state[parameter], group)

    @abstractmethod
    def move(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One parameter's step, in place; state is what is remembered of it, empty at first."""


def own_grad(parameter: Tensor) -> Tensor:
    """The gradient of the rows that lie here, with the zeros of rows that were not looked up."""
    assert parameter.grad is not None
    return parameter.grad.to_dense() if parameter.grad.is_sparse else own_part(parameter.grad)


def in_blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape, cut alike into flat views of BLOCK numbers, so that a step reads memory once.

    Eight passes over each parameter become one and seven over the cache. Tensors that lie in memory in different orders
    are not cut.
    """
    if tensors[0].numel() <= BLOCK or not all(tensor.is_contiguous() for tensor in tensors):
        yield tensors
        return
    yield from zip(*(torch.split(tensor.view(-1), BLOCK) for tensor in tensors), strict=True)
