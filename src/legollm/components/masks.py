"""Masks: which keys a query may see, as small objects that attention asks for a tensor only when it needs one."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


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
