# mypy: disable-error-code="no-any-return"
"""Attention: every token gathers information from the tokens it may see."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.masks import Near
from legollm.interfaces import LayerCache, Mask


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762) whose query heads may share key/value heads.

    n_kv_heads == n_heads is multi-head attention, n_kv_heads == 1 multi-query attention (Shazeer 2019,
    arXiv:1911.02150), anything between grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245).
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int,
        n_kv_heads: int,
        d_head: int,
        rope: nn.Module,
        head_norm: Callable[[int], nn.Module] = nn.Identity,
        bias: bool = False,
        dropout: float = 0.0,
        window: int | None = None,
    ) -> None:
        """window: the nearest tokens a token sees, itself included; None for all before it."""
        super().__init__()
        self.n_kv_heads, self.d_head, self.dropout, self.window = n_kv_heads, d_head, dropout, window
        self.q_proj = nn.Linear(d_model, n_heads * d_head, bias=bias)
        self.k_proj = nn.Linear(d_model, n_kv_heads * d_head, bias=bias)
        self.v_proj = nn.Linear(d_model, n_kv_heads * d_head, bias=bias)
        self.o_proj = nn.Linear(n_heads * d_head, d_model, bias=bias)
        self.q_norm, self.k_norm = head_norm(d_head), head_norm(d_head)
        self.rope = rope

    @property
    def kv_shape(self) -> tuple[int, int]:
        """(K, Dh): what a cache holds per token."""
        return self.n_kv_heads, self.d_head

    def forward(self, x: Tensor, positions: Tensor, mask: Mask, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, D), positions: (T,) or (B, T) -> (B, T, D). With a cache, the T new tokens see all S so far."""
        heads = (*x.shape[:2], -1, self.d_head)
        q = self.q_proj(x).view(heads).transpose(1, 2)  # (B, H, T, Dh)
        k = self.k_proj(x).view(heads).transpose(1, 2)  # (B, K, T, Dh)
        v = self.v_proj(x).view(heads).transpose(1, 2)  # (B, K, T, Dh)
        q, k = self.rope(self.q_norm(q), self.k_norm(k), positions)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, K, S, Dh)
        if self.window is not None:
            mask = Near(mask, self.window, q.device)
        y = attend(q, k, v, mask, dropout=self.dropout if self.training else 0.0)  # (B, H, T, Dh)
        return self.o_proj(y.transpose(1, 2).flatten(-2))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask,
    *,
    dropout: float = 0.0,
    backend: Literal["naive", "sdpa"] | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(Dh)) v over the keys that `mask` allows; None takes the faster of the equal backends.

    q: (B, H, T, Dh), k and v: (B, K, S, Dh) with H a multiple of K -> (B, H, T, Dh).
    """
    T, S = q.size(-2), k.size(-2)
    allowed = mask.allowed(T, S)
    if allowed is None and 1 < T < S:  # new tokens after cached ones: the last query sees the last key
        allowed = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    if (backend or faster_backend(q, k)) == "naive":
        return attend_naive(q, k, v, allowed, dropout=dropout)
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=allowed,
        is_causal=allowed is None and T > 1,
        dropout_p=dropout,
        enable_gqa=q.size(1) != k.size(1),
    )


def faster_backend(q: Tensor, k: Tensor) -> Literal["naive", "sdpa"]:
    """Measured on two cores with avx512_bf16, forward and backward, q (16, 6, 256, 32), k and v (16, 2, 256, 32).

    bfloat16: naive 14 ms, SDPA 31 (8 x 512 tokens: 37 and 49; 4 x 1024: 118 and 57). float32: naive 28, SDPA 23. One
    bfloat16 query against 512 keys in 8 rows: naive 0.2 ms, SDPA 1.4.
    """
    short = k.size(-2) <= 512 or q.size(-2) == 1
    return "naive" if q.device.type == "cpu" and q.dtype == torch.bfloat16 and short else "sdpa"


def attend_naive(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, *, dropout: float) -> Tensor:
    """Attention as the paper writes it. allowed: None (causal, T == S or T == 1), (T, S) or (B, 1, T, S)."""
    (B, H, T, Dh), (K, S) = q.shape, k.shape[1:3]
    # The H/K query heads of one key head become rows of one matrix, so that keys and values are not repeated.
    q = (q * Dh**-0.5).reshape(B, K, H // K * T, Dh)
    scores = (q @ k.transpose(-2, -1)).view(B, K, H // K, T, S)
    if allowed is None and T > 1:
        scores = scores + torch.full((T, S), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    elif allowed is not None:
        hidden = torch.zeros_like(allowed, dtype=q.dtype).masked_fill_(~allowed, -torch.inf)
        scores = scores + (hidden if hidden.dim() == 2 else hidden.unsqueeze(2))
    weights = F.dropout(scores.softmax(-1), dropout).flatten(2, 3)  # (B, K, H/K * T, S)
    return (weights @ v).view(B, H, T, Dh)
