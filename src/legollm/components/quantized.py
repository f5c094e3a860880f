# mypy: disable-error-code="no-any-return, no-untyped-call"
"""Weights as whole numbers of 8 or 4 bits with a scale for some of them: a quarter or an eighth of the memory.

A number w stands as the whole number n nearest to w / s, and is read as n * s. The scale s is shared by a whole row of
the matrix (int8) or by a group of neighbours in a row (int4), so that one large weight coarsens only its own group.
"""

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Bits = Literal["int8", "int4"]
LIMITS = {"int8": (-127, 127), "int4": (-8, 7)}
STATES_PER_SCALE = {"int8": 64, "int4": 32}
"""States that share a scale where they are bytes, too; the kernels of engine=cpu group them likewise."""


def scales_of(groups: Tensor, bits: Bits) -> Tensor:
    """What a step is worth in each group: (..., G) -> (...).

    int8: float32, the largest magnitude is 127 steps. int4: bfloat16 with a sign, the largest magnitude is -8 steps;
    a number of the other sign that is as large is 7.
    """
    if bits == "int8":
        return (groups.float().abs().amax(-1) / 127).clamp_min(1e-30)
    extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)).squeeze(-1)
    return (extreme.float() / -8).to(torch.bfloat16)


def nearest(weight: Tensor, scales: Tensor, bits: Bits) -> Tensor:
    """The nearest whole numbers there are, int8; scales: one for each weight, or of a shape that broadcasts."""
    steps = scales.to(weight.dtype) if weight.dtype == torch.float64 else scales.float()
    return (weight / torch.where(steps == 0, 1, steps)).round_().clamp_(*LIMITS[bits]).to(torch.int8)


def in_groups(weight: Tensor, size: int) -> Tensor:
    """(rows, width) -> (rows, groups, size); zeros at the end of a row that is no multiple of it."""
    return F.pad(weight, (0, -weight.size(1) % size)).unflatten(1, (-1, size))


def rounded(weight: Tensor, bits: Bits, group_size: int) -> tuple[Tensor, Tensor]:
    """Every weight to the nearest number.

    weight: (rows, width) -> int8: (rows, width) and (rows,); int4: (rows, groups, group_size) and (rows, groups).
    """
    groups = weight.float() if bits == "int8" else in_groups(weight.float(), group_size)
    scales = scales_of(groups, bits)
    return nearest(groups, scales[..., None], bits), scales


def plain(numbers: Tensor, scales: Tensor, width: int) -> Tensor:
    """What the numbers and scales that `rounded` returns stand for: (rows, width) float32."""
    return (numbers.float() * scales.float()[..., None]).flatten(1)[:, :width]


def in_pairs(numbers: Tensor) -> Tensor:
    """Two numbers of -8 to 7 in a byte, 8 more than they are, the first in the lower half: (..., 2n) -> (..., n)."""
    halves = (numbers + 8).to(torch.uint8)
    return halves[..., ::2] | halves[..., 1::2] << 4


def out_of_pairs(pairs: Tensor) -> Tensor:
    """The inverse of `in_pairs`, int8."""
    return torch.stack([pairs & 15, pairs >> 4], -1).flatten(-2).to(torch.int8) - 8


def as_bytes(x: Tensor, size: int) -> Tensor:
    """States as they come back from bytes with a scale for each group of `size`: (..., D) -> (..., D)."""
    groups = F.pad(x.float(), (0, -x.size(-1) % size)).unflatten(-1, (-1, size))
    largest = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30)
    numbers = (groups * (127 / largest)).round()
    return (numbers * (largest / 127)).flatten(-2)[..., : x.size(-1)].to(x.dtype)


class QuantizedLinear(nn.Module):
    """A linear map with weights of 8 or 4 bits; they cannot be trained, and gradients pass through to what it reads.

    A scale for each row as in Dettmers et al. 2022, arXiv:2208.07339, or for groups as in Shen et al. 2019,
    arXiv:1909.05840.
    activations: "float" multiplies what comes in as it is; "int8" rounds it to bytes first, as engine=cpu does.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bits: Bits,
        group_size: int = 32,
        bias: bool = True,
        activations: Literal["float", "int8"] = "float",
    ) -> None:
        """group_size: int4, weights of a row that share a scale; an even number. Filled by `fill` or a state dict."""
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bits, self.group_size, self.activations = bits, group_size, activations
        n_groups = -(-in_features // group_size)
        if bits == "int8":
            numbers = torch.empty(out_features, in_features, dtype=torch.int8)
            scales = torch.empty(out_features)
        else:
            numbers = torch.empty(out_features, (in_features + 1) // 2, dtype=torch.uint8)
            scales = torch.empty(out_features, n_groups, dtype=torch.bfloat16)
        self.numbers: Tensor
        self.scales: Tensor
        self.register_buffer("numbers", numbers)
        self.register_buffer("scales", scales)
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def fill(self, numbers: Tensor, scales: Tensor) -> Self:
        """Take the numbers and scales that `rounded` returns."""
        n_even = self.in_features + self.in_features % 2  # zeros that fill the last group are not kept
        self.numbers = in_pairs(numbers.flatten(1)[:, :n_even]) if self.bits == "int4" else numbers
        self.scales = scales
        return self

    def whole_numbers(self) -> Tensor:
        """As `rounded` returns them, int8."""
        if self.bits == "int8":
            return self.numbers
        return in_groups(out_of_pairs(self.numbers), self.group_size)

    @property
    def weight(self) -> Tensor:
        """What the numbers stand for, made anew each time: (out_features, in_features) float32."""
        return plain(self.whole_numbers(), self.scales, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        if self.activations == "int8":
            x = as_bytes(x, STATES_PER_SCALE[self.bits])
        return MadeAnew.apply(x, self.bias, self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """To another device, but not to another dtype: numbers times other scales are other weights."""
        scales = self.scales
        super()._apply(fn, recurse)
        if self.scales.dtype != scales.dtype:
            self.scales = scales.to(self.scales.device)
        return self

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}, bias={bias}"


class MadeAnew(torch.autograd.Function):
    """x W^T + b, where the floats of W live for one product only: the backward pass makes them again.

    Autograd would keep them for it, all layers at once: eight times the memory that half bytes save.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, linear: QuantizedLinear) -> Tensor:
        ctx.linear, ctx.dtype = linear, x.dtype
        return F.linear(x, linear.weight.to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        of_x = (grad @ ctx.linear.weight.to(grad.dtype)).to(ctx.dtype)
        return of_x, grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None, None
