"""The learning half of byte-pair encoding, compiled: exact counts of all pairs, kept while pairs are merged.

Sennrich, Haddow and Birch 2016, arXiv:1508.07909. Same merges as legollm.tokenizers.learn_merges.learn_in_python.

All pre-tokens lie in one row of cells, a byte each. A token is written in its first and in its last cell, so that both
neighbours of any place are one step away and nothing ever moves. Each pair that occurs twice has a count and a list of
places, and stands in a queue, the most frequent first. One merge is:

1. take the first pair from the queue (`_merge`);
2. join it in all its places, adding up for each neighbour what its pairs lose and gain (`_join`, a `Side` each way);
3. book the sums: lower the counts of the pairs that lost, enter the pairs that came into being (`_book`).

After the merge that made it a pair can only lose, for a new token stands only where that merge put it. So counts in the
queue may be outdated: they are upper bounds, put right when they come up. A pair that no longer occurs twice is dead
and leaves when room is made. And no two tokens have the same bytes: what lies between two token boundaries is merged as
it would be alone, so equal bytes are always cut alike.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types

from legollm.errors import TokenizerError
from legollm.kernels.machine import (
    BYTES,
    I32S,
    I64,
    I64S,
    NOTHING,
    PAIR,
    TEXT,
    Array,
    kernel,
    prefetch,
    shift_right,
    wrap_multiply,
)

N_BYTE_VALUES = 256
END = -1
"""In the cells around each pre-token."""
GONE = -2
"""In a cell where a token began that now is the right half of another."""
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
ENOUGH, NO_PAIR_LEFT, NO_ROOM_LEFT = 0, 1, 2
"""Why `_merge` stopped."""

MAX_WEIGHT = 2**31 - 1
MAX_CELLS = 2**31 - 1
FANOUT = 4  # of the queue's heap: four children lie in one cache line, and it is half as deep as with two
CELLS_AHEAD = 16  # asked for before they are needed: each would cost a wait for memory
PAIRS_AHEAD = 6
PREFIX = 8  # bytes of a token that are compared at once
HASH = 0x9E3779B97F4A7C15 - 2**64  # 2**64 over the golden ratio, signed: products are spread over the upper bits
PROGRESS_EVERY = 256  # merges
SLACK = 0.5
"""Room made for more, relative to what there is."""


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


_CELLS, _TABLE = types.int32[:, ::1], types.int64[:, ::1]
_named_tuple: Any = types.NamedTuple
_named_uni_tuple: Any = types.NamedUniTuple  # numba's own word for one whose fields are all of one type
_TOKENS = _named_tuple((_CELLS, I64S, I64S, I64S, BYTES), Tokens)
_SIDE = _named_uni_tuple(I64S, 7, Side)
_STATE = _named_tuple((_CELLS, _TOKENS, _TABLE, _TABLE, I32S, _SIDE, _SIDE, I64S), State)


# ---- the table of pairs ---------------------------------------------------------------------------------------------


@kernel(I64(_TABLE, I64))
def _home(pairs: Array, key: int) -> int:
    product = wrap_multiply(key, HASH)
    return (product ^ shift_right(product, 32)) & (len(pairs) - 1)


@kernel(I64(_TABLE, I64))
def _find(pairs: Array, key: int) -> int:
    """The slot that holds `key`, or the free one where it would go."""
    slot = _home(pairs, key)
    while pairs[slot, KEY] != key and pairs[slot, KEY] != FREE:
        slot = (slot + 1) & (len(pairs) - 1)
    return slot


# ---- the queue ------------------------------------------------------------------------------------------------------


@kernel(I64(_TOKENS, I64, I64))
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


@kernel(types.boolean(_TOKENS, I64, I64, I64, I64))
def _precedes(tokens: Tokens, count: int, key: int, other_count: int, other_key: int) -> bool:
    """The tie rule: the higher count, among equals the greater pair of byte strings."""
    if count != other_count:
        return count > other_count
    order = _compare(tokens, key >> 32, other_key >> 32)
    if order == 0:
        order = _compare(tokens, key & LOW_HALF, other_key & LOW_HALF)
    return order > 0


@kernel(NOTHING(_STATE, I64, I64))
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


@kernel(NOTHING(_STATE, I64, I64))
def _replace_first(state: State, count: int, key: int) -> None:
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


@kernel(NOTHING(_STATE))
def _drop_first(state: State) -> None:
    state.used[QUEUED] -= 1
    last = state.used[QUEUED]
    if last > 0:
        _replace_first(state, state.queue[last, 0], state.queue[last, 1])


@kernel(I64(_STATE, I64, I64, I64))
def _enter(state: State, key: int, count: int, n_places: int) -> int:
    """Book a new pair; where in the list of places its own begin."""
    first = state.used[PLACES]
    slot = _find(state.pairs, key)
    state.pairs[slot, KEY], state.pairs[slot, COUNT] = key, count
    state.pairs[slot, FIRST], state.pairs[slot, LENGTH] = first, n_places
    _push(state, count, key)
    state.used[PAIRS] += 1
    state.used[PLACES] += n_places
    return first  # type: ignore[no-any-return]


# ---- before the first merge -----------------------------------------------------------------------------------------


@kernel(NOTHING(TEXT, I64S, I64S, _CELLS, BYTES))
def _lay_out(words: Array, ends: Array, counts: Array, cells: Array, text: Array) -> None:
    """Write the pre-tokens of two bytes and more into the cells, and their bytes into `text`."""
    cells[0, ID], cells[0, WEIGHT], text[0] = END, 0, 0
    n, start = 1, 0
    for word in range(len(ends)):
        end, rest = ends[word], counts[word]
        while rest > 0 and end - start > 1:  # what is more than a weight can say is said by several copies
            weight = min(rest, MAX_WEIGHT)
            rest -= weight
            for i in range(start, end):
                cells[n, ID], cells[n, WEIGHT], text[n] = words[i], weight, words[i]
                n += 1
            cells[n, ID], cells[n, WEIGHT], text[n] = END, 0, 0
            n += 1
        start = end


@kernel(NOTHING(_TOKENS, I64))
def _set_prefix(tokens: Tokens, token: int) -> None:
    prefix = 0
    for i in range(PREFIX):
        byte = tokens.text[tokens.example[token] + i] if i < tokens.length[token] else 0
        prefix = prefix << 8 | byte
    tokens.prefix[token] = prefix ^ -(2**63)  # as a signed number, a first byte of 0x80 were less than one of 0x7f


@kernel(NOTHING(_STATE))
def _enter_byte_pairs(state: State) -> None:
    """The pairs before any merge; their places are sorted by counting."""
    cells = state.cells
    counts = np.zeros(1 << 16, np.int64)
    n_places = np.zeros(1 << 16, np.int64)
    for place in range(len(cells) - 1):
        left, right = cells[place, ID], cells[place + 1, ID]
        if left != END and right != END:
            counts[left << 8 | right] += cells[place, WEIGHT]
            n_places[left << 8 | right] += 1
    cursor = np.full(1 << 16, FREE, np.int64)
    for pair in range(1 << 16):
        if counts[pair] > 1:
            key = (pair >> 8) << 32 | (pair & 255)
            cursor[pair] = _enter(state, key, counts[pair], n_places[pair])
    for place in range(len(cells) - 1):
        left, right = cells[place, ID], cells[place + 1, ID]
        if left != END and right != END and cursor[left << 8 | right] != FREE:
            state.places[cursor[left << 8 | right]] = place
            cursor[left << 8 | right] += 1


# ---- one merge ------------------------------------------------------------------------------------------------------


@kernel(NOTHING(_SIDE, I64, I64, I64))
def _meet(side: Side, neighbour: int, place: int, weight: int) -> None:
    if side.n_places[neighbour] == 0:
        side.neighbours[side.used[NEIGHBOURS]] = neighbour
        side.used[NEIGHBOURS] += 1
    side.n_places[neighbour] += 1
    side.lost[neighbour] += weight
    side.gained[neighbour] += weight
    side.meetings[side.used[MEETINGS]] = neighbour << 32 | place
    side.used[MEETINGS] += 1


@kernel(NOTHING(_STATE, I64, I64, I64))
def _join(state: State, new: int, start: int, stop: int) -> None:
    """Write token `new` where its halves stand next to each other, from left to right."""
    cells, places, length = state.cells, state.places, state.tokens.length
    left, right = state.tokens.halves[new, 0], state.tokens.halves[new, 1]
    for t in range(start, stop):
        if t + CELLS_AHEAD < stop:
            prefetch(cells, 8 * places[t + CELLS_AHEAD])
        first = places[t]
        if cells[first, ID] != left:
            continue
        second = first + length[left]
        if cells[second, ID] != right:
            continue
        behind = second + length[right]
        weight, before, after = cells[first, WEIGHT], cells[first - 1, ID], cells[behind, ID]
        cells[second, ID] = GONE
        cells[first, ID] = cells[behind - 1, ID] = new
        if before != END:
            _meet(state.left, before, first - length[before], weight)
        if after != END:
            _meet(state.right, after, first, weight)
    # Where `new` stands before `new`, it was counted as standing before `left`, which is no more.
    state.right.gained[left] -= state.left.lost[new]


@kernel(NOTHING(_STATE, _SIDE, I64, I64, I64))
def _book(state: State, side: Side, shift: int, old: int, new: int) -> None:
    """Enter one side of a merge: its neighbours were in pairs with `old` and now are in pairs with `new`.

    A key is made of either and of the neighbour shifted left by `shift` bits.
    """
    pairs = state.pairs
    n_neighbours = side.used[NEIGHBOURS]
    for t in range(n_neighbours):
        if t + PAIRS_AHEAD < n_neighbours:
            soon = side.neighbours[t + PAIRS_AHEAD] << shift
            prefetch(pairs, 32 * _home(pairs, soon | old))
            prefetch(pairs, 32 * _home(pairs, soon | new))
        neighbour = side.neighbours[t]
        slot = _find(pairs, neighbour << shift | old)
        if pairs[slot, KEY] != FREE:  # else it never occurred twice, or no more
            pairs[slot, COUNT] -= side.lost[neighbour]
        side.cursor[neighbour] = FREE
        if side.gained[neighbour] > 1:
            key = neighbour << shift | new
            side.cursor[neighbour] = _enter(state, key, side.gained[neighbour], side.n_places[neighbour])
        side.lost[neighbour] = side.gained[neighbour] = side.n_places[neighbour] = 0
    for t in range(side.used[MEETINGS]):
        neighbour = side.meetings[t] >> 32
        if side.cursor[neighbour] != FREE:
            state.places[side.cursor[neighbour]] = side.meetings[t] & LOW_HALF
            side.cursor[neighbour] += 1
    side.used[:] = 0


@kernel(PAIR(_STATE, I64))
def _merge(state: State, n_merges: int) -> tuple[int, int]:
    """Merge until there are n_merges; why it stopped, and how many places the next merge has if it has no room."""
    tokens, used, pairs = state.tokens, state.used, state.pairs
    while used[MERGES] < n_merges:
        if used[QUEUED] == 0:
            return NO_PAIR_LEFT, 0
        key = state.queue[0, 1]
        slot = _find(pairs, key)
        count = pairs[slot, COUNT]
        if count < 2:
            _drop_first(state)
            continue
        if count < state.queue[0, 0]:
            _replace_first(state, count, key)
            continue
        start, n_places = pairs[slot, FIRST], pairs[slot, LENGTH]
        new = N_BYTE_VALUES + used[MERGES]
        if (
            used[PLACES] + 2 * n_places > len(state.places)
            or used[PAIRS] + 2 * min(n_places, new + 1) > len(state.queue)
            or n_places > len(state.left.meetings)
        ):
            return NO_ROOM_LEFT, n_places
        _drop_first(state)
        pairs[slot, COUNT] = 0
        left, right = key >> 32, key & LOW_HALF
        tokens.halves[new, 0], tokens.halves[new, 1] = left, right
        tokens.length[new] = tokens.length[left] + tokens.length[right]
        tokens.example[new] = state.places[start]
        _set_prefix(tokens, new)
        _join(state, new, start, start + n_places)
        # The left side first: where `new` stands before `new` it finds no (new, left) to lower, which the right enters.
        _book(state, state.left, 32, left, new)
        _book(state, state.right, 0, right << 32, new << 32)
        used[MERGES] += 1
    return ENOUGH, 0


@kernel(PAIR(_TABLE))
def _count_living(pairs: Array) -> tuple[int, int]:
    n_pairs = n_places = 0
    for slot in range(len(pairs)):
        if pairs[slot, KEY] != FREE and pairs[slot, COUNT] > 1:
            n_pairs += 1
            n_places += pairs[slot, LENGTH]
    return n_pairs, n_places


@kernel(NOTHING(_TABLE, I32S, _STATE))
def _move(pairs: Array, places: Array, state: State) -> None:
    """Enter the living pairs and their places in a state that has none."""
    for slot in range(len(pairs)):
        if pairs[slot, KEY] != FREE and pairs[slot, COUNT] > 1:
            n = pairs[slot, LENGTH]
            to = _enter(state, pairs[slot, KEY], pairs[slot, COUNT], n)
            for i in range(n):
                state.places[to + i] = places[pairs[slot, FIRST] + i]


# ---- all of it ------------------------------------------------------------------------------------------------------


def learn(
    words: Array, ends: Array, counts: Array, n_merges: int, *, progress: Callable[[int, int], None] | None = None
) -> Array:
    """The pairs to merge in rank order: (M, 2) int32 of ids, M < n_merges if no pair is left that occurs twice.

    words: uint8, all different pre-tokens one after the other; ends, counts: int64, where each ends and how often it
    occurs. progress: called now and then with merges learned and merges wanted.

    Raises:
        TokenizerError: the pre-tokens have more bytes than places can be numbered.
    """
    state = _begin(words, ends, counts, n_merges)
    n_merges = min(n_merges, len(state.cells))  # each takes a cell out of use
    wanted = 0
    while wanted < n_merges:
        wanted = n_merges if progress is None else min(wanted + PROGRESS_EVERY, n_merges)
        outcome, n_places = _merge(state, wanted)
        while outcome == NO_ROOM_LEFT:
            state = _with_room(state, n_places)
            outcome, n_places = _merge(state, wanted)
        if progress is not None:
            progress(int(state.used[MERGES]), n_merges)
        if outcome == NO_PAIR_LEFT:
            break
    return state.tokens.halves[N_BYTE_VALUES : N_BYTE_VALUES + int(state.used[MERGES])].copy()


def _begin(words: Array, ends: Array, counts: Array, n_merges: int) -> State:
    lengths = np.diff(ends, prepend=0)
    n_copies = -(-counts // MAX_WEIGHT)
    n_cells = 1 + int(((lengths + 1) * n_copies)[lengths > 1].sum())
    if n_cells > MAX_CELLS:
        raise TokenizerError(
            f"the different words of these texts have {n_cells:,} bytes, of which {MAX_CELLS:,} can be learned from; "
            "take a part of the texts, or a pattern that cuts shorter words"
        )
    cells = np.empty((n_cells, 2), np.int32)
    text = np.empty(n_cells, np.uint8)
    _lay_out(words, ends, counts, cells, text)
    size = N_BYTE_VALUES + min(n_merges, n_cells)
    state = State(
        cells=cells,
        tokens=_byte_tokens(size, text),
        pairs=_no_pairs(1 << 17),
        queue=np.empty((1 << 16, 2), np.int64),
        places=np.empty(int((1 + SLACK) * n_cells), np.int32),
        left=_empty_side(size),
        right=_empty_side(size),
        used=np.zeros(4, np.int64),
    )
    _enter_byte_pairs(state)
    return state


def _byte_tokens(size: int, text: Array) -> Tokens:
    one_byte = np.arange(size, dtype=np.int64)
    return Tokens(
        halves=np.zeros((size, 2), np.int32),
        length=np.ones(size, np.int64),
        example=np.zeros(size, np.int64),
        prefix=(one_byte - 128) << 56,
        text=text,
    )


def _empty_side(size: int) -> Side:
    lost, gained, n_places, cursor, neighbours = np.zeros((5, size), np.int64)
    return Side(lost, gained, n_places, cursor, neighbours, np.empty(1 << 12, np.int64), np.zeros(2, np.int64))


def _no_pairs(n_slots: int) -> Array:
    pairs = np.empty((n_slots, 4), np.int64)
    pairs[:, KEY] = FREE
    return pairs


def _with_room(state: State, n_places: int) -> State:
    """The same without dead pairs, and with room for a merge that has n_places."""
    living_pairs, living_places = _count_living(state.pairs)
    n_pairs = int((1 + SLACK) * living_pairs) + 2 * min(n_places, len(state.tokens.length))
    half = 1 << (n_pairs - 1).bit_length()
    n_meetings = max(len(state.left.meetings), int((1 + SLACK) * n_places))
    roomy = state._replace(
        pairs=_no_pairs(2 * half),
        queue=np.empty((half, 2), np.int64),
        places=np.empty(int((1 + SLACK) * living_places) + 2 * n_places, np.int32),
        left=state.left._replace(meetings=np.empty(n_meetings, np.int64)),
        right=state.right._replace(meetings=np.empty(n_meetings, np.int64)),
        used=np.array([state.used[MERGES], 0, 0, 0]),
    )
    _move(state.pairs, state.places, roomy)
    return roomy
