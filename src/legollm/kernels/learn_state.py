"""What the learning half of byte-pair encoding keeps: cells, tokens, the table of pairs and the queue of pairs.

`legollm.kernels.learn` says what for, and changes them. Here is their layout, and what concerns one pair: finding it
in the table, its place in the queue, entering it in both.
"""

from typing import Any, NamedTuple

from numba import types

from legollm.kernels.machine import BYTES, I32S, I64, I64S, NOTHING, Array, kernel, shift_right, wrap_multiply

N_BYTE_VALUES = 256
END = -1
"""In the cells around each pre-token."""
ID, WEIGHT = 0, 1
"""Columns of the cells: the token that begins or ends here, and how often its pre-token occurs."""
KEY, COUNT, FIRST, LENGTH = 0, 1, 2, 3
"""Columns of the pairs: left << 32 | right, occurrences, and where in the list of places its own are."""
FREE = -1
"""The key of an empty slot, and the cursor of a pair that is not kept."""
LOW_HALF = 0xFFFFFFFF
MERGES, PAIRS, PLACES, QUEUED = 0, 1, 2, 3
"""Entries of State.used: how many there are of each."""
NEIGHBOURS, MEETINGS = 0, 1
"""Entries of Side.used."""

FANOUT = 4  # of the queue's heap: four children lie in one cache line, and it is half as deep as with two
PREFIX = 8  # bytes of a token that are compared at once
HASH = 0x9E3779B97F4A7C15 - 2**64  # 2**64 over the golden ratio, signed: products are spread over the upper bits


class Tokens(NamedTuple):
    """What is known of each token, the 256 bytes first."""

    halves: Array
    """(V, 2) int32: the tokens it was made of."""
    length: Array
    """(V,) int64, in bytes."""
    example: Array
    """(V,) int64: a place in `text` where its bytes are."""
    prefix: Array
    """(V,) int64: its first eight bytes as a number, ordered as they are."""
    text: Array
    """(cells,) uint8: the bytes that stood in the cells in the beginning."""


class Side(NamedTuple):
    """What one merge changes on its left or on its right, by neighbour; all zeros between merges."""

    lost: Array
    """(V,) int64: occurrences of the neighbour with the half next to it."""
    gained: Array
    """(V,) int64: occurrences of the neighbour with the new token."""
    n_places: Array
    """(V,) int64: places of these; more than occurrences or fewer, as pre-tokens have weights and places get old."""
    cursor: Array
    """(V,) int64: where in the list of places the next one goes."""
    neighbours: Array
    """(V,) int64: those met, each once."""
    meetings: Array
    """int64: neighbour << 32 | place of the new pair, in order."""
    used: Array
    """(2,) int64: how many neighbours and meetings there are."""


class State(NamedTuple):
    """All that merging reads and writes."""

    cells: Array
    """(cells, 2) int32."""
    tokens: Tokens
    pairs: Array
    """(slots, 4) int64: a hash table with open addressing, never more than half full."""
    queue: Array
    """(slots // 2, 2) int64: a heap of (count or more, key)."""
    places: Array
    """int32: of the left token; those of a pair ascend, and some may be outdated."""
    left: Side
    right: Side
    used: Array


CELLS, TABLE = types.int32[:, ::1], types.int64[:, ::1]
_named_tuple: Any = types.NamedTuple
_named_uni_tuple: Any = types.NamedUniTuple  # numba's own word for one whose fields are all of one type
TOKENS = _named_tuple((CELLS, I64S, I64S, I64S, BYTES), Tokens)
SIDE = _named_uni_tuple(I64S, 7, Side)
STATE = _named_tuple((CELLS, TOKENS, TABLE, TABLE, I32S, SIDE, SIDE, I64S), State)


# ---- the table of pairs ---------------------------------------------------------------------------------------------


@kernel(I64(TABLE, I64))
def home(pairs: Array, key: int) -> int:
    product = wrap_multiply(key, HASH)
    return (product ^ shift_right(product, 32)) & (len(pairs) - 1)


