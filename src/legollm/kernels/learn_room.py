"""The state of a trainer: how it begins, and the same with more room and without what is dead."""

import numpy as np

from legollm.errors import TokenizerError
from legollm.kernels.learn_state import (
    CELLS,
    COUNT,
    END,
    FIRST,
    FREE,
    ID,
    KEY,
    LENGTH,
    MERGES,
    N_BYTE_VALUES,
    STATE,
    TABLE,
    WEIGHT,
    Side,
    State,
    Tokens,
    enter,
)
from legollm.kernels.machine import BYTES, I32S, I64S, NOTHING, PAIR, TEXT, Array, kernel

MAX_WEIGHT = 2**31 - 1
MAX_CELLS = 2**31 - 1
SLACK = 0.5
"""Room made for more, relative to what there is."""


@kernel(NOTHING(TEXT, I64S, I64S, CELLS, BYTES))
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


@kernel(NOTHING(STATE))
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
            cursor[pair] = enter(state, key, counts[pair], n_places[pair])
    for place in range(len(cells) - 1):
        left, right = cells[place, ID], cells[place + 1, ID]
        if left != END and right != END and cursor[left << 8 | right] != FREE:
            state.places[cursor[left << 8 | right]] = place
            cursor[left << 8 | right] += 1


@kernel(PAIR(TABLE))
def _count_living(pairs: Array) -> tuple[int, int]:
    n_pairs = n_places = 0
    for slot in range(len(pairs)):
        if pairs[slot, KEY] != FREE and pairs[slot, COUNT] > 1:
            n_pairs += 1
            n_places += pairs[slot, LENGTH]
    return n_pairs, n_places


@kernel(NOTHING(TABLE, I32S, STATE))
def _move(pairs: Array, places: Array, state: State) -> None:
    """Enter the living pairs and their places in a state that has none."""
    for slot in range(len(pairs)):
        if pairs[slot, KEY] != FREE and pairs[slot, COUNT] > 1:
            n = pairs[slot, LENGTH]
            to = enter(state, pairs[slot, KEY], pairs[slot, COUNT], n)
            for i in range(n):
                state.places[to + i] = places[pairs[slot, FIRST] + i]


def begin(words: Array, ends: Array, counts: Array, n_merges: int) -> State:
    """All pre-tokens as bytes, and the pairs of these.

    Raises:
        TokenizerError: the pre-tokens have more bytes than places can be numbered.
    """
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


def with_room(state: State, n_places: int) -> State:
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
