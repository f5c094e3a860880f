"""Block-sparse attention: the scores are a checkerboard of blocks, and only the chosen ones are computed."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from legollm.errors import ConfigError, ContextError


@dataclass(frozen=True, eq=False)
class BlockSparse:
    """Causal attention in which a block of queries sees the blocks of keys that `layout` names.

    Work and memory grow with the number of chosen blocks instead of the square of the length.
    """

    layout: Tensor
    """(n, n) bool: which block of queries sees which block of keys; those after the query's own are never seen."""
    block: int
    """Tokens in a block."""

    def __post_init__(self) -> None:
        if self.layout.dim() != 2 or self.layout.size(0) != self.layout.size(1) or not self.layout.diagonal().all():
            raise ConfigError(
                f"layout: found a table of {tuple(self.layout.shape)}; make it square with its diagonal true, "
                "so that every token sees itself"
            )

    @classmethod
    def strided(cls, n: int, block: int, *, stride: int) -> Self:
        """The nearest `stride` blocks and every stride-th before them (Child et al. 2019, arXiv:1904.10509)."""
        away = distances(n)
        return cls((away >= 0) & ((away < stride) | (away % stride == 0)), block)

    @classmethod
    def big_bird(
        cls, n: int, block: int, *, n_global: int = 1, n_near: int = 2, n_random: int = 1, seed: int = 0
    ) -> Self:
        """The first blocks, the nearest ones and some drawn at random (Zaheer et al. 2020, arXiv:2007.14062).

        What causality leaves of it: global blocks are seen by all, and see only what is before them.
        """
        away = distances(n)
        drawn = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)).masked_fill(away <= 0, 2.0)
        drawn = drawn.argsort(1).argsort(1) < n_random  # in each row, the n_random smallest of those before
        near = (away < n_near) | (torch.arange(n) < n_global)
        return cls((away >= 0) & (near | drawn), block)

    def to(self, device: torch.device | str) -> Self:
        """The same mask for tensors on that device."""
        return type(self)(self.layout.to(device), self.block)

    def allowed(self, n_queries: int, n_keys: int) -> Tensor:
        """(T, S), the last query on the last key.

        Raises:
            ContextError: more keys than the layout has room for.
        """
        self.check_room(n_keys)
        whole = self.layout.repeat_interleave(self.block, 0).repeat_interleave(self.block, 1)
        return whole.tril()[n_keys - n_queries : n_keys, :n_keys]

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        bias: Tensor | None,
        sinks: Tensor | None,
        scale: float | None,
        dropout: float,
    ) -> Tensor:
        """Attention by chosen pairs of blocks; arguments and result as in components.attention.attend."""
        (B, H, T, Dh), (K, S), n = q.shape, k.shape[1:3], self.block
        self.check_room(S)
        first = (S - T) // n  # the block of the first query, which need not start there
        before, after = (S - T) % n, -S % n
        of_query, of_key = self.layout.tril()[first : -(-S // n)].nonzero(as_tuple=True)  # P pairs, rows from `first`
        heads = (B, K, H // K)
        q = F.pad(q, (0, 0, before, after)).view(*heads, -1, n, Dh) * (Dh**-0.5 if scale is None else scale)
        k, v = (F.pad(t, (0, 0, 0, after)).view(B, K, 1, -1, n, Dh) for t in (k, v))
        scores = q[..., of_query, :, :] @ k[..., of_key, :, :].mT  # (B, K, H/K, P, n, n)
        if bias is not None:
            padded = F.pad(bias.to(q.dtype), (0, after, before, after))  # by blocks: (1 or B, K, H/K, Tb, Sb, n, n)
            padded = padded.view(-1, K, H // K, q.size(3), n, k.size(3), n).transpose(-3, -2)
            scores = scores + padded[..., of_query, of_key, :, :]
        inside = torch.arange(n, device=q.device)
        rows = ((of_query + first) * n)[:, None, None] + inside[:, None]  # (P, n, 1)
        columns = (of_key * n)[:, None, None] + inside  # (P, 1, n)
        scores = scores.masked_fill(columns > rows, -torch.inf)  # and padding at the end, which comes after all

        # A softmax over the pairs of each block of queries: their highest score, then sums of exponentials.
        with torch.no_grad():
            top = scores.new_full(q.shape[:-1], -torch.inf)  # (B, K, H/K, Tb, n)
            highest = scores.amax(-1)  # (B, K, H/K, P, n)
            top = top.scatter_reduce(3, of_query[:, None].expand_as(highest), highest, "amax")
            if sinks is not None:
                top = torch.maximum(top, sinks.to(q.dtype).view(K, H // K, 1, 1))
        weights = (scores - top[..., of_query, :].unsqueeze(-1)).exp()
        total = torch.zeros_like(top).index_add(3, of_query, weights.sum(-1))
        if sinks is not None:
            total = total + (sinks.to(q.dtype).view(K, H // K, 1, 1) - top).exp()
        mixed = F.dropout(weights, dropout) @ v[..., of_key, :, :]  # (B, K, H/K, P, n, Dh)
        y = torch.zeros_like(q).index_add(3, of_query, mixed) / total.unsqueeze(-1)
        return y.view(B, H, -1, Dh)[:, :, before : before + T]

    def check_room(self, n_keys: int) -> None:
        """Whether the layout says something about so many keys.

        Raises:
            ContextError: it does not.
        """
        room = self.layout.size(0) * self.block
        if n_keys > room:
            raise ContextError(f"the layout has room for {room} tokens, found {n_keys}; make it larger")


def distances(n: int) -> Tensor:
    """(n, n): how many blocks before the query's own each block of keys is."""
    return torch.arange(n)[:, None] - torch.arange(n)
