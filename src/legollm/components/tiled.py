# mypy: disable-error-code="no-any-return"
"""Attention a tile at a time: the whole table of scores, T x S, never exists, neither forward nor backward."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TILE = 128


def attend_tiled(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    allowed: Tensor | None,
    *,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float | None,
) -> Tensor:
    """Exact attention in memory that grows with T, not T^2 (Rabe & Staats 2021, arXiv:2112.05682).

    What FlashAttention (Dao et al. 2022, arXiv:2205.14135) does inside a GPU's fast memory, written to be read. Causal
    attention needs no mask; a tensor of what is allowed or a bias that is given is of size T x S itself.
    allowed: None (causal, the last query on the last key), (T, S) or (B, 1, T, S); the others as in `attend`.
    """
    (B, H, T, Dh), (K, S) = q.shape, k.shape[1:3]
    y: Tensor = Tiled.apply(  # type: ignore[no-untyped-call]
        q.reshape(B, K, H // K, T, Dh),
        k.unsqueeze(2),
        v.unsqueeze(2),
        None if bias is None else bias.reshape(-1, K, H // K, T, S),
        None if sinks is None else sinks.view(K, H // K, 1, 1),
        allowed if allowed is None or allowed.dim() == 2 else allowed.unsqueeze(2),
        Dh**-0.5 if scale is None else scale,
    )
    return y.view(B, H, T, Dh)


class Tiled(torch.autograd.Function):
    """q: (B, K, H/K, T, Dh), k and v: (B, K, 1, S, Dh) -> (B, K, H/K, T, Dh)."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        sinks: Tensor | None,
        allowed: Tensor | None,
        scale: float,
    ) -> Tensor:
        """Softmax in one pass over the keys (Milakov & Gimelshein 2018, arXiv:1805.02867).

        Of the keys so far it remembers the highest score, the sum of exp(score - highest) and the same sum of values;
        a new highest score only means that both sums shrink.
        """
        wide = torch.promote_types(q.dtype, torch.float32)
        y, log_total = torch.empty_like(q), q.new_empty((*q.shape[:-1], 1), dtype=wide)
        for rows in tiles(q.size(-2)):
            top = torch.full_like(log_total[..., rows, :], torch.finfo(wide).min)
            total, mixed = torch.zeros_like(top), torch.zeros_like(q[..., rows, :], dtype=wide)
            if sinks is not None:  # a key that has been seen before all others and has no value
                top, total = top.copy_(sinks), total + 1
            for columns in tiles(k.size(-2)):
                scores = tile_of_scores(q, k, bias, allowed, scale, rows, columns)
                if scores is None:
                    continue
                higher = torch.maximum(top, scores.amax(-1, keepdim=True))
                weights, shrink = (scores - higher).exp(), (top - higher).exp()
                total = total * shrink + weights.sum(-1, keepdim=True)
                mixed = mixed * shrink + weights @ v[..., columns, :].to(wide)
                top = higher
            y[..., rows, :] = mixed / total
            log_total[..., rows, :] = top + total.log()
        ctx.save_for_backward(q, k, v, bias, sinks, allowed, y, log_total)
        ctx.scale = scale
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Weights are made again, tile by tile, from the scores and the remembered logarithm of their sum.

        With w = softmax(s) and y = w v: dv = w^T dy and ds = w (dy v^T - dy . y), the last term one number per query.
        """
        q, k, v, bias, sinks, allowed, y, log_total = ctx.saved_tensors
        wide = log_total.dtype
        dy = grad.to(wide)
        pull = (dy * y).sum(-1, keepdim=True)  # (B, K, H/K, T, 1)
        dq, dk, dv = (torch.zeros_like(one, dtype=wide) for one in (q, k, v))
        dbias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        for rows in tiles(q.size(-2)):
            for columns in tiles(k.size(-2)):
                scores = tile_of_scores(q, k, bias, allowed, ctx.scale, rows, columns)
                if scores is None:
                    continue
                weights = (scores - log_total[..., rows, :]).exp()
                dv[..., columns, :] += (weights.mT @ dy[..., rows, :]).sum(2, keepdim=True)
                dscores = weights * (dy[..., rows, :] @ v[..., columns, :].to(wide).mT - pull[..., rows, :])
                dq[..., rows, :] += ctx.scale * (dscores @ k[..., columns, :].to(wide))
                dk[..., columns, :] += ctx.scale * (dscores.mT @ q[..., rows, :].to(wide)).sum(2, keepdim=True)
                if dbias is not None:
                    dbias[..., rows, columns] += dscores.sum_to_size(dbias[..., rows, columns].shape)
        dsinks = None
        if sinks is not None:
            dsinks = -((sinks - log_total).exp() * pull).sum_to_size(1, *sinks.shape)[0].to(sinks.dtype)
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dbias, dsinks, None, None


def tiles(n: int) -> Iterator[slice]:
    """0 to n in pieces of TILE."""
    return (slice(start, min(start + TILE, n)) for start in range(0, n, TILE))


def tile_of_scores(
    q: Tensor, k: Tensor, bias: Tensor | None, allowed: Tensor | None, scale: float, rows: slice, columns: slice
) -> Tensor | None:
    """(B, K, H/K, rows, columns), in float32 at least, -inf where hidden; None if these rows see no such column."""
    hidden: Tensor | None = None
    if allowed is not None:
        hidden = ~allowed[..., rows, columns]
        if hidden.all():
            return None
    else:
        last = rows.start + k.size(-2) - q.size(-2)  # the last key that the first of the rows sees
        if columns.start > last + rows.stop - rows.start - 1:
            return None
        if columns.stop - 1 > last:
            shape = rows.stop - rows.start, columns.stop - columns.start
            hidden = torch.ones(shape, dtype=torch.bool, device=q.device).triu(last - columns.start + 1)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = scale * (q[..., rows, :].to(wide) @ k[..., columns, :].to(wide).mT)
    if bias is not None:
        scores = scores + bias[..., rows, columns]
    return scores if hidden is None else scores.masked_fill(hidden, -torch.inf)
