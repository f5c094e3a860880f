"""Text -> ids, compiled: cut some 500 tokens, compute their keys, then write the ids of those that are remembered.

Three loops instead of one, because each keeps the processor busy in another way: the second starts loading the cache
lines that the third reads. What is not found in its home bucket goes the long way, `encode_word`.
"""

import numpy as np

from legollm.kernels.machine import (
    I32S,
    I64,
    I64S,
    NOTHING,
    PAIR,
    TEXT,
    TRIPLE,
    Array,
    at,
    kernel,
    out_of_line,
    prefetch,
    put,
    shift_right,
)
from legollm.kernels.merging import LONGEST, merge_many, merge_word
from legollm.kernels.rules import RULES, Rules
from legollm.kernels.scan import STARTS, split_batch
from legollm.kernels.words import (
    BUCKET,
    LONG_WORDS,
    MEMORY,
    POOL,
    SHORT,
    SHORT_WORDS,
    SLOT,
    Memory,
    bucket_shift,
    find_long,
    find_short,
    hash_long,
    hash_short,
    recall_long,
    recall_short,
    remember_long,
    remember_short,
    short_key,
)

SLACK = 24
"""Places after the ids that may be overwritten."""
HEADROOM = 2048
"""Words that a table has to have room for before the next batch, unless it may not grow any more."""
POOL_HEADROOM = 1 << 16
_LONG_WORD = -1
"""In place of a bucket: the word is too long to be its own key, and its hash stands in place of the key."""


@kernel(I64(RULES, MEMORY, TEXT, I64, I64, I64, I64, I64, I32S, I64))
def encode_word(
    rules: Rules, memory: Memory, text: Array, start: int, n: int, low: int, high: int, bucket: int, out: Array,
    n_out: int,
) -> int:  # fmt: skip
    """The ids of one word to out[n_out:], remembered from now on; returns their number."""
    out_of_line()
    if bucket != _LONG_WORD:
        slot = find_short(memory.short, low, high, bucket)
        if at(memory.short, slot + 1) != 0:
            return recall_short(memory.short, memory.pool, slot, out, n_out)
        count = merge_word(rules, text, start, n, memory.scratch, out, n_out)
        remember_short(memory, slot, low, high, out, n_out, count)
        return count
    if n > LONGEST:
        return merge_many(rules, text, start, n, out, n_out)
    slot = find_long(memory, text, start, n, high)
    if at(memory.long, slot + 1) != 0:
        return recall_long(memory, slot, out, n_out)
    count = merge_word(rules, text, start, n, memory.scratch, out, n_out)
    remember_long(memory, slot, high, text, start, n, out, n_out, count)
    return count


@kernel(NOTHING(I64S, I64S, TEXT, I64, I64S, I64S, I64S, I64S))
def batch_keys(
    short: Array, long: Array, text: Array, m: int, starts: Array, lows: Array, highs: Array, buckets: Array
) -> None:
    """Keys and home buckets of m words, whose cache lines start to load."""
    out_of_line()
    shift = bucket_shift(short)
    start = at(starts, 0)
    for j in range(m):
        end = at(starts, j + 1)
        n = end - start
        if n <= SHORT:
            low, high = short_key(text, start, n)
            bucket = shift_right(hash_short(low, high), shift)
            put(lows, j, low)
            put(highs, j, high)
            put(buckets, j, bucket)
            prefetch(short, 8 * BUCKET * bucket)
        else:
            put(buckets, j, _LONG_WORD)
            if n <= LONGEST:
                mixed = hash_long(text, start, n)
                put(highs, j, mixed)
                prefetch(long, 8 * ((SLOT * mixed) & (len(long) - 1)))
        start = end


@kernel(PAIR(I64S, I32S, I64, I64, I64S, I64S, I64S, I32S, I64))
def recall_batch(
    short: Array, pool: Array, j: int, m: int, lows: Array, highs: Array, buckets: Array, out: Array, n_out: int
) -> tuple[int, int]:
    """Write the ids of words j, j + 1, ... up to m, or up to the first that is not in its home bucket.

    Returns that word and the number of ids in `out`.
    """
    out_of_line()
    while j < m:
        bucket = at(buckets, j)
        if bucket == _LONG_WORD:
            break
        low = at(lows, j)
        high = at(highs, j)
        slot = BUCKET * bucket
        # Both slots are compared before anything is decided: a wrong guess of the processor costs more than that.
        first = (at(short, slot) ^ low) | ((at(short, slot + 1) ^ high) << 4) == 0
        second = (at(short, slot + SLOT) ^ low) | ((at(short, slot + SLOT + 1) ^ high) << 4) == 0
        if not (first | second):
            break
        n_out += recall_short(short, pool, slot + SLOT * second, out, n_out)
        j += 1
    return j, n_out


