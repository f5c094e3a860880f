"""A cache whose texts take memory block by block, and share the blocks of a beginning that they have in common.

The idea of paged attention (Kwon et al. 2023, arXiv:2309.06180).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from legollm.components.masks import InBlocks
from legollm.errors import ContextError
from legollm.generation.block_pool import BlockPool
from legollm.generation.cache import GenerativeModel
from legollm.interfaces import Mask


class Usage(NamedTuple):
    """How well memory is used, in shares of 1."""

    hits: float
    """Of the blocks that were looked for, those that were there."""
    reused: float
    """Of the tokens of all texts at their start, those that did not have to be read."""
    waste: float
    """Of the memory in use, what holds no token; blocks that several texts share count once."""
    contiguous_waste: float
    """The same if each text had memory of its own for as many tokens as the longest."""


@dataclass(eq=False)
class Text:
    """A sequence of tokens in the cache."""

    ids: list[int]
    """Its tokens, as far as known: whoever writes on appends to it, and full blocks can then be found by others."""
    blocks: list[int] = field(default_factory=list)
    """Where its keys lie, block_size tokens in each."""
    length: int = 0
    """Tokens whose keys are there."""
    serials: list[int] = field(default_factory=list)
    """Of the blocks that have been named, each the name of what came before the next."""
    heard: list[int] = field(default_factory=list)
    """The tokens read, for models whose embedding looks back."""


class PagedLayerCache:
    """One layer's blocks, side by side."""

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v  # (1, K, (n_blocks + 1) * block_size, Dh); the last block is for padding
        self.written = self.seen = torch.empty(0, dtype=torch.int64)  # (B, T) and (B, S) columns of these

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k and v: (B, K, T, Dh) of the new tokens -> copies (B, K, S, Dh) of all that their texts hold."""
        n_rows, n_seen = self.seen.shape
        if k.size(0) != n_rows:
            raise ContextError(f"the cache holds {n_rows} rows, found a batch of {k.size(0)}; make them equal")
        found = []
        for memory, new in ((self.k[0], k), (self.v[0], v)):
            memory[:, self.written.flatten()] = new.transpose(0, 1).flatten(1, 2)
            seen = memory[:, self.seen.flatten()]
            found.append(seen.view(len(seen), n_rows, n_seen, -1).transpose(0, 1))
        return found[0], found[1]


class PagedCache:
    """Texts that come and go, in blocks of one memory.

    `open` a text, name the texts that a call's rows belong to in `rows`, let the model read, `close` it. A text opened
    with the beginning of an earlier one has those blocks at once: `length` of it need not be read. `fork` shares all
    of a text; what is written afterwards goes to a copy of the last block. Rows of unequal length are padded on the
    left, and of positions only what is padding is looked at: padding takes no memory.
    """

    def __init__(
        self,
        kv_shapes: Sequence[tuple[int, int]],
        n_blocks: int,
        block_size: int = 16,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """kv_shapes: (K, Dh) of every layer; block_size: tokens of each block."""
        self.pool = BlockPool(n_blocks, block_size)

        def memory(n_kv_heads: int, d_head: int) -> Tensor:
            return torch.zeros(1, n_kv_heads, (n_blocks + 1) * block_size, d_head, dtype=dtype, device=device)

        self.layers: Sequence[PagedLayerCache] = [PagedLayerCache(memory(*s), memory(*s)) for s in kv_shapes]
        self.device = torch.device(device)
        self.rows: list[Text] = []
        self.texts: set[Text] = set()
        self._length = self._n_rows = 0
        self._n_at_start = self._n_reused = 0
        self._placed: list[int] = []

    @classmethod
    def for_model(cls, model: GenerativeModel, n_rows: int, max_len: int, block_size: int = 16) -> Self:
        """One that n_rows texts of max_len tokens fit in, opened empty as its rows."""
        weight = next(model.parameters())
        n_blocks = n_rows * -(-max_len // block_size)
        cache = cls(model.kv_shapes, n_blocks, block_size, dtype=weight.dtype, device=weight.device)
        cache.start([cache.open([]) for _ in range(n_rows)])
        return cache

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, in use or not."""
        return sum(layer.k.nbytes + layer.v.nbytes for layer in self.layers)

    # ---- texts ----------------------------------------------------------------------------------------------------

    def open(self, ids: list[int]) -> Text:
        """A text that starts with these tokens. Known blocks are shared, but at least one token is left to read.

        ids: kept, not copied: see `Text`.
        """
        text, size = Text(ids), self.pool.block_size
        serial = 0
        for start in range(0, len(ids) - size, size):  # not the last token: its logits are wanted
            found = self.pool.find((serial, tuple(ids[start : start + size])))
            if found is None:
                break
            serial = found.serial
            text.blocks.append(found.block)
            text.serials.append(serial)
        text.length = size * len(text.blocks)
        text.heard = ids[: text.length]
        self._n_at_start += len(ids)
        self._n_reused += text.length
        self.texts.add(text)
        return text

    def fork(self, text: Text) -> Text:
        """Another text with the same beginning; only what either writes from now on is its own."""
        twin = Text(list(text.ids), list(text.blocks), text.length, list(text.serials), list(text.heard))
        for block in text.blocks:
            self.pool.share(block)
        self.texts.add(twin)
        return twin

    def close(self, text: Text) -> None:
        """Its blocks are free for others, and found by those that start the same way."""
        self.shorten(text, 0)
        self.texts.remove(text)

    def shorten(self, text: Text, length: int) -> None:
        """Take back the tokens from `length` on."""
        n_blocks = -(-length // self.pool.block_size)
        for block in reversed(text.blocks[n_blocks:]):  # the last first, so that beginnings are evicted last
            self.pool.give_back(block)
        del text.blocks[n_blocks:], text.serials[length // self.pool.block_size :], text.heard[length:]
        text.length = min(text.length, length)

    def _make_room(self, text: Text, n_tokens: int) -> None:
        """Blocks for so many more tokens, of which nobody else sees what is written."""
        size = self.pool.block_size
        if n_tokens and text.length % size and not self.pool.is_writable(shared := text.blocks[-1]):
            own = self.pool.take()
            for layer in self.layers:
                for memory in (layer.k, layer.v):
                    memory[:, :, own * size : (own + 1) * size] = memory[:, :, shared * size : (shared + 1) * size]
            text.blocks[-1] = own
            self.pool.give_back(shared)
        while len(text.blocks) * size < text.length + n_tokens:
            text.blocks.append(self.pool.take())

    def _name(self, text: Text) -> None:
        """Let others find the blocks that are full, as far as their tokens are known."""
        size = self.pool.block_size
        for i in range(len(text.serials), min(text.length, len(text.ids)) // size):
            name = (text.serials[-1] if text.serials else 0, tuple(text.ids[i * size : (i + 1) * size]))
            text.serials.append(self.pool.name(text.blocks[i], name))

    def usage(self) -> Usage:
        """Of the texts that are open."""
        lengths, size = [text.length for text in self.texts], self.pool.block_size
        filled: dict[int, int] = {}
        for text in self.texts:
            for i, block in enumerate(text.blocks):
                filled[block] = max(filled.get(block, 0), min(size, text.length - i * size))
        contiguous = len(lengths) * max(lengths, default=0)
        return Usage(
            self.pool.n_found / max(self.pool.n_asked, 1),
            self._n_reused / max(self._n_at_start, 1),
            1 - sum(filled.values()) / (size * len(filled)) if filled else 0.0,
            1 - sum(lengths) / contiguous if contiguous else 0.0,
        )

    # ---- a cache for the model ------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        """Columns that were read since the rows were named, padding included."""
        return self._length

    def at_once(self, n_tokens: int) -> int:
        """All of them."""
        return n_tokens

    def start(self, rows: list[Text]) -> None:
        """The rows of the calls to come."""
        self.rows, self._n_rows, self._length = rows, len(rows), 0

    def place(self, n_tokens: int, positions: Tensor | None) -> tuple[Tensor, Mask]:
        """Each row goes on where its text ends. positions: None, or (B, T) with -1 at padding -> (B, T).

        Raises:
            ContextError: there are not as many free blocks.
        """
        is_text = None if positions is None else (positions >= 0).cpu()
        counts = [n_tokens] * len(self.rows) if is_text is None else is_text.sum(1).tolist()
        for text, n in zip(self.rows, counts, strict=True):
            self._make_room(text, n)
        lengths = torch.tensor([text.length for text in self.rows])
        steps = torch.arange(n_tokens) if is_text is None else is_text.cumsum(1) - 1
        places = lengths[:, None] + steps  # (B, T)
        if is_text is not None:
            places = places.masked_fill(~is_text, -1)
        size, padding = self.pool.block_size, self.pool.n_blocks
        width = max(max((len(text.blocks) for text in self.rows), default=0), 1)
        blocks = torch.tensor([text.blocks + [padding] * (width - len(text.blocks)) for text in self.rows])
        after = lengths + torch.tensor(counts)
        n_seen = max(int(after.max()), 1)
        columns = torch.arange(n_seen)
        seen = blocks[:, columns // size] * size + columns % size  # (B, S)
        held = torch.where(columns < after[:, None], columns, -1)
        if is_text is not None and not is_text.all():  # padding sees one column that is padding
            seen = torch.nn.functional.pad(seen, (0, 1), value=padding * size)
            held = torch.nn.functional.pad(held, (0, 1), value=-1)
        of_row = blocks.gather(1, places.clamp(min=0) // size) * size + places % size
        written = torch.where(places >= 0, of_row, padding * size)
        for layer in self.layers:
            layer.written, layer.seen = written.to(self.device), seen.to(self.device)
        self._placed = counts
        is_even = is_text is None and len(set(lengths.tolist())) == 1
        places = (places[:1] if is_even else places).to(self.device)
        return places, InBlocks(places, held.to(self.device), blocks, size)

    def with_before(self, tokens: Tensor, n_before: int) -> Tensor:
        """tokens: (B, T) -> (B, n_before + T)."""
        width, found = n_before + tokens.size(1), []
        for text, new, n in zip(self.rows, tokens.tolist(), self._placed, strict=True):
            text.heard += new[len(new) - n :]
            found.append(([0] * width + text.heard)[-width:])
        return torch.tensor(found, device=tokens.device, dtype=tokens.dtype)

    def advance(self, n_tokens: int) -> None:
        self._length += n_tokens
        for text, n in zip(self.rows, self._placed, strict=True):
            text.length += n
            self._name(text)

    def truncate(self, length: int) -> None:
        """Take the columns from `length` on back from all rows."""
        back = self._length - length
        if back > 0:
            for text in self.rows:
                self.shorten(text, max(0, text.length - back) if length else 0)
            self._length = length

    def reset(self) -> None:
        """Empty texts in all rows, as many as there were at the start."""
        for text in self.rows:
            self.close(text)
        self.start([self.open([]) for _ in range(self._n_rows)])

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; texts of others are closed, and one named again is forked."""
        kept: list[Text] = []
        for row in rows:
            text = self.rows[row]
            kept.append(self.fork(text) if text in kept else text)
        for text in self.rows:
            if text not in kept:
                self.close(text)
        self.rows = kept
