"""Masks: which keys a query may see, as small objects that attention asks for a tensor only when it needs one."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from legollm.errors import ContextError
from legollm.interfaces import Mask


@runtime_checkable
class SparseMask(Mask, Protocol):
    """A mask that knows a cheaper way than to compute all scores and hide some."""

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
        """What components.attention.attend computes, of the keys that are allowed and no others."""
        ...


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
class InPlaces(Ragged):
    """Keys that lie in memory in any order, as those of a cache that writes new ones over old ones."""

    columns: Tensor
    """(B, T) int64, where in memory the key of each query lies."""


@dataclass(frozen=True, eq=False)
class InBlocks(Ragged):
    """Keys that lie in blocks of memory, in order within each."""

    blocks: Tensor
    """(B, N) int64, which ones a row has."""
    block_size: int
    """Keys of each."""


@dataclass(frozen=True, eq=False)
class Sliding(Ragged):
    """Only the nearest `window` tokens are seen, the token itself included."""

    window: int

    @cached_property
    def visible(self) -> Tensor:
        """(B, 1, T, S) bool."""
        q, k = self.query_positions[:, None, :, None], self.key_positions[:, None, None, :]
        return super().visible & (q - k < self.window)


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


@dataclass(frozen=True, eq=False)
class Everything:
    """Attention in both directions, as an encoder has it: every token sees all columns that hold text."""

    device: torch.device
    key_positions: Tensor | None = None
    """(B, S) int64 with -1 at padding; None for rows of equal length."""

    def allowed(self, n_queries: int, n_keys: int) -> Tensor:
        """(T, S) or (B, 1, T, S). A row of padding alone sees its padding: who sees nothing would be NaN."""
        if self.key_positions is None:
            return torch.ones((), dtype=torch.bool, device=self.device).expand(n_queries, n_keys)
        text = self.key_positions >= 0  # (B, S)
        return (text | ~text.any(1, keepdim=True))[:, None, None].expand(-1, 1, n_queries, n_keys)


@dataclass(frozen=True, eq=False)
class Documents:
    """Causal attention in rows that hold several texts one after the other: a token sees the one it belongs to.

    Packed so, documents are trained on as if each were alone (Krell et al. 2021, arXiv:2107.02027). Learned positions
    have to start again with each document; relative ones need not.
    """

    ids: Tensor
    """(B, S) int64, of each column the document it belongs to; padding is one more document."""

    def allowed(self, n_queries: int, n_keys: int) -> Tensor:
        """(B, 1, T, S).

        Raises:
            ContextError: ids of fewer or more columns than there are keys.
        """
        if self.ids.size(1) != n_keys:
            raise ContextError(f"documents: ids of {self.ids.size(1)} columns for {n_keys} tokens; give one to each")
        return self.visible[:, :, n_keys - n_queries :]

    @cached_property
    def visible(self) -> Tensor:
        """(B, 1, S, S) bool, made once for all layers."""
        return (self.ids[:, :, None] == self.ids[:, None, :]).tril().unsqueeze(1)


@dataclass(frozen=True, eq=False)
class Prefix:
    """The first tokens of a row all see each other, those after them what came before.

    A prompt is there as a whole and need not be read in order (Raffel et al. 2019, arXiv:1910.10683, section 3.2).
    """

    lengths: Tensor
    """(B,) int64, tokens in the prefix of each row."""

    def allowed(self, n_queries: int, n_keys: int) -> Tensor:
        """(B, 1, T, S). A prefix has to be read in one piece: its keys cannot be seen before they are there."""
        columns = torch.arange(n_keys, device=self.lengths.device)
        causal = columns <= columns[n_keys - n_queries :, None]
        return causal | (columns < self.lengths[:, None, None, None])
