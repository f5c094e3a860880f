"""The memory of pre-tokens seen before: bytes -> ids, in two open-addressing tables that a cache line answers.

Text repeats its words, so nearly all the time of encoding goes into this look-up. A word of up to 15 bytes is its own
key, two whole numbers: its bytes, and in the top byte of the second one its length. Longer words are found by a hash
and compared byte by byte. The slow definition of all this is a Python dictionary.
"""

from typing import NamedTuple

import numpy as np

from legollm.kernels.machine import (
    I32S,
    I64,
    I64S,
    NOTHING,
    PAIR,
    TEXT,
    Array,
    at,
    copy16,
    kernel,
    leading_zeros,
    load64,
    out_of_line,
    put,
    record,
    shift_right,
    store64,
    wrap_multiply,
)

SHORT = 15
"""Bytes of the longest word that is its own key."""
INLINE = 4
"""Ids that a slot holds itself; more lie in the pool."""
IN_POOL = 15
"""In place of the number of ids: the slot holds their place in the pool and their number instead."""

SLOT = 4
"""Whole numbers a slot takes. Of a short word: 8 bytes, 7 bytes with length (4 bits) and number of ids (4 bits), then
two for the ids. Of a long word: hash, length, number of ids, place in the pool; there the ids come first, then the
bytes."""
BUCKET = 2 * SLOT
"""Two slots are one cache line. A word is in its home bucket, or in the first free slot after it."""

SHORT_WORDS, LONG_WORDS, POOL = range(3)
"""What `used` counts: words in each table, and values in the pool."""


class Memory(NamedTuple):
    """What one thread remembers."""

    short: Array
    """int64, SLOT for each slot; a power of two of buckets. Empty slots are zero."""
    long: Array
    """int64, SLOT for each slot; a power of two of slots. Empty slots are zero."""
    pool: Array
    """int32: ids that do not fit into slots, and the bytes of long words."""
    used: Array
    """int64, how much of it is in use: SHORT_WORDS, LONG_WORDS, POOL."""
    scratch: Array
    """int32, room for `merging`."""


MEMORY = record([I64S, I64S, I32S, I64S, I32S], Memory)

_K1, _K2 = -7046029254386353131, -4417276706812531889
"""Odd numbers with well-mixed bits (2**64 over the golden ratio is the first): to multiply hashes with."""
_LOW = np.array([-1 if n >= 8 else (1 << 8 * n) - 1 for n in range(SHORT + 1)], np.int64)
_HIGH = np.array([0 if n <= 8 else (1 << 8 * (n - 8)) - 1 for n in range(SHORT + 1)], np.int64)
"""The bytes that belong to a word of n bytes, in the first and in the second whole number of its key."""


@kernel(PAIR(TEXT, I64, I64))
def short_key(text: Array, start: int, n: int) -> tuple[int, int]:
    """The key of the word of n <= SHORT bytes at `start`."""
    return load64(text, start) & at(_LOW, n), load64(text, start + 8) & at(_HIGH, n) | (n << 56)


@kernel(I64(I64, I64))
def hash_short(low: int, high: int) -> int:
    """64 bits of which the top ones are mixed best."""
    mixed = wrap_multiply(low ^ wrap_multiply(high, _K2), _K1)
    return wrap_multiply(mixed ^ shift_right(mixed, 32), _K2)


@kernel(I64(TEXT, I64, I64))
def hash_long(text: Array, start: int, n: int) -> int:
    """64 bits that are all mixed well."""
    mixed = n
    here = start
    end = start + n
    while here + 8 <= end:
        mixed = wrap_multiply(mixed ^ load64(text, here), _K1)
        mixed ^= shift_right(mixed, 29)
        here += 8
    if here < end:
        mixed = wrap_multiply(mixed ^ (load64(text, here) & ((1 << (8 * (end - here))) - 1)), _K1)
    mixed = wrap_multiply(mixed ^ shift_right(mixed, 32), _K2)
    return mixed ^ shift_right(mixed, 30)


