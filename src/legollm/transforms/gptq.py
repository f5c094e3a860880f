"""GPTQ: weights are rounded one column after the other, and those to come make up for the error made so far.

Frantar et al. 2022, arXiv:2210.17323. With G the Gram matrix of what the map reads, the best correction for an error
e of column j is, for the columns after it, -e / U_jj times row j of U, the upper Cholesky factor of the inverse of G.
"""

import torch
from torch import Tensor

from legollm.components.quantized import Bits, in_groups, nearest, plain, rounded, scales_of
from legollm.transforms.calibration import Inputs

DAMPING = 0.01
"""Of the mean of G's diagonal, added to it: a text that is short leaves directions in which nothing was read."""
BLOCK = 128
"""int8: columns whose corrections reach the columns behind them together."""


def gptq(weight: Tensor, inputs: Inputs, bits: Bits, group_size: int) -> tuple[Tensor, Tensor]:
    """Numbers and scales as `rounded` returns them, whose answers are no further from the weight's than its are."""
    simple = rounded(weight, bits, group_size)
    if not inputs.n_states:
        return simple
    better = corrected(weight, inputs.gram, bits, group_size)
    errors = [inputs.error(weight - plain(*one, weight.size(1))) for one in (simple, better)]
    return better if errors[1] < errors[0] else simple


def corrected(weight: Tensor, gram: Tensor, bits: Bits, group_size: int) -> tuple[Tensor, Tensor]:
    """weight: (rows, width), gram: (width, width) -> as `rounded`. A group's scale is chosen when its turn comes."""
    size = BLOCK if bits == "int8" else group_size
    left = in_groups(weight.double(), size).flatten(1)  # what is still to be rounded, corrected so far
    width = left.size(1)
    u = torch.eye(width, dtype=torch.float64, device=weight.device)
    u[: len(gram), : len(gram)] = inverse_factor(gram)
    numbers = torch.empty_like(left, dtype=torch.int8)
    scales = scales_of(weight, bits)[:, None] if bits == "int8" else scales_of(in_groups(weight, size), bits)
    for start in range(0, width, size):
        stop = start + size
        if bits == "int4":
            scales[:, start // size] = scales_of(left[:, start:stop], bits)
        steps = scales[:, 0 if bits == "int8" else start // size].double()
        errors = torch.empty_like(left[:, start:stop])
        for j in range(start, stop):
            numbers[:, j] = nearest(left[:, j], steps, bits)
            errors[:, j - start] = (left[:, j] - numbers[:, j] * steps) / u[j, j]
            left[:, j:stop] -= errors[:, j - start, None] * u[j, j:stop]
        left[:, stop:] -= errors @ u[start:stop, stop:]
    if bits == "int8":
        return numbers[:, : weight.size(1)].contiguous(), scales.squeeze(1)
    return numbers.view(len(numbers), -1, size), scales


def inverse_factor(gram: Tensor) -> Tensor:
    """The upper factor U of the inverse of the damped Gram matrix: UᵀU = (G + d I)⁻¹, float64."""
    g = gram.double()
    unread = g.diagonal() == 0
    g = g + torch.diag(DAMPING * g.diagonal().mean() + unread.double())
    upper: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(g)), upper=True)
    return upper
