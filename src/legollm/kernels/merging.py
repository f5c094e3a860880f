"""Byte-pair encoding, the applying half, compiled: one pre-token's bytes -> ids, lowest rank first, leftmost of equals.

Its definition is `legollm.tokenizers.apply_merges`. Sennrich, Haddow and Birch 2016, arXiv:1508.07909.
"""

from typing import NamedTuple

import numpy as np

from legollm.kernels.machine import (
    I32S,
    I64,
    I64S,
    NOTHING,
    TEXT,
    Array,
    at,
    kernel,
    out_of_line,
    put,
    record,
    shift_right,
    smallest16,
    wrap_multiply,
)

ID_BITS = 21
"""An entry of the pair table is left id, right id and rank, with so many bits each."""
MOST_IDS = 1 << ID_BITS
NONE = -1
"""No such pair; in the pair table, an empty entry."""
FILTER_BITS = 20
"""A bit for each value of so many bits of a pair's hash: most pairs that are no merge end there, near the processor."""
LONG = 64
"""Longer words are merged with a heap, shorter ones by looking through all pairs, 16 at a time."""
NEVER = 0x7FFFFFFF
_IDS, _AFTER, _BEFORE = LONG, 2 * LONG, 3 * LONG
"""Where scratch holds the id at each position, and the next and last position that is not merged away. What waits at
each position comes first, because it is read 16 values at a time."""
SCRATCH = 4 * LONG
_POSITION_BITS = 6
_POSITION = (1 << _POSITION_BITS) - 1
_K = -7046029254386353131
_GONE = -1


class Rules(NamedTuple):
    """The merges of a vocabulary."""

    pairs: Array
    """int64, open addressing with some entries to spare at the end instead of going round."""
    likely: Array
    """int64, the bits of the filter."""
    byte_pairs: Array
    """int32, 65536: rank of the merge of two bytes, or NONE."""
    byte_ids: Array
    """int32, 256."""
    products: Array
    """int32: rank -> id of the merged token."""
    shift: int
    """How far to move a pair's hash down for its place in `pairs`."""


RULES = record([I64S, I64S, I32S, I32S, I32S, I64], Rules)


@kernel(I64(I64S, I64S, I64, I64, I64))
def rank_of(pairs: Array, likely: Array, shift: int, left: int, right: int) -> int:
    """The rank of the merge of two ids, or NONE; the first three are parts of `Rules`."""
    key = left << ID_BITS | right
    mixed = wrap_multiply(key, _K)
    bit = shift_right(mixed, 64 - FILTER_BITS)
    if not shift_right(at(likely, bit >> 6), bit & 63) & 1:
        return NONE
    place = shift_right(mixed, shift)
    while True:
        entry = at(pairs, place)
        if shift_right(entry, ID_BITS) == key:
            return entry & (MOST_IDS - 1)
        if entry == NONE:
            return NONE
        place += 1


@kernel(I64(RULES, I32S, I32S))
def fill_rules(rules: Rules, lefts: Array, rights: Array) -> int:
    """Enter the merges of lefts[rank] and rights[rank] into empty tables; 0 if `pairs` has too few spare entries."""
    out_of_line()
    pairs, likely, shift = rules.pairs, rules.likely, rules.shift
    for rank in range(len(lefts)):
        key = at(lefts, rank) << ID_BITS | at(rights, rank)
        mixed = wrap_multiply(key, _K)
        bit = shift_right(mixed, 64 - FILTER_BITS)
        put(likely, bit >> 6, at(likely, bit >> 6) | 1 << (bit & 63))
        place = shift_right(mixed, shift)
        while at(pairs, place) != NONE:
            place += 1
        if place >= len(pairs) - 1:  # the last entry stays empty: every search ends
            return 0
        put(pairs, place, key << ID_BITS | rank)
    for a in range(256):
        for b in range(256):
            put(
                rules.byte_pairs,
                a << 8 | b,
                rank_of(pairs, likely, shift, at(rules.byte_ids, a), at(rules.byte_ids, b)),
            )
    return 1


@kernel(I64(I32S, I64))
def smallest(values: Array, n: int) -> int:
    """The smallest of the first n values; those up to the next multiple of 16 must be NEVER."""
    least = smallest16(values, 0)
    for i in range(16, n, 16):
        other = smallest16(values, i)
        least = other if other < least else least
    return least


@kernel(I64(I64S, I64S, I64, I64, I64, I64))
def waiting(pairs: Array, likely: Array, shift: int, left: int, right: int, position: int) -> int:
    """A possible merge as one number, of which the least comes first: rank, then position; NEVER if there is none."""
    rank = rank_of(pairs, likely, shift, left, right)
    return rank << _POSITION_BITS | position if rank != NONE else NEVER


