"""Masks: which keys a query may see, as small objects that attention asks for a tensor only when it needs one."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from legollm.interfaces import Mask


@dataclass(frozen=True)
class Causal:
    """Every token sees itself and what came before it."""

    def allowed(self, n_queries: int, n_keys: int) -> Tensor | None:
        """None for every size: the case all attention kernels know without a tensor."""
        return None


@dataclass(frozen=True, eq=False)
class Ragged:
    """Causal attention among rows of unequal length, told apart by their positions; -1 is padding."""

    query_positions: Tensor
    """(B, T) int64."""
    key_positions: Tensor
    """(B, S) int64."""

    def allowed(self, n_queries: int, n_keys: int) -> Tensor | None:
        """(B, 1, T, S). Text sees the text up to itself, padding sees padding: who sees nothing would be NaN."""
        assert self.visible.shape[-2:] == (n_queries, n_keys)
        return self.visible

    @cached_property
    def visible(self) -> Tensor:
        """(B, 1, T, S) bool, made once for all layers."""
        q, k = self.query_positions[:, None, :, None], self.key_positions[:, None, None, :]
        return (k <= q) & ((k >= 0) | (q < 0))


@dataclass(frozen=True, eq=False)
class Near:
    """What `mask` allows among the nearest `window` keys, the token itself included.

    Sliding-window attention (Child et al. 2019, arXiv:1904.10509; Beltagy et al. 2020, arXiv:2004.05150).
    """

    mask: Mask
    window: int
    device: torch.device

    def allowed(self, n_queries: int, n_keys: int) -> Tensor:
        """(T, S) or (B, 1, T, S). Near: less than `window` positions away, padding not counted."""
        if isinstance(self.mask, Ragged):
            q, k = self.mask.query_positions[:, None, :, None], self.mask.key_positions[:, None, None, :]
            return self.mask.visible & (q - k < self.window)
        last = n_keys - n_queries  # where the first query stands among the keys
        near = torch.ones(n_queries, n_keys, dtype=torch.bool, device=self.device).triu(last - self.window + 1)
        allowed = self.mask.allowed(n_queries, n_keys)
        return near.tril(last) if allowed is None else near & allowed
