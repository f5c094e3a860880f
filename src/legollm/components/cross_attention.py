# mypy: disable-error-code="no-any-return"
"""Cross-attention: every token of one text gathers information from another text, the memory."""

from typing import NamedTuple

from torch import Tensor, nn

from legollm.components.attention import attend
from legollm.interfaces import Mask


class LayerMemory(NamedTuple):
    """What one layer keeps of a text that was read: made once, looked at by every token that is written after it."""

    k: Tensor
    """(B, K, S, Dh)."""
    v: Tensor
    """(B, K, S, Dh)."""
    mask: Mask
    """Which of the S columns hold text."""


class CrossAttention(nn.Module):
    """Attention whose keys and values come from another text (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3).

    Positions take no part: what is looked for is looked for everywhere.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int,
        n_kv_heads: int,
        d_head: int,
        bias: bool = False,
        dropout: float = 0.0,
        scale: float | None = None,
    ) -> None:
        """scale: what products of queries and keys are multiplied by; None is 1 / sqrt(d_head)."""
        super().__init__()
        self.d_head, self.dropout, self.scale = d_head, dropout, scale
        self.q_proj = nn.Linear(d_model, n_heads * d_head, bias=bias)
        self.k_proj = nn.Linear(d_model, n_kv_heads * d_head, bias=bias)
        self.v_proj = nn.Linear(d_model, n_kv_heads * d_head, bias=bias)
        self.o_proj = nn.Linear(n_heads * d_head, d_model, bias=bias)

    def remember(self, states: Tensor, mask: Mask) -> LayerMemory:
        """The keys and values of the other text's states, (B, S, D)."""
        heads = (*states.shape[:2], -1, self.d_head)
        k = self.k_proj(states).view(heads).transpose(1, 2)  # (B, K, S, Dh)
        v = self.v_proj(states).view(heads).transpose(1, 2)  # (B, K, S, Dh)
        return LayerMemory(k, v, mask)

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        """x: (B, T, D) -> (B, T, D)."""
        q = self.q_proj(x).view(*x.shape[:2], -1, self.d_head).transpose(1, 2)  # (B, H, T, Dh)
        dropout = self.dropout if self.training else 0.0
        y = attend(q, memory.k, memory.v, memory.mask, scale=self.scale, dropout=dropout)  # (B, H, T, Dh)
        return self.o_proj(y.transpose(1, 2).flatten(-2))