@kernel(I64(MEMORY))
def is_full(memory: Memory) -> int:
    """Whether a table should grow before the next batch."""
    used = memory.used
    short_room = len(memory.short) // BUCKET - at(used, SHORT_WORDS)
    long_room = len(memory.long) // SLOT - 2 * at(used, LONG_WORDS)
    pool_room = len(memory.pool) - at(used, POOL)
    return 1 if short_room < HEADROOM or long_room < HEADROOM or pool_room < POOL_HEADROOM else 0


@kernel(TRIPLE(RULES, MEMORY, TEXT, I64S, I64, I64, I64, TEXT, I64, I32S, I64, I64S, I64))
def encode_texts(
    rules: Rules, memory: Memory, text: Array, offsets: Array, i: int, last: int, position: int, classes: Array,
    pattern: int, out: Array, n_out: int, ends: Array, may_grow: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Encode texts i to `last` (not included), text i being text[offsets[i] : offsets[i + 1]], from `position` on.

    ends[i] becomes the number of ids up to the end of text i. Stops early when `out` has no room for the next batch,
    or when a table should grow and may. Returns text, position and number of ids reached.
    """
    short, long, pool = memory.short, memory.long, memory.pool
    starts, lows = np.empty(STARTS, np.int64), np.empty(STARTS, np.int64)
    highs, buckets = np.empty(STARTS, np.int64), np.empty(STARTS, np.int64)
    while i < last:
        end = at(offsets, i + 1)
        while position < end:
            if may_grow and is_full(memory):
                return i, position, n_out
            following, m = split_batch(text, position, end, classes, pattern, starts)
            if n_out + (following - position) + SLACK > len(out):  # there can be an id for every byte
                return i, position, n_out
            position = following
            batch_keys(short, long, text, m, starts, lows, highs, buckets)
            j = 0
            while True:
                j, n_out = recall_batch(short, pool, j, m, lows, highs, buckets, out, n_out)
                if j >= m:
                    break
                start = at(starts, j)
                n_out += encode_word(
                    rules, memory, text, start, at(starts, j + 1) - start, at(lows, j), at(highs, j), at(buckets, j),
                    out, n_out,
                )  # fmt: skip
                j += 1
        put(ends, i, n_out)
        i += 1
    return i, position, n_out


@kernel(I64(TEXT, I64, I64))
def is_word(text: Array, start: int, n: int) -> int:
    """Whether a token has whole characters only, one or more: no text is cut within one."""
    end = start + n
    missing = 0
    for i in range(start, end):
        byte = at(text, i)
        if (byte & 0xC0 == 0x80) != (missing > 0):
            return 0
        missing = missing - 1 if missing else (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
    return 1 if n > 0 and missing == 0 else 0


@kernel(NOTHING(RULES, MEMORY, TEXT, I64S, I32S, I64, I32S))
def learn_tokens(rules: Rules, memory: Memory, text: Array, offsets: Array, ids: Array, whole: int, out: Array) -> None:
    """Remember the tokens of the vocabulary, token i being text[offsets[i] : offsets[i + 1]], as the words they are.

    whole: a word that is a token has that token's id, whatever the merges say; then long ones are remembered, too.
    """
    shift = bucket_shift(memory.short)
    for i in range(len(ids)):
        start = at(offsets, i)
        n = at(offsets, i + 1) - start
        put(out, 0, at(ids, i))
        if not is_word(text, start, n):
            continue
        if n <= SHORT:
            low, high = short_key(text, start, n)
            slot = find_short(memory.short, low, high, shift_right(hash_short(low, high), shift))
            count = 1 if whole else merge_word(rules, text, start, n, memory.scratch, out, 0)
            remember_short(memory, slot, low, high, out, 0, count)
        elif whole:
            mixed = hash_long(text, start, n)
            remember_long(memory, find_long(memory, text, start, n, mixed), mixed, text, start, n, out, 0, 1)
