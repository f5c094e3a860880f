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

from legollm.kernels.learn_room import begin, with_room
from legollm.kernels.learn_state import (
    COUNT,
    END,
    FIRST,
    FREE,
    ID,
    KEY,
    LENGTH,
    LOW_HALF,
    MEETINGS,
    MERGES,
    N_BYTE_VALUES,
    NEIGHBOURS,
    PAIRS,
    PLACES,
    QUEUED,
    SIDE,
    STATE,
    WEIGHT,
    Side,
    State,
    drop_first,
    enter,
    find,
    home,
    replace_first,
    set_prefix,
)
from legollm.kernels.machine import I64, NOTHING, PAIR, Array, kernel, prefetch

GONE = -2
"""In a cell where a token began that now is the right half of another."""
ENOUGH, NO_PAIR_LEFT, NO_ROOM_LEFT = 0, 1, 2
"""Why `_merge` stopped."""
CELLS_AHEAD = 16  # asked for before they are needed: each would cost a wait for memory
PAIRS_AHEAD = 6
PROGRESS_EVERY = 256  # merges


@kernel(NOTHING(SIDE, I64, I64, I64))
def _meet(side: Side, neighbour: int, place: int, weight: int) -> None:
    if side.n_places[neighbour] == 0:
        side.neighbours[side.used[NEIGHBOURS]] = neighbour
        side.used[NEIGHBOURS] += 1
    side.n_places[neighbour] += 1
    side.lost[neighbour] += weight
    side.gained[neighbour] += weight
    side.meetings[side.used[MEETINGS]] = neighbour << 32 | place
    side.used[MEETINGS] += 1


@kernel(NOTHING(STATE, I64, I64, I64))
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


@kernel(NOTHING(STATE, SIDE, I64, I64, I64))
def _book(state: State, side: Side, shift: int, old: int, new: int) -> None:
    """Enter one side of a merge: its neighbours were in pairs with `old` and now are in pairs with `new`.

    A key is made of either and of the neighbour shifted left by `shift` bits.
    """
    pairs = state.pairs
    n_neighbours = side.used[NEIGHBOURS]
    for t in range(n_neighbours):
        if t + PAIRS_AHEAD < n_neighbours:
            soon = side.neighbours[t + PAIRS_AHEAD] << shift
            prefetch(pairs, 32 * home(pairs, soon | old))
            prefetch(pairs, 32 * home(pairs, soon | new))
        neighbour = side.neighbours[t]
        slot = find(pairs, neighbour << shift | old)
        if pairs[slot, KEY] != FREE:  # else it never occurred twice, or no more
            pairs[slot, COUNT] -= side.lost[neighbour]
        side.cursor[neighbour] = FREE
        if side.gained[neighbour] > 1:
            key = neighbour << shift | new
            side.cursor[neighbour] = enter(state, key, side.gained[neighbour], side.n_places[neighbour])
        side.lost[neighbour] = side.gained[neighbour] = side.n_places[neighbour] = 0
    for t in range(side.used[MEETINGS]):
        neighbour = side.meetings[t] >> 32
        if side.cursor[neighbour] != FREE:
            state.places[side.cursor[neighbour]] = side.meetings[t] & LOW_HALF
            side.cursor[neighbour] += 1
    side.used[:] = 0


@kernel(PAIR(STATE, I64))
def _merge(state: State, n_merges: int) -> tuple[int, int]:
    """Merge until there are n_merges; why it stopped, and how many places the next merge has if it has no room."""
    tokens, used, pairs = state.tokens, state.used, state.pairs
    while used[MERGES] < n_merges:
        if used[QUEUED] == 0:
            return NO_PAIR_LEFT, 0
        key = state.queue[0, 1]
        slot = find(pairs, key)
        count = pairs[slot, COUNT]
        if count < 2:
            drop_first(state)
            continue
        if count < state.queue[0, 0]:
            replace_first(state, count, key)
            continue
        start, n_places = pairs[slot, FIRST], pairs[slot, LENGTH]
        new = N_BYTE_VALUES + used[MERGES]
        if (
            used[PLACES] + 2 * n_places > len(state.places)
            or used[PAIRS] + 2 * min(n_places, new + 1) > len(state.queue)
            or n_places > len(state.left.meetings)
        ):
            return NO_ROOM_LEFT, n_places
        drop_first(state)
        pairs[slot, COUNT] = 0
        left, right = key >> 32, key & LOW_HALF
        tokens.halves[new, 0], tokens.halves[new, 1] = left, right
        tokens.length[new] = tokens.length[left] + tokens.length[right]
        tokens.example[new] = state.places[start]
        set_prefix(tokens, new)
        _join(state, new, start, start + n_places)
        # The left side first: where `new` stands before `new` it finds no (new, left) to lower, which the right enters.
        _book(state, state.left, 32, left, new)
        _book(state, state.right, 0, right << 32, new << 32)
        used[MERGES] += 1
    return ENOUGH, 0


def learn(
    words: Array, ends: Array, counts: Array, n_merges: int, *, progress: Callable[[int, int], None] | None = None
) -> Array:
    """The pairs to merge in rank order: (M, 2) int32 of ids, M < n_merges if no pair is left that occurs twice.

    words: uint8, all different pre-tokens one after the other; ends, counts: int64, where each ends and how often it
    occurs. progress: called now and then with merges learned and merges wanted.

    Raises:
        TokenizerError: the pre-tokens have more bytes than places can be numbered.
    """
    state = begin(words, ends, counts, n_merges)
    n_merges = min(n_merges, len(state.cells))  # each takes a cell out of use
    wanted = 0
    while wanted < n_merges:
        wanted = n_merges if progress is None else min(wanted + PROGRESS_EVERY, n_merges)
        outcome, n_places = _merge(state, wanted)
        while outcome == NO_ROOM_LEFT:
            state = with_room(state, n_places)
            outcome, n_places = _merge(state, wanted)
        if progress is not None:
            progress(int(state.used[MERGES]), n_merges)
        if outcome == NO_PAIR_LEFT:
            break
    return state.tokens.halves[N_BYTE_VALUES : N_BYTE_VALUES + int(state.used[MERGES])].copy()
