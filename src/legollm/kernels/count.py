"""How often each pre-token occurs in a text: cut by `scan`, counted in a hash table, without an object for any of them.

A table has rows of four whole numbers. A pre-token of up to INLINE bytes is its own key: the bytes in the first two
columns, its length above them. A longer one has its hash, its length and a place in the pool, where its bytes are.
Equal pre-tokens have equal keys, so a row is found with one comparison and mostly one wait for memory, and those of a
batch wait together.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from legollm.kernels.characters import character_table
from legollm.kernels.machine import (
    BYTES,
    I64,
    I64S,
    NOTHING,
    PAIR,
    TEXT,
    Array,
    at,
    kernel,
    leading_zeros,
    load64,
    out_of_line,
    prefetch,
    put,
    shift_right,
)
from legollm.kernels.scan import PADDING, STARTS, split_batch
from legollm.kernels.words import SHORT, hash_long, hash_short, short_key

LONG = SHORT + 1
"""Stands for the length in the key of longer pre-tokens; their length is in the lower bits."""
LENGTH_AT = 56
"""The lowest bit of the length in the second column."""
LENGTH_BITS = (1 << LENGTH_AT) - 1
COLUMNS = 4
LOW, HIGH, COUNT, PLACE = range(COLUMNS)
ROW_BYTES = 8 * COLUMNS
WORDS, POOLED = 0, 1
"""Entries of Table.used: rows, and bytes of the pool."""


class Table(NamedTuple):
    """Counted pre-tokens."""

    rows: Array
    """(COLUMNS * power of two,) int64, never more than half full; HIGH == 0 where a row is free."""
    pool: Array
    """uint8: the long pre-tokens, and room to read eight bytes at each."""
    used: Array


_named_tuple: Any = types.NamedTuple
_TABLE = _named_tuple((I64S, BYTES, I64S), Table)


@kernel(PAIR(TEXT, I64, I64))
def _key(text: Array, start: int, length: int) -> tuple[int, int]:
    if length > SHORT:
        return hash_long(text, start, length), LONG << LENGTH_AT | length
    return short_key(text, start, length)


@kernel(I64(I64S, I64, I64))
def _home(rows: Array, low: int, high: int) -> int:
    """Where the search for a key begins, as an index of `rows`."""
    return shift_right(hash_short(low, high), leading_zeros(len(rows) // COLUMNS - 1)) * COLUMNS


@kernel(I64(TEXT, I64, BYTES, I64, I64))
def _same(text: Array, start: int, pool: Array, place: int, length: int) -> int:
    """Whether two words of eight bytes or more are equal."""
    for offset in range(0, length - 8, 8):
        if load64(text, start + offset) != load64(pool, place + offset):
            return 0
    return 1 if load64(text, start + length - 8) == load64(pool, place + length - 8) else 0


@kernel(NOTHING(_TABLE, I64, I64, I64, I64, TEXT, I64))
def _add(table: Table, low: int, high: int, row: int, count: int, text: Array, start: int) -> None:
    """Count a pre-token whose key is not at home in `row`: it is further on, or new."""
    out_of_line()
    rows, pool, used = table.rows, table.pool, table.used
    is_long = shift_right(high, LENGTH_AT) == LONG
    length = high & LENGTH_BITS
    while at(rows, row + HIGH) != 0:
        if (
            at(rows, row + LOW) == low
            and at(rows, row + HIGH) == high
            and (not is_long or _same(text, start, pool, at(rows, row + PLACE), length))
        ):
            put(rows, row + COUNT, at(rows, row + COUNT) + count)
            return
        row = (row + COLUMNS) & (len(rows) - 1)
    put(rows, row + LOW, low)
    put(rows, row + HIGH, high)
    put(rows, row + COUNT, count)
    put(used, WORDS, at(used, WORDS) + 1)
    if is_long:
        put(rows, row + PLACE, at(used, POOLED))
        for i in range(length):
            put(pool, at(used, POOLED) + i, at(text, start + i))
        put(used, POOLED, at(used, POOLED) + length)


@kernel(PAIR(_TABLE, TEXT, I64S, I64, I64, TEXT, I64))
def _count(
    table: Table, text: Array, ends: Array, document: int, position: int, classes: Array, pattern: int
) -> tuple[int, int]:
    """Count from `position` in a document on; where it is done or has no room: the document and the position in it."""
    rows, pool, used = table.rows, table.pool, table.used
    starts = np.empty(STARTS, np.int64)
    lows, highs, homes = np.empty(STARTS, np.int64), np.empty(STARTS, np.int64), np.empty(STARTS, np.int64)
    while document < len(ends):
        end = at(ends, document)
        while position < end:
            if 2 * (at(used, WORDS) + STARTS) * COLUMNS > len(rows):
                return document, position
            after, n = split_batch(text, position, end, classes, pattern, starts)
            if at(used, POOLED) + after - position > len(pool):
                return document, position
            position = after
            for j in range(n):
                low, high = _key(text, at(starts, j), at(starts, j + 1) - at(starts, j))
                home = _home(rows, low, high)
                prefetch(rows, 8 * home)
                put(lows, j, low)
                put(highs, j, high)
                put(homes, j, home)
            for j in range(n):
                low, high, row = at(lows, j), at(highs, j), at(homes, j)
                if at(rows, row + LOW) == low and at(rows, row + HIGH) == high and shift_right(high, LENGTH_AT) != LONG:
                    put(rows, row + COUNT, at(rows, row + COUNT) + 1)
                else:
                    _add(table, low, high, row, 1, text, at(starts, j))
        document += 1
    return document, position


@kernel(NOTHING(_TABLE, _TABLE))
def _add_all(table: Table, other: Table) -> None:
    """Add all counts of `other`, for which there is room."""
    for row in range(0, len(other.rows), COLUMNS):
        low, high = at(other.rows, row + LOW), at(other.rows, row + HIGH)
        if high != 0:
            home = _home(table.rows, low, high)
            _add(table, low, high, home, at(other.rows, row + COUNT), other.pool, at(other.rows, row + PLACE))


@kernel(I64(_TABLE, BYTES, I64S, I64S))
def _write_out(table: Table, words: Array, ends: Array, counts: Array) -> int:
    """Write all pre-tokens one after the other, the place where each ends and its count; how many bytes they have."""
    n = end = 0
    for row in range(0, len(table.rows), COLUMNS):
        low, high = at(table.rows, row + LOW), at(table.rows, row + HIGH)
        if high == 0:
            continue
        length = shift_right(high, LENGTH_AT)
        if length == LONG:
            length = high & LENGTH_BITS
            for i in range(length):
                put(words, end + i, at(table.pool, at(table.rows, row + PLACE) + i))
        else:
            for i in range(length):
                put(words, end + i, shift_right(low, 8 * i) if i < 8 else shift_right(high, 8 * (i - 8)))
        end += length
        put(ends, n, end)
        put(counts, n, at(table.rows, row + COUNT))
        n += 1
    return end


class WordCounter:
    """Counts the pre-tokens of any number of texts, for one thread at a time."""

    def __init__(self, pattern: int) -> None:
        """pattern: a number from legollm.kernels.scan_plain.SCANNED."""
        self._pattern = pattern
        self._table = _new_table(1 << 14, 1 << 16)

    def add(self, texts: list[bytes]) -> None:
        """Count `texts`, each of which is cut by itself; the interpreter lock is free meanwhile."""
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        data = np.frombuffer(b"".join([*texts, bytes(PADDING)]), np.uint8)
        document = position = 0
        while document < len(ends):
            document, position = _count(self._table, data, ends, document, position, character_table(), self._pattern)
            if document < len(ends):
                n_words = int(self._table.used[WORDS]) + STARTS
                rows_lack = 2 * n_words * COLUMNS > len(self._table.rows)
                self._make_room(n_words, len(self._table.pool) * (1 if rows_lack else 2))

    def update(self, other: "WordCounter") -> None:
        """Add the counts of `other`."""
        n_words, n_pooled = (
            int(mine + theirs) for mine, theirs in zip(self._table.used, other._table.used, strict=True)
        )
        self._make_room(n_words, n_pooled)
        _add_all(self._table, other._table)

    def arrays(self) -> tuple[Array, Array, Array]:
        """All pre-tokens one after the other (uint8), where each ends and how often it occurs (int64)."""
        n_words, n_pooled = self._table.used.tolist()
        words = np.empty(SHORT * n_words + n_pooled, np.uint8)
        ends, counts = np.empty(n_words, np.int64), np.empty(n_words, np.int64)
        n_bytes = _write_out(self._table, words, ends, counts)
        return words[:n_bytes].copy(), ends, counts

    def _make_room(self, n_words: int, n_pooled: int) -> None:
        rows, pool, _ = self._table
        n_rows = max(len(rows) // COLUMNS, 1 << (2 * n_words - 1).bit_length())
        if n_rows * COLUMNS > len(rows) or n_pooled > len(pool):
            table = _new_table(n_rows, max(n_pooled, len(pool)))
            _add_all(table, self._table)
            self._table = table


def _new_table(n_rows: int, n_pooled: int) -> Table:
    line = 64
    rows = np.zeros(n_rows * COLUMNS + line // 8, np.int64)
    start = -rows.ctypes.data % line // 8  # no row shall lie in two cache lines
    pool = np.empty(n_pooled, np.uint8)
    return Table(rows[start : start + n_rows * COLUMNS], pool, np.zeros(2, np.int64))