@kernel(I64(TABLE, I64))
def find(pairs: Array, key: int) -> int:
    """The slot that holds `key`, or the free one where it would go."""
    slot = home(pairs, key)
    while pairs[slot, KEY] != key and pairs[slot, KEY] != FREE:
        slot = (slot + 1) & (len(pairs) - 1)
    return slot


# ---- the queue ------------------------------------------------------------------------------------------------------


@kernel(I64(TOKENS, I64, I64))
def _compare(tokens: Tokens, a: int, b: int) -> int:
    """Negative, zero or positive as the bytes of token a are less than, equal to or greater than those of b."""
    if a == b:
        return 0
    if tokens.prefix[a] != tokens.prefix[b]:
        return 1 if tokens.prefix[a] > tokens.prefix[b] else -1
    for i in range(PREFIX, min(tokens.length[a], tokens.length[b])):
        byte_a, byte_b = tokens.text[tokens.example[a] + i], tokens.text[tokens.example[b] + i]
        if byte_a != byte_b:
            return 1 if byte_a > byte_b else -1
    return tokens.length[a] - tokens.length[b]  # type: ignore[no-any-return]


@kernel(types.boolean(TOKENS, I64, I64, I64, I64))
def _precedes(tokens: Tokens, count: int, key: int, other_count: int, other_key: int) -> bool:
    """The tie rule: the higher count, among equals the greater pair of byte strings."""
    if count != other_count:
        return count > other_count
    order = _compare(tokens, key >> 32, other_key >> 32)
    if order == 0:
        order = _compare(tokens, key & LOW_HALF, other_key & LOW_HALF)
    return order > 0


@kernel(NOTHING(STATE, I64, I64))
def _push(state: State, count: int, key: int) -> None:
    queue = state.queue
    hole = state.used[QUEUED]
    state.used[QUEUED] += 1
    while hole > 0:
        parent = (hole - 1) // FANOUT
        if not _precedes(state.tokens, count, key, queue[parent, 0], queue[parent, 1]):
            break
        queue[hole, 0], queue[hole, 1] = queue[parent, 0], queue[parent, 1]
        hole = parent
    queue[hole, 0], queue[hole, 1] = count, key


@kernel(NOTHING(STATE, I64, I64))
def replace_first(state: State, count: int, key: int) -> None:
    """Put a pair in the place of the first one."""
    queue, n = state.queue, state.used[QUEUED]
    hole = 0
    while True:
        child = FANOUT * hole + 1
        if child >= n:
            break
        best = child
        for sibling in range(child + 1, min(child + FANOUT, n)):
            if _precedes(state.tokens, queue[sibling, 0], queue[sibling, 1], queue[best, 0], queue[best, 1]):
                best = sibling
        if not _precedes(state.tokens, queue[best, 0], queue[best, 1], count, key):
            break
        queue[hole, 0], queue[hole, 1] = queue[best, 0], queue[best, 1]
        hole = best
    queue[hole, 0], queue[hole, 1] = count, key


@kernel(NOTHING(STATE))
def drop_first(state: State) -> None:
    state.used[QUEUED] -= 1
    last = state.used[QUEUED]
    if last > 0:
        replace_first(state, state.queue[last, 0], state.queue[last, 1])


@kernel(NOTHING(TOKENS, I64))
def set_prefix(tokens: Tokens, token: int) -> None:
    """Write down the first bytes of a token whose length and example are known."""
    prefix = 0
    for i in range(PREFIX):
        byte = tokens.text[tokens.example[token] + i] if i < tokens.length[token] else 0
        prefix = prefix << 8 | byte
    tokens.prefix[token] = prefix ^ -(2**63)  # as a signed number, a first byte of 0x80 were less than one of 0x7f


@kernel(I64(STATE, I64, I64, I64))
def enter(state: State, key: int, count: int, n_places: int) -> int:
    """Book a new pair; where in the list of places its own begin."""
    first = state.used[PLACES]
    slot = find(state.pairs, key)
    state.pairs[slot, KEY], state.pairs[slot, COUNT] = key, count
    state.pairs[slot, FIRST], state.pairs[slot, LENGTH] = first, n_places
    _push(state, count, key)
    state.used[PAIRS] += 1
    state.used[PLACES] += n_places
    return first  # type: ignore[no-any-return]
