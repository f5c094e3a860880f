"""A built decoder as a plan of kernel calls: the same tokens in, the same logits out, at the speed of memory."""

import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from legollm.components.decoder import Decoder
from legollm.components.masks import Causal, InBlocks, InPlaces, Ragged, Sliding
from legollm.components.places import places_of
from legollm.errors import ContextError, LoweringError, TokenizerError
from legollm.interfaces import Cache
from legollm.kernels import plan
from legollm.lowering.blocks import lower_body, lower_head
from legollm.lowering.team import Team
from legollm.lowering.weights import Precision
from legollm.lowering.writer import Plan, Writer

MAX_ROWS = 256
"""Rows of states that one pass takes; longer prompts take several."""
TILED_ROWS = 16
"""Rows from which on tiles are used, where there are any."""
N_ROW_FIELDS = 3
"""Slot, column and position; then the indices."""


@runtime_checkable
class Overwriting(Protocol):
    """A cache that writes new keys over old ones."""

    def in_place(self, n_tokens: int) -> int:
        """How many of the next n_tokens overwrite nothing that one of them sees."""
        ...


class LayerMemory(Protocol):
    """Keys and values of one layer, (slots, K, columns, Dh) float32."""

    k: Tensor
    v: Tensor


class Where(NamedTuple):
    """Where the keys of a pass go, and which of them are read."""

    columns: Any
    """Of each new key, (T,) or (B, T) whole numbers."""
    n_columns: int
    """Those in use."""
    key_positions: Tensor | None
    """(B, n_columns), of each key where its token stands, -1 at padding; None where that is its column."""
    in_any_order: bool = False
    """Whether later columns may hold earlier tokens, so that all of them are looked at."""
    blocks: tuple[Tensor, int] | None = None
    """Of each row the blocks that its columns lie in, (B, N), and how many lie in each; None where all are in order."""


