"""A cache of constant size: the newest tokens, and if wanted the very first ones, however long the text becomes.

The newest lie in a ring: each overwrites the one that has just left the window. A key that has been turned to its
place stays as it is, because only its distance to the query counts. The first tokens, the sinks, are another matter:
they are to stand right before the window, wherever that is (Xiao et al. 2023, arXiv:2309.17453: positions within the
cache, not within the text), and so are turned again for each token, a handful of keys. That the model sees what it
would if all keys were turned anew is tested against just that.
"""

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from legollm.components.masks import InPlaces, Sliding
from legollm.components.places import Places, moved, places_of
from legollm.components.positions import RotaryEmbedding
from legollm.errors import ConfigError, ContextError
from legollm.generation.cache import GenerativeModel
from legollm.interfaces import Mask

FURTHER = 1024
"""Tokens after which places are counted from the start of the window again: large angles are not exact in float32."""


@runtime_checkable
class HasPlaces(Protocol):
    """A model that is no stack of bricks itself and says how the one it was made of counts positions."""

    places: Places


class Ring:
    """Keys and values of layers that are alike: one tensor of each, so that sinks of all turn at once."""

    def __init__(self, like: Tensor, n_layers: int, n_sinks: int, rope: RotaryEmbedding | None) -> None:
        """like: (B, K, 1 + window, Dh). The first column is for padding."""
        self.k, self.v = (like.new_zeros(n_layers, *like.shape) for _ in "kv")
        self.rope, self.n_sinks = rope, n_sinks
        self.first_keys = self.k[:, :, :, 1 : 1 + n_sinks].clone()  # as they stood at the start of the text

    def remember_sinks(self, rows: Tensor) -> None:
        """rows: (B,) those whose sinks have not moved yet."""
        n = len(rows)
        sinks = self.k[:, :n, :, 1 : 1 + self.n_sinks]
        self.first_keys[:, :n] = torch.where(rows[:, None, None, None], sinks, self.first_keys[:, :n])

    def move_sinks(self, by: Tensor) -> None:
        """by: (B,) positions from the start of the text."""
        if self.rope is not None:
            n = len(by)
            self.k[:, :n, :, 1 : 1 + self.n_sinks] = moved(self.rope, self.first_keys[:, :n], by)

    def move_others(self, by: Tensor) -> None:
        """by: (B,) positions from where they are."""
        if self.rope is not None:
            others = self.k[:, : len(by), :, 1 + self.n_sinks :]
            others.copy_(moved(self.rope, others, by))


