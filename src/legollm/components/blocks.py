# mypy: disable-error-code="no-any-return"
"""Blocks: where the norms stand around the two halves of a layer, mixing across tokens and thinking within one."""

from torch import Tensor, nn

from legollm.interfaces import LayerCache, Mask


class PreNormBlock(nn.Module):
    """Normalise, mix, add; normalise, think, add (GPT-2; Xiong et al. 2020, arXiv:2002.04745)."""

    def __init__(
        self, *, norm1: nn.Module, attn: nn.Module, norm2: nn.Module, ffn: nn.Module, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.ffn = norm1, attn, norm2, ffn
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, D), positions: (T,) or (B, T) -> (B, T, D)."""
        x = x + self.dropout(self.attn(self.norm1(x), positions, mask, cache))
        return x + self.dropout(self.ffn(self.norm2(x)))


class PostNormBlock(nn.Module):
    """Mix, add, normalise; think, add, normalise: the first transformer (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(
        self, *, norm1: nn.Module, attn: nn.Module, norm2: nn.Module, ffn: nn.Module, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.ffn = norm1, attn, norm2, ffn
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, D), positions: (T,) or (B, T) -> (B, T, D)."""
        x = self.norm1(x + self.dropout(self.attn(x, positions, mask, cache)))
        return self.norm2(x + self.dropout(self.ffn(x)))


class SandwichNormBlock(nn.Module):
    """Normalise before and after each half (Ding et al. 2021, arXiv:2105.13290; Gemma 2 does so, too)."""

    def __init__(
        self,
        *,
        norm1: nn.Module,
        attn: nn.Module,
        attn_norm: nn.Module,
        norm2: nn.Module,
        ffn: nn.Module,
        ffn_norm: nn.Module,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.attn, self.attn_norm = norm1, attn, attn_norm
        self.norm2, self.ffn, self.ffn_norm = norm2, ffn, ffn_norm
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, D), positions: (T,) or (B, T) -> (B, T, D)."""
        x = x + self.dropout(self.attn_norm(self.attn(self.norm1(x), positions, mask, cache)))
        return x + self.dropout(self.ffn_norm(self.ffn(self.norm2(x))))


class ParallelBlock(nn.Module):
    """Mix and think side by side on the same normalised input (GPT-J; Chowdhery et al. 2022, arXiv:2204.02311)."""

    def __init__(self, *, norm: nn.Module, attn: nn.Module, ffn: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.attn, self.ffn = norm, attn, ffn
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, D), positions: (T,) or (B, T) -> (B, T, D)."""
        y = self.norm(x)
        return x + self.dropout(self.attn(y, positions, mask, cache) + self.ffn(y))
