"""What the model remembers of the tokens it has read, so that each new one costs one pass over one token."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.components.masks import Causal, Ragged
from legollm.errors import ContextError
from legollm.interfaces import Cache, LanguageModel, Mask


class GenerativeModel(LanguageModel, Protocol):
    """A language model as generation uses it: it says what its cache has to hold, and has states before its head."""

    @property
    def kv_shapes(self) -> Sequence[tuple[int, int]]:
        """(K, Dh) of every layer that keeps keys and values."""
        ...

    @property
    def max_seq_len(self) -> int | None:
        """The most positions it knows; None if there is no such limit."""
        ...

    @property
    def lm_head(self) -> Callable[[Tensor], Tensor]:
        """(..., D) -> logits (..., V)."""
        ...

    def hidden(self, tokens: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """What `lm_head` turns into logits: (B, T) -> (B, T, D). Of a prompt only the last state is needed."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


def kv_bytes_per_token(kv_shapes: Sequence[tuple[int, int]], dtype: torch.dtype) -> int:
    """Bytes of keys and values that one token of one row occupies: the sum of 2 K Dh over the layers.

    Bytes (int8) have a scale of float32 for each head.
    """
    scale = torch.float32.itemsize if dtype == torch.int8 else 0
    return sum(2 * n_kv_heads * (d_head * dtype.itemsize + scale) for n_kv_heads, d_head in kv_shapes)


class FullLayerCache:
    """Keys and values of every token so far, in memory allocated once."""

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v  # (B, K, max_len, Dh)
        self.n_rows, self.start = k.size(0), 0

    @property
    def memories(self) -> tuple[Tensor, ...]:
        """All that is kept, (B, K, max_len, ...) each."""
        return self.k, self.v

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k and v: (B, K, T, Dh) of the new tokens -> (B, K, S, Dh) of all so far; views, if the dtype is the same."""
        if k.size(0) != self.n_rows:  # writing would broadcast one row over all of them
            raise ContextError(f"the cache holds {self.n_rows} rows, found a batch of {k.size(0)}; make them equal")
        stop = self.start + k.size(2)
        self.write(k, v, stop)
        return self.read(stop, k.dtype)

    def write(self, k: Tensor, v: Tensor, stop: int) -> None:
        """Keep new keys and values, the last in the column before `stop`."""
        for memory, new in zip(self.memories, (k, v), strict=True):
            memory[: self.n_rows, :, self.start : stop] = new

    def read(self, stop: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Those of the columns before `stop`."""
        return self.k[: self.n_rows, :, :stop].to(dtype), self.v[: self.n_rows, :, :stop].to(dtype)