class RingLayerCache:
    """One layer's share of a ring."""

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v  # (B, K, 1 + window, Dh)
        self.columns = torch.empty(0, dtype=torch.int64)  # (B, T) where the next ones go
        self.at: slice | None = None  # the same, if they are one slice and the same for all rows
        self.n_seen, self.is_seen_before_written = 0, False

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k and v: (B, K, T, Dh) of the new tokens -> those that they see (B, K, S, Dh)."""
        n_rows = self.columns.size(0)
        if k.size(0) != n_rows:
            raise ContextError(f"the cache holds {n_rows} rows, found a batch of {k.size(0)}; make them equal")
        all_k, all_v = self.k[:n_rows], self.v[:n_rows]
        seen = all_k, all_v
        if self.is_seen_before_written:
            seen = torch.cat([all_k, k], 2), torch.cat([all_v, v], 2)
        if self.at is not None:
            all_k[:, :, self.at], all_v[:, :, self.at] = k, v
        else:
            rows = torch.arange(n_rows, device=k.device)[:, None]
            all_k[rows, :, self.columns], all_v[rows, :, self.columns] = k.transpose(1, 2), v.transpose(1, 2)
        return seen if self.is_seen_before_written else (all_k[:, :, : self.n_seen], all_v[:, :, : self.n_seen])


class RingCache:
    """Remembers the newest tokens of each row, and its n_sinks first ones: `window` together, at O(1) for each token.

    Without sinks this is window attention, and for a model whose attention has windows no longer than this one it is
    what the full cache is. Rows of unequal length are padded as for FullCache, but of positions only what is padding
    is looked at: a row goes on where it was.
    """

    def __init__(
        self,
        kv_shapes: Sequence[tuple[int, int]],
        batch_size: int,
        window: int,
        *,
        places: Places,
        n_sinks: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """kv_shapes: (K, Dh) of every layer; window: tokens seen at most, sinks and the token itself included.

        Raises:
            ConfigError: no room for a token beside the sinks, or sinks for a model whose tokens cannot move.
        """
        if n_sinks >= window:
            raise ConfigError(f"sinks: {n_sinks} leave no room in a window of {window} tokens; use fewer")
        if n_sinks and places.fixed:
            raise ConfigError(
                f"sinks: they have to move along with the window, but {places.fixed}; use cache=full with "
                "on_overflow=re-prefill, which reads half a window again"
            )
        self.batch_size, self.n_rows, self.window, self.n_sinks = batch_size, batch_size, window, n_sinks
        self.can_move = places.fixed is None
        ropes = places.ropes if self.can_move else [None] * len(kv_shapes)
        kinds = list(zip(kv_shapes, ropes, strict=True))
        self.rings: list[Ring] = []
        layers: dict[int, RingLayerCache] = {}
        for kind in dict.fromkeys(kinds):
            (n_kv_heads, d_head), rope = kind
            mine = [i for i, other in enumerate(kinds) if other == kind]
            like = torch.empty(batch_size, n_kv_heads, 1 + window, d_head, dtype=dtype, device=device)
            self.rings.append(Ring(like, len(mine), n_sinks, rope))
            layers |= {i: RingLayerCache(self.rings[-1].k[j], self.rings[-1].v[j]) for j, i in enumerate(mine)}
        self.layers: Sequence[RingLayerCache] = [layers[i] for i in range(len(kinds))]
        self._next = torch.zeros(batch_size, dtype=torch.int64, device=device)  # the place of each row's next token
        self._held = torch.full((batch_size, 1 + window), -1, dtype=torch.int64, device=device)  # the place of each key
        self._moved_by = torch.zeros_like(self._next)  # how far each row's sinks are from the start of the text
        self._some_stand = True  # whether a row has sinks that have not moved yet
        self._first = torch.arange(n_sinks, device=device)
        self._tokens: Tensor | None = None
        self._length = self._furthest = 0
        self._are_even = True  # whether all rows are equally long

    @classmethod
    def for_model(cls, model: GenerativeModel, batch_size: int, window: int, n_sinks: int = 0) -> Self:
        """A cache of the model's own shapes, in the dtype and on the device of its weights."""
        weight = next(model.parameters())
        places = model.places if isinstance(model, HasPlaces) else places_of(model)  # type: ignore[arg-type]
        return cls(
            model.kv_shapes,
            batch_size,
            window,
            places=places,
            n_sinks=n_sinks,
            dtype=weight.dtype,
            device=weight.device,
        )

    @property
    def length(self) -> int:
        return self._length

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, filled or not, with those of sinks as they stood."""
        return sum(ring.k.nbytes + ring.v.nbytes + ring.first_keys.nbytes for ring in self.rings)

    def in_place(self, n_tokens: int) -> int:
        """How many of the next n_tokens overwrite nothing that one of them sees."""
        return min(n_tokens, max(1, self.window - self._furthest))

    def at_once(self, n_tokens: int) -> int:
        """With sinks, one by one once old tokens have to go: the sinks stand elsewhere for each."""
        return self.in_place(n_tokens) if self.n_sinks else n_tokens

    def place(self, n_tokens: int, positions: Tensor | None) -> tuple[Tensor, Mask]:
        """Places of the next n_tokens, counted from wherever is convenient, and which keys they see.

        positions: None, or (B, T) with -1 at padding -> (B, T).

        Raises:
            ContextError: with sinks, more than `at_once`.
        """
        if n_tokens > self.at_once(n_tokens):
            raise ContextError(
                f"a cache with sinks that holds {self.window} tokens and has {self._furthest} reads "
                f"{self.at_once(n_tokens)} at once, found {n_tokens}; give it fewer"
            )
        in_place = n_tokens <= self.in_place(n_tokens)
        if self._furthest >= self.window + max(FURTHER, self.window) and self.can_move:
            self._count_anew()
        following, held = self._next[: self.n_rows], self._held[: self.n_rows]
        if positions is None:
            places = following[:, None] + torch.arange(n_tokens, device=held.device)
            following, furthest = following + n_tokens, self._furthest + n_tokens
        else:
            is_text = positions >= 0
            self._are_even &= bool(is_text.all())
            places = (following[:, None] + is_text.cumsum(1) - 1).masked_fill(~is_text, -1)
            following = following + is_text.sum(1)
            furthest = int(following.max())
        self._placed = following, furthest
        seen_before = held if in_place else held.clone()
        is_kept = (places >= 0) & (places >= following[:, None] - (self.window - self.n_sinks))
        is_kept |= (places >= 0) & (places < self.n_sinks)
        columns = torch.where(is_kept, self._column(places), 0)
        held.scatter_(1, columns, torch.where(is_kept, places, -1))
        if self.n_sinks and furthest > self.window:
            self._move_sinks(following, held)
        n_seen = 1 + min(self.window, furthest)
        at = int(columns[0, 0]) if self._are_even and (n_tokens == 1 or furthest <= self.window) else None
        for layer in self.layers:
            layer.columns, layer.n_seen, layer.is_seen_before_written = columns, n_seen, not in_place
            layer.at = None if at is None else slice(at, at + n_tokens)
        seen_by = places[:1] if self._are_even else places
        if in_place:
            return seen_by, InPlaces(seen_by, held[:, :n_seen], columns)
        return seen_by, Sliding(seen_by, torch.cat([seen_before, places], 1), self.window)

    def _column(self, places: Tensor) -> Tensor:
        ring = self.window - self.n_sinks
        return 1 + torch.where(places < self.window, places, self.n_sinks + (places - self.n_sinks) % ring)

    def _move_sinks(self, following: Tensor, held: Tensor) -> None:
        by = (following - self.window).clamp(min=0)
        places = self._first + by[:, None]  # of the sinks, which are where they were in rows that have room left
        if self._some_stand:
            stood = self._moved_by[: self.n_rows] == 0
            for ring in self.rings:
                ring.remember_sinks(stood)
            places = torch.where(by[:, None] > 0, places, held[:, 1 : 1 + self.n_sinks])
            self._some_stand = bool((by == 0).any())
        for ring in self.rings:
            ring.move_sinks(by)
        held[:, 1 : 1 + self.n_sinks] = places
        self._moved_by[: self.n_rows] = by

    def _count_anew(self) -> None:
        """Move all rows back by whole turns of the ring, so that columns stay what they are."""
        ring = self.window - self.n_sinks
        following, held = self._next[: self.n_rows], self._held[: self.n_rows]
        by = ((following - self.window) // ring * ring).clamp(min=0)
        following -= by
        others = held[:, 1 + self.n_sinks :]
        others -= torch.where(others >= 0, by[:, None], 0)
        for one in self.rings:
            one.move_others(-by)
        self._furthest = int(following.max())

    def with_before(self, tokens: Tensor, n_before: int) -> Tensor:
        """tokens: (B, T) -> (B, n_before + T)."""
        size = self.window + n_before  # the newest columns, each at its number modulo this
        if self._tokens is None:
            self._tokens = tokens.new_zeros(self.batch_size, size)
        held, n_new = self._tokens[: self.n_rows], tokens.size(1)
        columns = torch.arange(self._length - n_before, self._length + n_new, device=tokens.device)
        before = torch.where(columns[:n_before] >= 0, held[:, columns[:n_before] % size], 0)
        held[:, columns[n_before:][-size:] % size] = tokens[:, -size:]
        return torch.cat([before, tokens], 1)

    def advance(self, n_tokens: int) -> None:
        self._length += n_tokens
        self._next[: self.n_rows], self._furthest = self._placed

    def truncate(self, length: int) -> None:
        """Forget the columns from `length` on, while all of them are there.

        Raises:
            ContextError: tokens that have left the window for these would have to come back, or rows are uneven.
        """
        if length >= self._length:
            return
        if length == 0:
            self.reset(self.n_rows)
        elif self._furthest > self.window or not self._are_even:
            raise ContextError(
                f"a cache that keeps {self.window} tokens cannot take back the last {self._length - length} of "
                f"{self._length}: what they replaced is gone; use a FullCache"
            )
        else:
            self._length = self._furthest = length
            self._next.clamp_(max=length)
            self._held[:, 1 + length :] = -1

    def reset(self, n_rows: int | None = None) -> None:
        """n_rows: None is all."""
        self._length = self._furthest = 0
        self._are_even = self._some_stand = True
        self.n_rows = self.batch_size if n_rows is None else n_rows
        self._next.zero_()
        self._held.fill_(-1)
        self._moved_by.zero_()

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; one may be named more than once.

        Raises:
            ContextError: more rows than the cache was made for.
        """
        if len(rows) > self.batch_size:
            raise ContextError(f"{len(rows)} rows do not fit a cache made for {self.batch_size}; make it larger")
        moves = [(to, row) for to, row in enumerate(rows) if to != row]
        if moves:
            to, row = (torch.tensor(one, device=self._next.device) for one in zip(*moves, strict=True))
            for ring in self.rings:
                for memory in (ring.k, ring.v, ring.first_keys):
                    memory[:, to] = memory[:, row]
            for tensor in (self._next, self._held, self._moved_by, *([] if self._tokens is None else [self._tokens])):
                tensor[to] = tensor[row]
        self.n_rows = len(rows)
        self._furthest = int(self._next[: self.n_rows].max()) if rows else 0