class Memory:
    """Where the kernels find keys and values: a row of addresses for each layer."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.n_columns = min((k.size(2) for k, _ in layers), default=0)
        rows = []
        for k, v in layers:
            if k.dtype != torch.float32 or k.stride(3) != 1 or k.stride(2) != k.size(3) or k.stride() != v.stride():
                raise LoweringError(
                    "no lowering for keys and values that are not float32 or do not lie in order; use a FullCache of "
                    "float32 (cache_precision=model), or engine=torch"
                )
            rows.append([k.data_ptr(), v.data_ptr(), 4 * k.stride(0), 4 * k.stride(1)])
        self.table = torch.tensor(rows or [[0] * 4], dtype=torch.int64)
        self.address = self.table.data_ptr()


class LoweredDecoder:
    """A decoder whose passes are carried out by kernels; it generates like the model it was made of.

    A row of a pass is (token, position, slot): one token of each of many texts, many tokens of one text, or any mixture
    are the same to it. Caches hold float32, whatever the weights are in.
    """

    def __init__(self, model: Decoder, precision: Precision = "float32", *, n_threads: int | None = None) -> None:
        """n_threads: None is as many as torch uses.

        Raises:
            LoweringError: a part of the model has no lowering.
        """
        self.max_seq_len, self.kv_shapes, self.n_before = model.max_seq_len, model.kv_shapes, model.n_before
        self.places = places_of(model)
        self.precision = precision
        writer = Writer(precision, MAX_ROWS)
        self.states = lower_body(model, writer)
        self.body = writer.finish()
        self.vocab_size = lower_head(model, writer)
        self.head = writer.finish()
        self.writer = writer
        self.rows = np.zeros((MAX_ROWS, N_ROW_FIELDS + writer.n_indices), np.int64)
        self.team = Team(n_threads or torch.get_num_threads(), (self.body, self.head))
        self.lock = threading.Lock()
        self.n_positions = 0
        self.memory_of: tuple[weakref.ref[Any], Memory] | None = None

    def parameters(self) -> Iterator[nn.Parameter]:
        """One that says in which dtype and on which device a cache has to be."""
        yield nn.Parameter(torch.empty(0), requires_grad=False)

    def __call__(
        self, tokens: Tensor, positions: Tensor | None = None, cache: Cache | None = None, at: Tensor | None = None
    ) -> Tensor:
        """tokens: (B, T) -> logits (B, T, V), or (N, V) where `at` (B, T) is true."""
        x = self.hidden(tokens, positions, cache)
        return self.lm_head(x if at is None else x[at])

    @torch.inference_mode()
    def lm_head(self, x: Tensor) -> Tensor:
        """x: (..., D) -> logits (..., V)."""
        if not self.head.n_steps:
            return x.clone()
        x = x.contiguous()
        logits = torch.empty(*x.shape[:-1], self.vocab_size)
        n_rows, d_model = x.numel() // x.size(-1), x.size(-1)
        with self.lock:
            for first in range(0, n_rows, MAX_ROWS):
                n = min(MAX_ROWS, n_rows - first)
                self.head.rows[0, plan.IN] = x.data_ptr() + 4 * d_model * first
                self.head.rows[-1, plan.OUT] = logits.data_ptr() + 4 * self.vocab_size * first
                self.run(self.head, n)
        return logits

    @torch.inference_mode()
    def hidden(self, tokens: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """(B, T) -> states (B, T, D).

        Raises:
            ContextError, TokenizerError: see Decoder and its embedding.
            LoweringError: a cache whose memory kernels cannot read.
        """
        if not isinstance(cache, Overwriting):
            return self.read(tokens, positions, cache)
        states, first, n_new = [], 0, tokens.size(1)
        while first < n_new:
            now = slice(first, first + cache.in_place(n_new - first))
            states.append(self.read(tokens[:, now], None if positions is None else positions[:, now], cache))
            first = now.stop
        return states[0] if len(states) == 1 else torch.cat(states, 1)

    def read(self, tokens: Tensor, positions: Tensor | None, cache: Cache | None) -> Tensor:
        """(B, T) -> states (B, T, D), where all keys are written before one is read."""
        n_rows, n_new = tokens.shape
        with self.lock:
            if cache is None:
                placed = torch.arange(n_new) if positions is None else positions
                memory, where = self.own_memory(n_rows, n_new), Where(np.arange(n_new), n_new, positions)
            else:
                memory, start = self.memory_for(cache), cache.length
                placed, mask = cache.place(n_new, positions)
                if not isinstance(mask, Causal | Ragged) or isinstance(mask, Sliding):
                    raise LoweringError(f"no lowering for {type(mask).__name__} attention; engine=torch runs it")
                keys = mask.key_positions if isinstance(mask, Ragged) else None
                columns = np.arange(start, start + n_new)
                where = Where(columns, start + n_new, keys)
                if isinstance(mask, InPlaces):
                    where = Where(mask.columns.numpy(), mask.key_positions.size(1), keys, in_any_order=True)
                elif isinstance(mask, InBlocks):
                    where = Where(
                        placed.numpy(), mask.key_positions.size(1), None, blocks=(mask.blocks, mask.block_size)
                    )
            before = tokens
            if self.n_before and cache is not None:
                before = cache.with_before(tokens, self.n_before)
            elif self.n_before:
                before = nn.functional.pad(tokens, (self.n_before, 0))
            states = self.pass_over(tokens, before, placed, memory, where)
            if cache is not None:
                cache.advance(n_new)
        return states

    # ---- one pass -------------------------------------------------------------------------------------------------

    def pass_over(
        self,
        tokens: Tensor,
        before: Tensor,
        positions: Tensor,
        memory: Memory,
        where: Where,
    ) -> Tensor:
        """The states of tokens (B, T) whose keys go to slots 0 to B - 1 of memory: (B, T, D)."""
        n_slots, n_new = tokens.shape
        about = self.described(tokens, before, positions, where.columns)
        key_positions = where.key_positions
        at, job = self.team.at, self.team.job
        job[at.N_SEEN] = where.n_columns if where.in_any_order else 0
        job[at.BLOCKS] = 0
        if where.blocks is not None:
            blocks, job[at.BLOCK_SIZE] = where.blocks
            job[at.BLOCKS], job[at.BLOCKS_STRIDE] = blocks.data_ptr(), blocks.stride(0)
            job[at.N_SEEN] = memory.n_columns - 1  # where padding goes
        if key_positions is not None:
            key_positions = key_positions if key_positions.stride(1) == 1 else key_positions.contiguous()
            job[at.POSITIONS], job[at.POSITIONS_STRIDE] = key_positions.data_ptr(), key_positions.stride(0)
        else:
            job[at.POSITIONS] = 0
        job[at.MEMORY] = memory.address
        widest_head = max((width for _, width in self.kv_shapes), default=0)
        room = 80 + 16 * (where.n_columns + 16) + 4 * widest_head
        self.team.make_room(max(self.team.room_for(self.writer.widest), room))
        if n_slots * n_new <= MAX_ROWS:
            return self.run_rows(about.reshape(-1, about.shape[-1])).view(n_slots, n_new, -1)
        states = torch.empty(n_slots, n_new, self.states.width)
        n_together = max(1, MAX_ROWS // n_slots)
        for first in range(0, n_new, n_together):
            for slot in range(0, n_slots, MAX_ROWS):
                part = (slice(slot, slot + MAX_ROWS), slice(first, first + n_together))
                rows = about[part]
                states[part] = self.run_rows(rows.reshape(-1, rows.shape[-1])).view(*rows.shape[:2], -1)
        return states

    def described(self, tokens: Tensor, before: Tensor, positions: Tensor, columns: Any) -> Any:
        """What the kernels know of each row: (B, T, fields)."""
        n_slots, n_new = tokens.shape
        if n_slots * n_new == 1:
            about = self.rows[:1].reshape(1, 1, -1)
        else:
            about = np.empty((n_slots, n_new, self.rows.shape[1]), np.int64)
        ids, places = tokens.numpy(), positions.numpy()
        about[..., 0] = np.arange(n_slots)[:, None]
        about[..., 1] = columns
        about[..., 2] = places
        about[..., N_ROW_FIELDS] = ids
        about[..., N_ROW_FIELDS + 1] = np.maximum(places, 0)
        for index, make in self.writer.index_makers:
            about[..., N_ROW_FIELDS + index] = make(before, positions).numpy()
        self.check(ids, int(places.max()))
        return about

    def check(self, ids: Any, last: int) -> None:
        """
        Raises:
            TokenizerError: an id outside the vocabulary.
            ContextError: a position that the model does not have.
        """
        if ids.min() < 0 or ids.max() >= self.writer.n_tokens:
            wrong = ids[(ids < 0) | (ids >= self.writer.n_tokens)][0]
            raise TokenizerError(
                f"token {wrong} is not among the model's ids 0 to {self.writer.n_tokens - 1}; encode with the "
                "tokenizer it was trained with"
            )
        if self.max_seq_len is not None and last >= self.max_seq_len:
            raise ContextError(
                f"position {last} does not exist: max_seq_len = {self.max_seq_len}; give the model fewer tokens or "
                "build it with a larger max_seq_len"
            )
        if last >= self.n_positions:
            self.n_positions = max(256, 1 << last.bit_length())
            self.writer.fill_tables(self.body, self.n_positions)

    def run_rows(self, rows: Any) -> Tensor:
        """rows: (N, fields) -> their states (N, D), copied from where the next pass writes."""
        n = len(rows)
        if rows.base is not self.rows:
            self.rows[:n] = rows
        self.run(self.body, n)
        return self.states.memory[: n * self.states.width].view(n, -1).clone()

    def run(self, steps: Plan, n_rows: int) -> None:
        at, job = self.team.at, self.team.job
        job[at.PLAN], job[at.N_ROWS] = steps.address, n_rows
        job[at.TILED] = self.team.has_tiles and n_rows >= TILED_ROWS
        job[at.ROWS_AT], job[at.N_ROW_FIELDS] = self.rows.ctypes.data, self.rows.shape[1]
        self.team.run(steps.n_steps)

    # ---- memory ---------------------------------------------------------------------------------------------------

    def memory_for(self, cache: Any) -> Memory:
        """Of a cache; looked up once.

        Raises:
            LoweringError: the cache does not keep its keys and values in one place.
        """
        if self.memory_of is not None and self.memory_of[0]() is cache:
            return self.memory_of[1]
        layers: Sequence[LayerMemory] = cache.layers
        if not all(hasattr(layer, "k") and hasattr(layer, "v") for layer in layers):
            raise LoweringError(f"no lowering for a {type(cache).__name__}; use a FullCache, or engine=torch")
        memory = Memory([(layer.k, layer.v) for layer in layers])
        self.memory_of = (weakref.ref(cache), memory)
        return memory

    def own_memory(self, n_rows: int, n_columns: int) -> Memory:
        """For a pass that nothing follows."""
        shapes = [(n_rows, n_heads, n_columns, width) for n_heads, width in self.kv_shapes]
        self.own = [(torch.empty(shape), torch.empty(shape)) for shape in shapes]
        return Memory(self.own)
