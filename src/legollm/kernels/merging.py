"""Byte-pair encoding, the applying half, compiled: one pre-token's bytes -> ids, lowest rank first, leftmost of equals.

Its definition is `legollm.tokenizers.apply_merges`. Sennrich, Haddow and Birch 2016, arXiv:1508.07909.
"""

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
    replace16,
)
from legollm.kernels.rules import NEVER, NO_ID, RULES, Rules, rank_of, read_pieces

FEW = 64
"""Pieces that are merged by looking through all pairs, 16 at a time; more are merged with a heap."""
LONGEST = 4096
"""Bytes of a word whose pieces have room in scratch."""
_WAITING = 0
_AFTER = _WAITING + FEW
_BEFORE = _AFTER + FEW
_IDS = _BEFORE + FEW + 2
"""Where scratch holds, for each piece of a word, the merge with the next one that waits, the next and the last piece
that is not merged away, and the id. Before and after the ids is room for NO_ID and after `before` for one piece more,
so that the ends of a word need no question."""
SCRATCH = _IDS + LONGEST + 2
_POSITION_BITS = 6
_POSITION = (1 << _POSITION_BITS) - 1
_GONE = -1
_NOWHERE = -1


@kernel(I64(I64S, I64, I64, I64, I64))
def waiting(pairs: Array, shift: int, left: int, right: int, position: int) -> int:
    """A possible merge as one number, of which the least comes first: rank, then position; NEVER if there is none."""
    rank = rank_of(pairs, shift, left, right)
    return rank << _POSITION_BITS | position if rank != NEVER else NEVER


@kernel(I64(I32S, I64, I64, I64, I64, I64, I64, I64))
def replace(scratch: Array, n: int, a: int, at_a: int, b: int, at_b: int, c: int, at_c: int) -> int:
    """Replace what waits at the positions a, b and c; returns the least of all n, up to the next multiple of 16."""
    least = replace16(scratch, _WAITING, a, at_a, b, at_b, c, at_c)
    for i in range(16, n, 16):
        other = replace16(scratch, _WAITING + i, a - i, at_a, b - i, at_b, c - i, at_c)
        least = other if other < least else least
    return least


@kernel(I64(RULES, I64, I32S, I32S, I64))
def merge_few(rules: Rules, n: int, scratch: Array, out: Array, n_out: int) -> int:
    """The ids that the first n <= FEW pieces in scratch become to out[n_out:]; returns their number."""
    out_of_line()
    pairs, shift, products = rules.pairs, rules.shift, rules.products
    put(scratch, _IDS - 1, NO_ID)
    put(scratch, _IDS + n, NO_ID)
    for i in range(n):
        put(scratch, _WAITING + i, waiting(pairs, shift, at(scratch, _IDS + i), at(scratch, _IDS + i + 1), i))
        put(scratch, _AFTER + i, i + 1)
        put(scratch, _BEFORE + i, i - 1)
    for i in range(n, (n + 15) & ~15):
        put(scratch, _WAITING + i, NEVER)
    least = replace(scratch, n, _NOWHERE, 0, _NOWHERE, 0, _NOWHERE, 0)
    while least != NEVER:
        i = least & _POSITION
        merged = at(products, least >> _POSITION_BITS)
        j = at(scratch, _AFTER + i)
        k = at(scratch, _AFTER + j)
        h = at(scratch, _BEFORE + i)
        put(scratch, _IDS + i, merged)
        put(scratch, _AFTER + i, k)
        put(scratch, _BEFORE + k, i)
        right = waiting(pairs, shift, merged, at(scratch, _IDS + k), i)
        left = waiting(pairs, shift, at(scratch, _IDS + h), merged, h)
        least = replace(scratch, n, i, right, h, left, j, NEVER)
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
def merge_many(rules: Rules, text: Array, start: int, n: int, out: Array, n_out: int) -> int:
    """The same for any number of bytes: the waiting merges are in a heap, so it takes n log n steps."""
    out_of_line()
    pairs, shift, products = rules.pairs, rules.shift, rules.products
    ids = np.empty(n + 1, np.int32)  # one to spare for `read_pieces`
    n = read_pieces(rules, text, start, n, ids, 0)
    after = np.empty(n, np.int32)
    before = np.empty(n, np.int32)
    heap = np.empty(3 * n, np.int64)  # a merge adds two at most, and there are fewer than n merges
    held = 0
    for i in range(n):
        put(after, i, i + 1)
        put(before, i, i - 1)
    for i in range(n - 1):
        rank = rank_of(pairs, shift, at(ids, i), at(ids, i + 1))
        if rank != NEVER:
            push(heap, held, rank << 32 | i)
            held += 1
    while held > 0:
        least = at(heap, 0)
        drop_least(heap, held)
        held -= 1
        i = least & 0xFFFFFFFF
        j = at(after, i)
        if at(ids, i) == _GONE or j >= n or rank_of(pairs, shift, at(ids, i), at(ids, j)) != least >> 32:
            continue  # a neighbour was merged since this entry was made
        merged = at(products, least >> 32)
        put(ids, i, merged)
        put(ids, j, _GONE)
        k = at(after, j)
        put(after, i, k)
        if k < n:
            put(before, k, i)
            rank = rank_of(pairs, shift, merged, at(ids, k))
            if rank != NEVER:
                push(heap, held, rank << 32 | i)
                held += 1
        h = at(before, i)
        if h >= 0:
            rank = rank_of(pairs, shift, at(ids, h), merged)
            if rank != NEVER:
                push(heap, held, rank << 32 | h)
                held += 1
    count = 0
    i = 0
    while i < n:
        put(out, n_out + count, at(ids, i))
        count += 1
        i = at(after, i)
    return count


@kernel(I64(RULES, TEXT, I64, I64, I32S, I32S, I64))
def merge_word(rules: Rules, text: Array, start: int, n: int, scratch: Array, out: Array, n_out: int) -> int:
    """The ids of the word of n bytes at `start`, whole characters, to out[n_out:]; returns their number."""
    if n <= LONGEST:
        n_pieces = read_pieces(rules, text, start, n, scratch, _IDS)
        if n_pieces <= FEW:
            return merge_few(rules, n_pieces, scratch, out, n_out)
    return merge_many(rules, text, start, n, out, n_out)