@kernel(I64(I64S))
def bucket_shift(short: Array) -> int:
    """How far to move a hash down for the number of a bucket."""
    return leading_zeros((len(short) // BUCKET) - 1)


@kernel(I64(I64S, I64, I64, I64))
def find_short(short: Array, low: int, high: int, bucket: int) -> int:
    """The slot of a word, or the free one where it belongs."""
    slot = BUCKET * bucket
    last = len(short) - 1
    while True:
        held = at(short, slot + 1)
        if held == 0 or (((held ^ high) << 4) == 0 and at(short, slot) == low):
            return slot
        slot = (slot + SLOT) & last


@kernel(I64(I64S, I32S, I64, I32S, I64))
def recall_short(short: Array, pool: Array, slot: int, out: Array, n_out: int) -> int:
    """Write the ids of a word in its slot to out[n_out:]; up to 16 places after them are overwritten, too."""
    n = shift_right(at(short, slot + 1), 60)
    if n <= INLINE:
        copy16(out, 4 * n_out, short, 8 * (slot + 2))
        return n
    place = at(short, slot + 2)
    for i in range(0, 16, 4):
        copy16(out, 4 * (n_out + i), pool, 4 * (place + i))
    return at(short, slot + 3)


@kernel(NOTHING(MEMORY, I64, I64, I64, I32S, I64, I64))
def remember_short(memory: Memory, slot: int, low: int, high: int, out: Array, first: int, n: int) -> None:
    """Put a word with the ids out[first : first + n] into a free slot, if there is room; out has 4 places to spare."""
    used = memory.used
    if at(used, SHORT_WORDS) >= len(memory.short) // BUCKET or at(used, POOL) + n + 16 > len(memory.pool):
        return
    put(used, SHORT_WORDS, at(used, SHORT_WORDS) + 1)
    put(memory.short, slot, low)
    if n <= INLINE:
        put(memory.short, slot + 1, high | (n << 60))
        copy16(memory.short, 8 * (slot + 2), out, 4 * first)
        return
    put(memory.short, slot + 1, high | (IN_POOL << 60))
    place = at(used, POOL)
    for i in range(n):
        put(memory.pool, place + i, at(out, first + i))
    put(used, POOL, place + n)
    put(memory.short, slot + 2, place)
    put(memory.short, slot + 3, n)


@kernel(I64(TEXT, I64, I32S, I64, I64))
def same_bytes(text: Array, start: int, pool: Array, place: int, n: int) -> int:
    """Whether n bytes of the text are those at byte `place` of the pool."""
    i = 0
    while i + 8 <= n:
        if load64(text, start + i) != load64(pool, place + i):
            return 0
        i += 8
    if i < n and (load64(text, start + i) ^ load64(pool, place + i)) << (64 - 8 * (n - i)):
        return 0
    return 1


@kernel(I64(MEMORY, TEXT, I64, I64, I64))
def find_long(memory: Memory, text: Array, start: int, n: int, mixed: int) -> int:
    """The slot of the word of n bytes at `start` that has this hash, or the free one where it belongs."""
    long = memory.long
    last = len(long) - 1
    slot = (SLOT * mixed) & last
    while at(long, slot + 1) != 0:
        if at(long, slot) == mixed and at(long, slot + 1) == n:
            its_bytes = 4 * (at(long, slot + 3) + at(long, slot + 2))
            if same_bytes(text, start, memory.pool, its_bytes, n):
                break
        slot = (slot + SLOT) & last
    return slot


@kernel(I64(MEMORY, I64, I32S, I64))
def recall_long(memory: Memory, slot: int, out: Array, n_out: int) -> int:
    """Write the ids of a long word to out[n_out:]; up to 3 places after them are overwritten, too."""
    n = at(memory.long, slot + 2)
    place = at(memory.long, slot + 3)
    for i in range(0, n, 4):
        copy16(out, 4 * (n_out + i), memory.pool, 4 * (place + i))
    return n


@kernel(NOTHING(MEMORY, I64, I64, TEXT, I64, I64, I32S, I64, I64))
def remember_long(
    memory: Memory, slot: int, mixed: int, text: Array, start: int, length: int, out: Array, first: int, n: int
) -> None:
    """Put the word text[start : start + length] with the ids out[first : first + n] into a free slot, if there is room.

    The text must go on for 7 bytes.
    """
    used = memory.used
    place = at(used, POOL)
    if 2 * at(used, LONG_WORDS) >= len(memory.long) // SLOT or place + n + (length >> 2) + 16 > len(memory.pool):
        return
    put(used, LONG_WORDS, at(used, LONG_WORDS) + 1)
    put(memory.long, slot, mixed)
    put(memory.long, slot + 1, length)
    put(memory.long, slot + 2, n)
    put(memory.long, slot + 3, place)
    for i in range(n):
        put(memory.pool, place + i, at(out, first + i))
    for i in range(0, length, 8):
        store64(memory.pool, 4 * (place + n) + i, load64(text, start + i))
    put(used, POOL, place + n + 2 * ((length + 7) >> 3))


@kernel(NOTHING(I64S, I64S))
def move_short(old: Array, new: Array) -> None:
    """Move all words to a larger, empty table."""
    out_of_line()
    shift = bucket_shift(new)
    for slot in range(0, len(old), SLOT):
        high = at(old, slot + 1)
        if high != 0:
            key = shift_right(high << 4, 4)  # without the number of ids
            to = find_short(new, at(old, slot), key, shift_right(hash_short(at(old, slot), key), shift))
            for i in range(SLOT):
                put(new, to + i, at(old, slot + i))


@kernel(NOTHING(I64S, I64S))
def move_long(old: Array, new: Array) -> None:
    """Move all words to a larger, empty table."""
    out_of_line()
    last = len(new) - 1
    for slot in range(0, len(old), SLOT):
        if at(old, slot + 1) != 0:
            to = (SLOT * at(old, slot)) & last
            while at(new, to + 1) != 0:
                to = (to + SLOT) & last
            for i in range(SLOT):
                put(new, to + i, at(old, slot + i))
