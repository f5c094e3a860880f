"""Byte-pair encoding, the learning half: which pairs of tokens to merge, from counted pre-tokens.

Gage 1994, "A New Algorithm for Data Compression"; Sennrich, Haddow and Birch 2016, arXiv:1508.07909. The result is that
of NaiveBPETokenizer, which recounts every pair for every merge; here a merge costs as much as it changes. What
`learn_in_python` says in a page, legollm.kernels.learn does some twenty times faster.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np

from legollm.tokenizers.byte import BYTES
from legollm.tokenizers.count_words import CountedWords, Engine, has_kernels

Pair = tuple[int, int]

SMALL = 1 << 14
"""Bytes of different pre-tokens below which loading the compiled loops takes longer than learning without them."""

END = -1
"""Stands after the last byte of each pre-token."""
GONE = -2
"""Stands where a token was that is now a part of the one before it."""

# Ties go to the greatest pair of byte strings, but a heap gives its smallest entry. Complementing each byte turns the
# order around, and a last letter above all others makes a string greater than its continuations, not smaller.
_COMPLEMENT = bytes(255 - value for value in range(256))
_ABOVE_ALL = chr(256)


def _descending(token: bytes) -> str:
    return token.translate(_COMPLEMENT).decode("latin-1") + _ABOVE_ALL


def learn_merges(
    counts: Mapping[bytes, int] | CountedWords,
    n_merges: int,
    *,
    progress: Callable[[int, int], None] | None = None,
    engine: Engine = "auto",
) -> list[tuple[bytes, bytes]]:
    """The pairs to merge in rank order: the most frequent first, among equals the greatest pair of byte strings.

    counts: how often each pre-token occurs. Fewer than n_merges come back when no pair is left that occurs twice.
    progress: called now and then with merges learned and merges wanted. engine: the result does not depend on it.

    Raises:
        TokenizerError: the compiled loops are asked for and not there.
    """
    is_small = engine == "auto" and not isinstance(counts, CountedWords) and sum(map(len, counts)) < SMALL
    if is_small or not has_kernels(engine):
        return learn_in_python(counts.items(), n_merges, progress=progress)

    from legollm.kernels.learn import learn

    pairs = learn(*_as_arrays(counts), n_merges, progress=progress)
    tokens = list(BYTES)
    merges = []
    for left, right in pairs.tolist():
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    return merges


def _as_arrays(counts: Mapping[bytes, int] | CountedWords) -> CountedWords:
    if isinstance(counts, CountedWords):
        return counts

    words = np.frombuffer(b"".join(counts), np.uint8)
    ends = np.cumsum([len(word) for word in counts], dtype=np.int64)
    return CountedWords(words, ends, np.array(list(counts.values()), np.int64))


def learn_in_python(
    counts: Iterable[tuple[bytes, int]], n_merges: int, *, progress: Callable[[int, int], None] | None = None
) -> list[tuple[bytes, bytes]]:
    """What `learn_merges` does, written down in Python.

    All pre-tokens lie in one array of token ids, linked both ways, so that a merge touches only the places where its
    pair occurs: what a long pre-token costs does not depend on its length.
    """
    tokens = list(BYTES)
    order = [_descending(token) for token in tokens]
    ids, weight = _lay_out(counts)
    after = list(range(1, len(ids) + 1))
    before = list(range(-1, len(ids) - 1))

    pair_counts: defaultdict[Pair, int] = defaultdict(int)
    places: defaultdict[Pair, list[int]] = defaultdict(list)  # of the left token, ascending; some may be outdated
    for place, pair in enumerate(pairwise(ids)):
        if pair[0] != END and pair[1] != END:
            pair_counts[pair] += weight[place]
            places[pair].append(place)
    # A pair never becomes more frequent after the merge that made it possible, so an entry's count is an upper bound:
    # entries are put right when they come up instead of whenever a count changes.
    heap = [(-count, order[a], order[b], (a, b)) for (a, b), count in pair_counts.items() if count > 1]
    heapify(heap)

    merges: list[tuple[bytes, bytes]] = []
    while heap and len(merges) < n_merges:
        bound, _, _, pair = heappop(heap)
        count = pair_counts[pair]
        if count != -bound:
            if count > 1:
                heappush(heap, (-count, order[pair[0]], order[pair[1]], pair))
            continue
        left, right = pair
        new = len(tokens)
        tokens.append(tokens[left] + tokens[right])
        order.append(_descending(tokens[new]))
        merges.append((tokens[left], tokens[right]))

        created: set[Pair] = set()
        for place in places.pop(pair):
            second = after[place]
            if ids[place] != left or ids[second] != right:
                continue
            n = weight[place]
            previous, following = before[place], after[second]
            if ids[previous] != END:
                pair_counts[ids[previous], left] -= n
                created.add((ids[previous], new))
                pair_counts[ids[previous], new] += n
                places[ids[previous], new].append(previous)
            if ids[following] != END:
                pair_counts[right, ids[following]] -= n
                created.add((new, ids[following]))
                pair_counts[new, ids[following]] += n
                places[new, ids[following]].append(place)
            ids[place], ids[second] = new, GONE
            after[place] = following
            before[following] = place
        del pair_counts[pair]
        for a, b in created:
            if pair_counts[a, b] > 1:
                heappush(heap, (-pair_counts[a, b], order[a], order[b], (a, b)))
        if progress is not None:
            progress(len(merges), n_merges)
    return merges


def _lay_out(counts: Iterable[tuple[bytes, int]]) -> tuple[list[int], list[int]]:
    """All pre-tokens one after the other, each followed by END, and how often each place occurs in the corpus."""
    ids = [END]
    weight = [0]
    for piece, count in counts:
        ids += piece
        ids.append(END)
        weight += [count] * (len(piece) + 1)
    return ids, weight
