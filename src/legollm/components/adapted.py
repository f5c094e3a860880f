# mypy: disable-error-code="no-any-return, no-untyped-call"
"""A linear map that stays as it is, and beside it a narrow detour that learns: x W^T + s * x A^T B^T.

A change of W that a few thousand examples ask for has a low rank, so a product B A of two thin matrices holds it. B
starts at zero: the map computes what it did, and learning begins there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.quantized import QuantizedLinear


class Adapted(nn.Module):
    """A frozen linear map with a low-rank adapter (LoRA; Hu et al. 2021, arXiv:2106.09685).

    base: of floats, or of whole numbers, as in QLoRA (Dettmers et al. 2023, arXiv:2305.14314). scale: of what the
    adapter adds; alpha / rank in the paper, alpha / sqrt(rank) in rsLoRA (Kalajdzievski 2023, arXiv:2312.03732).
    dropout: of what the adapter reads.
    """

    def __init__(
        self, base: nn.Linear | QuantizedLinear, *, rank: int, scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.base, self.rank, self.scale = base, rank, scale
        weight = base.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)  # steps are too small for the digits of bfloat16
        self.lora_a = nn.Parameter(torch.zeros(rank, base.in_features, dtype=dtype, device=weight.device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, dtype=dtype, device=weight.device))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.product: Tensor | None = None
        """The one matrix that computes all of it, while the adapter is merged."""
        self.is_on = True
        """Whether the adapter counts; without it this is the base."""

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """A start that changes nothing: A uniform with variance 1 / (3 D_in), B zero."""
        bound = self.lora_a.size(1) ** -0.5
        drawn = torch.empty(self.lora_a.shape, device="cpu").uniform_(-bound, bound, generator=generator)
        self.lora_a.copy_(drawn)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D_in) -> (..., D_out)."""
        if not self.is_on:
            return self.base(x)
        if self.product is not None:
            return F.linear(x, self.product.to(x.dtype), self.base.bias)
        return self.adapt(x, self.base(x))

    def adapt(self, x: Tensor, y: Tensor) -> Tensor:
        """What the base made of x, with what the adapter adds."""
        return y + self.added(self.dropout(x)).to(y.dtype)

    def added(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x.to(self.lora_a.dtype), self.lora_a), self.lora_b) * self.scale

    def weight(self) -> Tensor:
        """The one matrix that computes all of it: (D_out, D_in), in float32 at least."""
        with torch.autocast(self.lora_a.device.type, enabled=False):
            return self.base.weight.to(self.lora_a.dtype) + self.scale * (self.lora_b @ self.lora_a)

    @torch.no_grad()
    def merge(self) -> None:
        """Compute with one matrix from now on, which takes the memory of the base once more."""
        self.product = self.weight()

    def unmerge(self) -> None:
        """Compute in two parts again; the base was never touched, so nothing is rounded."""
        self.product = None

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        """A linear map that computes the same; it has the base's bias and dtype."""
        kept = self.base.weight.dtype
        with torch.device("meta"):
            made = nn.Linear(self.base.in_features, self.base.out_features, bias=False)
        made.weight = nn.Parameter(self.weight().to(kept))
        made.register_parameter("bias", self.base.bias)
        return made

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scale={self.scale:g}"


class AdaptedByDirection(Adapted):
    """The adapter turns the rows of W, and how long each row is learns by itself (DoRA; Liu et al. 2024,
    arXiv:2402.09353): W' = magnitude * (W + s B A) / |W + s B A|, row by row.

    The lengths below the line count as constants in the backward pass, as in section 4.3 of the paper.
    """

    def __init__(
        self, base: nn.Linear | QuantizedLinear, *, rank: int, scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(base, rank=rank, scale=scale, dropout=dropout)
        self.magnitude = nn.Parameter(row_lengths(super().weight()).detach())

    def adapt(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            lengths = row_lengths(super().weight())
        longer = self.magnitude / lengths  # (D_out,): 1 at the start, exactly
        seen = self.dropout(x)
        along = y if seen is x else self.base(seen)
        along = along if self.base.bias is None else along - self.base.bias
        return y + ((longer - 1) * along + longer * self.added(seen)).to(y.dtype)

    def weight(self) -> Tensor:
        turned = super().weight()
        return (self.magnitude / row_lengths(turned))[:, None] * turned


def row_lengths(weight: Tensor) -> Tensor:
    """(D_out, D_in) -> (D_out,)."""
    return torch.linalg.vector_norm(weight, dim=1)
