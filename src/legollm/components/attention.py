# mypy: disable-error-code="no-any-return"
"""Attention: every token gathers information from the tokens it may see."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.masks import Near, Ragged, SparseMask
from legollm.components.spared import spared
from legollm.errors import ConfigError
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
        position_bias: nn.Module | None = None,
        sinks: bool = False,
        scale: float | None = None,
    ) -> None:
        """window: the nearest tokens a token sees, itself included; None for all before it.

        position_bias: (T,) and (S,) positions of queries and keys, or (B, T) and (B, S), to what is added to the
        scores, (H, T, S) or (B, H, T, S).
        sinks: one learned logit per head that takes part in the softmax and has no value, so that a head may attend to
        nothing (gpt-oss; Xiao et al. 2023, arXiv:2309.17453, section 3.3).
        scale: what products of queries and keys are multiplied by; None is 1 / sqrt(d_head).
        """
        super().__init__()
        self.n_kv_heads, self.d_head, self.dropout, self.window = n_kv_heads, d_head, dropout, window
        self.scale = scale
        self.q_proj = nn.Linear(d_model, n_heads * d_head, bias=bias)
        self.k_proj = nn.Linear(d_model, n_kv_heads * d_head, bias=bias)
        self.v_proj = nn.Linear(d_model, n_kv_heads * d_head, bias=bias)
        self.o_proj = nn.Linear(n_heads * d_head, d_model, bias=bias)
        self.q_norm, self.k_norm = head_norm(d_head), head_norm(d_head)
        self.rope = rope
        self.position_bias = position_bias
        self.sinks = nn.Parameter(torch.zeros(n_heads)) if sinks else None

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
        bias = None
        if self.position_bias is not None:
            bias = self.position_bias(positions, key_positions(mask, positions, k.size(2)))
        if self.window is not None:
            mask = Near(mask, self.window, q.device)
        dropout = self.dropout if self.training else 0.0
        y = attend(q, k, v, mask, bias=bias, sinks=self.sinks, scale=self.scale, dropout=dropout)  # (B, H, T, Dh)
        return self.o_proj(y.transpose(1, 2).flatten(-2))


def key_positions(mask: Mask, positions: Tensor, n_keys: int) -> Tensor:
    """Where the keys stand: (S,), or (B, S) for ragged rows. positions: of the queries, (T,) or (B, T)."""
    if isinstance(mask, Ragged):
        return mask.key_positions
    if positions.size(-1) == n_keys:
        return positions
    return torch.arange(n_keys, device=positions.device)  # a cache whose rows are equally long holds all from 0


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask,
    *,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    backend: Literal["naive", "sdpa"] | Callable[..., Tensor] | None = None,
) -> Tensor:
    """softmax(scale q k^T + bias) v over the keys that `mask` allows.

    backend: all are equal; None takes the faster of the two that have names, others are functions such as
    `attend_tiled` and `attend_flex`.
    q: (B, H, T, Dh), k and v: (B, K, S, Dh) with H a multiple of K -> (B, H, T, Dh). scale: None is 1 / sqrt(Dh).
    bias: (H, T, S) or (B, H, T, S). sinks: (H,), one more score per head, of a key whose value is zero.

    Raises:
        ConfigError: a backend that cannot do what is asked.
    """
    T, S = q.size(-2), k.size(-2)
    if backend is None and isinstance(mask, SparseMask):
        return mask.attend(q, k, v, bias=bias, sinks=sinks, scale=scale, dropout=dropout)
    backend = backend or faster_backend(q, k)
    if not isinstance(backend, str):
        if dropout:
            raise ConfigError(f"dropout: {backend.__name__} has none, found {dropout}; use sdpa or naive")
        return backend(q, k, v, mask.allowed(T, S), bias=bias, sinks=sinks, scale=scale)
    allowed = mask.allowed(T, S)
    if allowed is None and 1 < T < S:  # new tokens after cached ones: the last query sees the last key
        allowed = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    if backend == "naive":
        naive = partial(attend_naive, allowed=allowed, bias=bias, sinks=sinks, scale=scale, dropout=dropout)
        return spared(naive, q, k, v)
    return attend_sdpa(q, k, v, allowed, bias=bias, sinks=sinks, scale=scale, dropout=dropout)


def faster_backend(q: Tensor, k: Tensor) -> Literal["naive", "sdpa"]:
    """Measured on two cores with avx512_bf16, forward and backward, q (16, 6, 256, 32), k and v (16, 2, 256, 32).

    bfloat16: naive 14 ms, SDPA 31 (8 x 512 tokens: 37 and 49; 4 x 1024: 118 and 57). float32: naive 28, SDPA 23. One
    bfloat16 query against 512 keys in 8 rows: naive 0.2 ms, SDPA 1.4. A step of GPT-2 124M with 4 x 512 tokens takes
    1.2 times as long with SDPA.
    """
    short = k.size(-2) <= 512 or q.size(-2) == 1
    return "naive" if q.device.type == "cpu" and q.dtype == torch.bfloat16 and short else "sdpa"


def attend_naive(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    allowed: Tensor | None,
    *,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """Attention as the paper writes it. allowed: None (causal, T == S or T == 1), (T, S) or (B, 1, T, S)."""
    (B, H, T, Dh), (K, S) = q.shape, k.shape[1:3]
    # The H/K query heads of one key head become rows of one matrix, so that keys and values are not repeated.
    q = (q * (Dh**-0.5 if scale is None else scale)).reshape(B, K, H // K * T, Dh)
    scores = (q @ k.transpose(-2, -1)).view(B, K, H // K, T, S)
    if bias is not None:
        scores = scores + bias.to(q.dtype).view(-1, K, H // K, T, S)
    if allowed is None and T > 1:
        scores = scores + torch.full((T, S), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    elif allowed is not None:
        hidden = torch.zeros_like(allowed, dtype=q.dtype).masked_fill_(~allowed, -torch.inf)
        scores = scores + (hidden if hidden.dim() == 2 else hidden.unsqueeze(2))
    if sinks is None:
        weights = scores.softmax(-1)
    else:
        sink = sinks.to(q.dtype).view(K, H // K, 1, 1).expand(B, -1, -1, T, 1)
        weights = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
    weights = F.dropout(weights, dropout).flatten(2, 3)  # (B, K, H/K * T, S)
    return (weights @ v).view(B, H, T, Dh)


def attend_sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    allowed: Tensor | None,
    *,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """PyTorch's fused attention; what it has no word for goes into its mask, as numbers added to the scores."""
    H, T, S = q.size(1), q.size(2), k.size(2)
    mask = allowed
    if bias is not None or sinks is not None:
        if allowed is None:
            allowed = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
        added = q.new_zeros(()) if bias is None else bias.to(q.dtype)
        mask = torch.where(allowed, added, -torch.inf)  # (T, S), (H, T, S) or (B, 1 or H, T, S)
        if sinks is not None:  # one more key of zeros, whose score is the sink's logit and whose value is nothing
            mask = mask.expand(*mask.shape[:-3], H, T, S)
            sink = sinks.to(q.dtype).view(H, 1, 1).expand(*mask.shape[:-1], 1)
            mask = torch.cat([mask, sink], -1)
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        mask = mask.expand(q.size(0), -1, -1, -1) if mask.dim() == 3 else mask
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=mask is None and T > 1,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=q.size(1) != k.size(1),
    )