class Int8LayerCache(FullLayerCache):
    """Keys and values as bytes: each head of a token has a scale, which its largest number makes 127.

    Nothing is off by more than half a step, 1/254 of that number. What is read is turned into numbers again, one
    layer at a time.
    """

    def __init__(self, k: Tensor, v: Tensor) -> None:
        super().__init__(k, v)
        self.k_scale, self.v_scale = (k.new_zeros(*k.shape[:3], 1, dtype=torch.float32) for _ in "kv")

    @property
    def memories(self) -> tuple[Tensor, ...]:
        return self.k, self.v, self.k_scale, self.v_scale

    def write(self, k: Tensor, v: Tensor, stop: int) -> None:
        at = (slice(self.n_rows), slice(None), slice(self.start, stop))
        for new, memory, scales in ((k, self.k, self.k_scale), (v, self.v, self.v_scale)):
            scale = new.abs().amax(-1, keepdim=True).float().clamp(min=1e-30) / 127
            memory[at], scales[at] = (new / scale).round().to(torch.int8), scale

    def read(self, stop: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        at = (slice(self.n_rows), slice(None), slice(stop))
        k, v = self.k[at].to(dtype), self.v[at].to(dtype)
        return k.mul_(self.k_scale[at]), v.mul_(self.v_scale[at])


class FullCache:
    """Remembers every token. A cache costs memory and saves arithmetic: `kv_bytes_per_token` says how much.

    Rows of unequal length are padded on the left: they come with positions, -1 at padding, which no later token
    sees. A row therefore continues at its own position, whatever the rows beside it hold.
    """

    def __init__(
        self,
        kv_shapes: Sequence[tuple[int, int]],
        batch_size: int,
        max_len: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """kv_shapes: (K, Dh) of every layer; max_len: columns of each row, padding included.

        dtype: what keys and values are kept in; int8 has scales beside them.
        """
        layer = Int8LayerCache if dtype == torch.int8 else FullLayerCache

        def memory(n_kv_heads: int, d_head: int) -> Tensor:
            return torch.empty(batch_size, n_kv_heads, max_len, d_head, dtype=dtype, device=device)

        self.layers: Sequence[FullLayerCache] = [layer(memory(*s), memory(*s)) for s in kv_shapes]
        self.batch_size, self.n_rows, self.max_len = batch_size, batch_size, max_len
        self._length = 0
        self._columns = torch.arange(max_len, device=device)
        self._positions = self._columns.expand(
            batch_size, -1
        ).clone()  # of each key, -1 at padding; in use once rows differ
        self._ragged = False
        self._tokens: Tensor | None = None  # (batch_size, max_len), once a model asks for what came before

    @classmethod
    def for_model(cls, model: GenerativeModel, batch_size: int, max_len: int, dtype: torch.dtype | None = None) -> Self:
        """A cache of the model's own shapes, on the device of its weights; dtype: None is theirs."""
        weight = next(model.parameters())
        return cls(model.kv_shapes, batch_size, max_len, dtype=dtype or weight.dtype, device=weight.device)

    @property
    def length(self) -> int:
        return self._length

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, filled or not."""
        return sum(memory.nbytes for layer in self.layers for memory in layer.memories)

    def at_once(self, n_tokens: int) -> int:
        """All of them."""
        return n_tokens

    def place(self, n_tokens: int, positions: Tensor | None) -> tuple[Tensor, Mask]:
        """Positions and mask of the next n_tokens columns. Rows once ragged continue each at its own position.

        positions: None, or (B, T) with -1 at padding -> (T,) or (B, T).

        Raises:
            ContextError: fewer than n_tokens columns are left.
        """
        start, stop = self._length, self._length + n_tokens
        if stop > self.max_len:
            raise ContextError(
                f"the cache holds {self.max_len} tokens per row and has {start}; {n_tokens} more do not fit, "
                f"make it {stop} long or the text shorter"
            )
        for layer in self.layers:
            layer.n_rows, layer.start = self.n_rows, start
        if positions is None and not self._ragged:
            return self._columns[start:stop], Causal()
        held = self._positions[: self.n_rows]
        if positions is None:
            last = held[:, :start].amax(1, keepdim=True) if start else held.new_full((self.n_rows, 1), -1)
            positions = last + 1 + self._columns[:n_tokens]
        self._ragged = True
        held[:, start:stop] = positions
        return positions, Ragged(positions, held[:, :stop])

    def with_before(self, tokens: Tensor, n_before: int) -> Tensor:
        """tokens: (B, T) -> (B, n_before + T)."""
        if self._tokens is None:
            self._tokens = tokens.new_zeros(self.batch_size, self.max_len)
        start, stop = self._length, self._length + tokens.size(1)
        self._tokens[: self.n_rows, start:stop] = tokens
        wanted = n_before + tokens.size(1)
        if self._ragged:  # the latest that are text: what a row forgot may lie between them
            held = torch.where(self._positions[: self.n_rows, :stop] >= 0, self._columns[:stop], -1)
            columns = held.topk(min(wanted, stop)).values.flip(1)  # (B, up to n_before + T), -1 where there are fewer
            seen = self._tokens[: self.n_rows].gather(1, columns.clamp(min=0)).masked_fill(columns < 0, 0)
        else:
            seen = self._tokens[: self.n_rows, max(0, start - n_before) : stop]
        return F.pad(seen, (wanted - seen.size(1), 0))

    def advance(self, n_tokens: int) -> None:
        self._length += n_tokens

    def truncate(self, length: int) -> None:
        self._length = min(self._length, length)

    def forget(self, n_columns: Sequence[int]) -> None:
        """Row i forgets its latest n_columns[i] columns. Those that all forget are free again, others are padding."""
        n_free = min(n_columns)
        stop = self._length - n_free
        for row, n in enumerate(n_columns):
            if n > n_free:
                self._positions[row, self._length - n : stop] = -1
                self._ragged = True
        self.truncate(stop)

    def reset(self) -> None:
        self._length, self._ragged, self.n_rows = 0, False, self.batch_size
        self._positions.copy_(self._columns)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; only those that change place are copied.

        A row may be named more than once: samples that share a prompt share its prefill.

        Raises:
            ContextError: more rows than the cache was made for.
        """
        if len(rows) > self.batch_size:
            raise ContextError(f"{len(rows)} rows do not fit a cache made for {self.batch_size}; make it larger")
        moves = [(to, row) for to, row in enumerate(rows) if to != row]
        if moves:
            to, row = (torch.tensor(places, device=self._columns.device) for places in zip(*moves, strict=True))
            for layer in self.layers:
                for memory in layer.memories:
                    memory[to, :, : self._length] = memory[row, :, : self._length]
            self._positions[to] = self._positions[row]
            if self._tokens is not None:
                self._tokens[to] = self._tokens[row]
        self.n_rows = len(rows)