@kernel(I64(RULES, TEXT, I64, I64, I32S, I32S, I64))
def merge_short(rules: Rules, text: Array, start: int, n: int, scratch: Array, out: Array, n_out: int) -> int:
    """The ids of the n <= LONG bytes at `start` to out[n_out:]; returns their number."""
    out_of_line()
    pairs, likely, shift, products = rules.pairs, rules.likely, rules.shift, rules.products
    byte_ids, byte_pairs = rules.byte_ids, rules.byte_pairs
    for i in range(n):
        put(scratch, _IDS + i, at(byte_ids, at(text, start + i)))
        put(scratch, _AFTER + i, i + 1)
        put(scratch, _BEFORE + i, i - 1)
    for i in range(n - 1):
        rank = at(byte_pairs, at(text, start + i) << 8 | at(text, start + i + 1))
        put(scratch, i, rank << _POSITION_BITS | i if rank != NONE else NEVER)
    for i in range(n - 1, (n + 15) & ~15):
        put(scratch, i, NEVER)
    while True:
        least = smallest(scratch, n)
        if least == NEVER:
            break
        i = least & _POSITION
        merged = at(products, least >> _POSITION_BITS)
        j = at(scratch, _AFTER + i)
        k = at(scratch, _AFTER + j)
        put(scratch, _IDS + i, merged)
        put(scratch, _AFTER + i, k)
        put(scratch, j, NEVER)
        put(scratch, i, waiting(pairs, likely, shift, merged, at(scratch, _IDS + k), i) if k < n else NEVER)
        if k < n:
            put(scratch, _BEFORE + k, i)
        h = at(scratch, _BEFORE + i)
        if h >= 0:
            put(scratch, h, waiting(pairs, likely, shift, at(scratch, _IDS + h), merged, h))
    count = 0
    i = 0
    while i < n:
        put(out, n_out + count, at(scratch, _IDS + i))
        count += 1
        i = at(scratch, _AFTER + i)
    return count


@kernel(NOTHING(I64S, I64, I64))
def push(heap: Array, n: int, value: int) -> None:
    """Add a value to a heap of n, least first."""
    i = n
    while i > 0:
        parent = (i - 1) >> 1
        if at(heap, parent) <= value:
            break
        put(heap, i, at(heap, parent))
        i = parent
    put(heap, i, value)


@kernel(NOTHING(I64S, I64))
def drop_least(heap: Array, n: int) -> None:
    """Take the least value off a heap of n."""
    n -= 1
    value = at(heap, n)
    i = 0
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and at(heap, child + 1) < at(heap, child):
            child += 1
        if at(heap, child) >= value:
            break
        put(heap, i, at(heap, child))
        i = child
    put(heap, i, value)


@kernel(I64(RULES, TEXT, I64, I64, I32S, I64))
def merge_long(rules: Rules, text: Array, start: int, n: int, out: Array, n_out: int) -> int:
    """As merge_short for any number of bytes: the waiting merges are in a heap, so it takes n log n steps."""
    out_of_line()
    pairs, likely, shift, products = rules.pairs, rules.likely, rules.shift, rules.products
    ids = np.empty(n, np.int32)
    after = np.empty(n, np.int32)
    before = np.empty(n, np.int32)
    heap = np.empty(3 * n, np.int64)  # a merge adds two at most, and there are fewer than n merges
    held = 0
    for i in range(n):
        put(ids, i, at(rules.byte_ids, at(text, start + i)))
        put(after, i, i + 1)
        put(before, i, i - 1)
    for i in range(n - 1):
        rank = rank_of(pairs, likely, shift, at(ids, i), at(ids, i + 1))
        if rank != NONE:
            push(heap, held, rank << 32 | i)
            held += 1
    while held > 0:
        least = at(heap, 0)
        drop_least(heap, held)
        held -= 1
        i = least & 0xFFFFFFFF
        j = at(after, i)
        if at(ids, i) == _GONE or j >= n or rank_of(pairs, likely, shift, at(ids, i), at(ids, j)) != least >> 32:
            continue  # a neighbour was merged since this entry was made
        merged = at(products, least >> 32)
        put(ids, i, merged)
        put(ids, j, _GONE)
        k = at(after, j)
        put(after, i, k)
        if k < n:
            put(before, k, i)
            rank = rank_of(pairs, likely, shift, merged, at(ids, k))
            if rank != NONE:
                push(heap, held, rank << 32 | i)
                held += 1
        h = at(before, i)
        if h >= 0:
            rank = rank_of(pairs, likely, shift, at(ids, h), merged)
            if rank != NONE:
                push(heap, held, rank << 32 | h)
                held += 1
    count = 0
    i = 0
    while i < n:
        put(out, n_out + count, at(ids, i))
        count += 1
        i = at(after, i)
    return count
