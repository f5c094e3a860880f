"""A weight matrix in the form that products read it, of one of four precisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from legollm.components.quantized import QuantizedLinear, rounded
from legollm.errors import LoweringError
from legollm.kernels.plan import BFLOAT16, FLOAT32, INT4, INT8

Precision = Literal["float32", "bfloat16", "int8", "int4"]
"""What weight matrices are kept in. float32: exactly the model's numbers. bfloat16: their upper half. int8: bytes with
a scale for each output. int4: half bytes with a bfloat16 scale for each 32 of them. Norms and biases stay float32."""

FORMS: Mapping[Precision, int] = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8, "int4": INT4}
PANEL, GROUP = 16, 32
"""int4: rows that lie together, and numbers that share a scale."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A matrix that kernels can read; it keeps its memory alive."""

    form: int
    """FLOAT32, BFLOAT16, INT8 or INT4."""
    rows: int
    width: int
    data: Tensor
    row_bytes: int
    """From one row to the next; int4: from one panel of 16 rows to the next."""
    scales: Tensor | None = None
    """int8: of each row, float32."""

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def plain(self) -> Tensor:
        """The numbers it stands for, (rows, width) float32."""
        if self.form == INT4:
            return int4_plain(self.data, self.rows, self.width)
        return self.data.float() if self.scales is None else self.data.float() * self.scales[:, None]


def packed(weight: Tensor, precision: Precision) -> Weight:
    """weight: (rows, width). float32 weights are not copied: what changes in the model changes here, too."""
    rows, width = weight.shape
    weight = weight.detach()
    match precision:
        case "float32":
            data = weight.float().contiguous()
            return Weight(FLOAT32, rows, width, data, data.stride(0) * 4)
        case "bfloat16":
            data = weight.to(torch.bfloat16).contiguous()
            return Weight(BFLOAT16, rows, width, data, data.stride(0) * 2)
        case "int8" | "int4":
            return of_numbers(*rounded(weight, precision, GROUP), width)


def of_numbers(numbers: Tensor, scales: Tensor, width: int) -> Weight:
    """Whole numbers and scales as `rounded` returns them; int4 groups may be of any multiple of 32."""
    rows = numbers.size(0)
    if scales.dim() == 1:
        return Weight(INT8, rows, width, numbers.contiguous(), width, scales)
    repeats = numbers.size(2) // GROUP
    groups = numbers.view(rows, -1, GROUP)[:, : -(-width // GROUP)]
    data = in_panels(groups, scales.repeat_interleave(repeats, 1)[:, : groups.size(1)])
    return Weight(INT4, rows, width, data, data.size(1))


def of_quantized(linear: QuantizedLinear) -> Weight:
    """The numbers of a quantised map as they are: int8 not even copied, int4 in another order.

    Raises:
        LoweringError: its groups are not made of groups of 32.
    """
    if linear.bits == "int4" and linear.group_size % GROUP:
        raise LoweringError(
            f"no lowering for int4 in groups of {linear.group_size}, only of multiples of {GROUP}; engine=torch runs it"
        )
    return of_numbers(linear.whole_numbers(), linear.scales, linear.in_features)


def in_panels(groups: Tensor, scales: Tensor) -> Tensor:
    """(rows, groups, 32) int8 and (rows, groups) bfloat16 -> (panels, bytes) uint8: all half bytes, then all scales.

    In a group, 64 bytes after the other hold 8 numbers of each of the 16 rows: 4 bytes a row, whose lower halves are
    the first four numbers, and the upper ones the others. A half byte is 8 more than the number it stands for.
    """
    n_more = -groups.size(0) % PANEL
    groups, scales = F.pad(groups, (0, 0, 0, 0, 0, n_more)), F.pad(scales, (0, 0, 0, n_more))
    halves = (groups + 8).to(torch.uint8).view(-1, PANEL, groups.size(1), GROUP)
    eights = halves.view(*halves.shape[:3], 4, 2, 4).permute(0, 2, 3, 1, 4, 5)  # (panels, groups, 4, 16, 2, 4)
    pairs = eights[..., 0, :] | eights[..., 1, :] << 4
    bits = (
        scales.view(-1, PANEL, scales.size(1)).transpose(1, 2).contiguous().view(torch.uint8)
    )  # (panels, groups, 16 * 2)
    return torch.cat([pairs.flatten(1), bits.flatten(1)], 1).contiguous()


def int4_plain(data: Tensor, rows: int, width: int) -> Tensor:
    """What panels stand for: the inverse of `in_panels`, times the scales."""
    n_groups = -(-width // GROUP)
    split = n_groups * PANEL * GROUP // 2
    pairs = data[:, :split].view(-1, n_groups, 4, PANEL, 4)
    numbers = torch.stack([pairs & 15, pairs >> 4], 4).float() - 8  # (panels, groups, 4, 16, 2, 4)
    numbers = numbers.permute(0, 3, 1, 2, 4, 5).reshape(-1, PANEL, n_groups, GROUP)
    scales = data[:, split:].contiguous().view(torch.bfloat16).view(-1, n_groups, PANEL).transpose(1, 2)
    return (numbers * scales.float()[..., None]).view(-1, n_groups * GROUP)[:rows, :width]
