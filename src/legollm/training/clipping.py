"""The length of the whole gradient, and cutting it to a bound (Pascanu et al. 2013, arXiv:1211.5063)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from legollm.parts import whole


@torch.no_grad()
def all_gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """All numbers of all gradients: of a table, those of the rows that were looked up, each row once."""
    found = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
        found.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
    return found


def norm_of(grads: list[Tensor]) -> Tensor:
    """The square root of the sum of all squares, ()."""
    return whole(nn.utils.get_total_norm(grads))


@torch.no_grad()
def clip(grads: list[Tensor], norm: Tensor, largest: float) -> None:
    """Scale down, in place, so that the norm is at most `largest`; most gradients are short and cost nothing here."""
    scale = float(largest / (norm + 1e-6))
    if scale < 1:
        for grad in grads:
            grad.mul_(scale)
