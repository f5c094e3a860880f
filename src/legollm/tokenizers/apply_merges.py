"""Byte-pair encoding, the applying half: one pre-token's bytes -> ids, lowest merge rank first, leftmost among equals.

Three ways to the same result: looking through all pairs each time is fastest for the short pieces of real text; a heap
over a linked list keeps a piece of thousands of letters from taking thousands of squared steps; and in a piece of a
million letters the same pair stands in so many places that all of them are joined in one go.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise, repeat

import numpy as np
from numpy.typing import NDArray

LONG = 128
"""From this many bytes on the heap is faster than the search."""
VERY_LONG = 1 << 16
"""From this many on rounds are: making their tables takes as long as some ten thousand steps of the heap."""

Ints = NDArray[np.int32]

GONE = -1
NOTHING = -2
"""Stands on both sides of the piece; no merge has it."""


def apply_merges(ids: list[int], ranks: Mapping[tuple[int, int], int], products: Sequence[int]) -> list[int]:
    """The ids left when no pair can be merged any more. Changes `ids`.

    ranks: pair of ids -> rank of its merge; products: rank -> id of the merged token.
    """
    if len(ids) < LONG:
        return merge_by_search(ids, ranks, products)
    return merge_by_heap(ids, ranks, products) if len(ids) < VERY_LONG else merge_in_rounds(ids, ranks, products)


def merge_by_search(ids: list[int], ranks: Mapping[tuple[int, int], int], products: Sequence[int]) -> list[int]:
    """Look for the lowest rank among all pairs, again and again: quadratic, and quick for short pieces."""
    never = len(products)
    here = list(map(ranks.get, pairwise(ids), repeat(never)))  # here[i] is the rank of ids[i], ids[i + 1]
    while here:
        rank = min(here)
        if rank == never:
            break
        i = here.index(rank)
        ids[i : i + 2] = [products[rank]]
        del here[i]
        if i > 0:
            here[i - 1] = ranks.get((ids[i - 1], ids[i]), never)
        if i < len(here):
            here[i] = ranks.get((ids[i], ids[i + 1]), never)
    return ids


def merge_by_heap(ids: list[int], ranks: Mapping[tuple[int, int], int], products: Sequence[int]) -> list[int]:
    """Keep the mergeable pairs in a heap: n log n, whatever the piece."""
    n = len(ids)
    after = list(range(1, n + 1))
    before = list(range(-1, n - 1))
    heap = [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapify(heap)
    while heap:
        rank, i = heappop(heap)
        j = after[i]
        if ids[i] == GONE or j == n or ranks.get((ids[i], ids[j])) != rank:
            continue  # a neighbour was merged since this entry was made
        ids[i], ids[j] = products[rank], GONE
        after[i] = following = after[j]
        if following < n:
            before[following] = i
            if (new := ranks.get((ids[i], ids[following]))) is not None:
                heappush(heap, (new, i))
        if i > 0 and (new := ranks.get((ids[before[i]], ids[i]))) is not None:
            heappush(heap, (new, before[i]))
    return [i for i in ids if i != GONE]


def merge_in_rounds(ids: list[int], ranks: Mapping[tuple[int, int], int], products: Sequence[int]) -> list[int]:
    """Join all places of the lowest rank at once, on arrays: as many rounds as different merges take part.

    One by one from the left gives the same: only pairs with the new token can arise while a rank is at work, and if all
    of those rank later, that rank stays the lowest until its places are used up. Where two merges build one token, a
    pair with it may rank earlier than the second of them; there the heap takes over, from wherever the rounds are.
    """
    merges = _MergeArrays(ranks, products)
    n = len(ids)
    tokens = np.array([*ids, NOTHING], np.int32)
    after = np.minimum(np.arange(1, n + 2, dtype=np.int32), n)  # place n holds NOTHING: it is on both sides
    before = np.append(np.int32(n), np.arange(n, dtype=np.int32))
    joined = np.zeros(n + 1, bool)  # where the new token of this round begins
    places: defaultdict[int, list[Ints]] = defaultdict(list)  # by rank; some may be outdated
    heap: list[int] = []  # the ranks in `places`

    def add(at: Ints) -> None:
        for rank, some in merges.by_rank(at, tokens[at], tokens[after[at]]):
            if rank not in places:
                heappush(heap, rank)
            places[rank].append(some)

    add(np.arange(n, dtype=np.int32))
    while heap:
        rank = heappop(heap)
        at = np.concatenate(places.pop(rank))
        left, right, product = merges.lefts[rank], merges.rights[rank], products[rank]
        at = at[(tokens[at] == left) & (tokens[after[at]] == right)]
        if not at.size:
            continue
        if merges.first_use[product] <= rank:
            return merge_by_heap(tokens[tokens >= 0].tolist(), ranks, products)
        if left == right:
            at.sort()
            at = _not_overlapping(at, after)
        second = after[at]
        tokens[at], tokens[second] = product, GONE
        after[at] = following = after[second]
        before[following] = at
        joined[at] = True
        neighbours = before[at]
        add(np.concatenate([neighbours[~joined[neighbours]], at]))
        joined[at] = False
    left_over: list[int] = tokens[tokens >= 0].tolist()
    return left_over


def _not_overlapping(at: Ints, after: Ints) -> Ints:
    """Every second place of a run in which each pair begins with the token that ends the one before: aaaa is aa, aa."""
    number = np.arange(at.size)
    begins_run = np.append(True, after[at[:-1]] != at[1:])
    first = np.maximum.accumulate(np.where(begins_run, number, 0))
    chosen: Ints = at[(number - first) % 2 == 0]
    return chosen


class _MergeArrays:
    """The merges as arrays: rank -> pair, pair -> rank, and when a token is used first."""

    def __init__(self, ranks: Mapping[tuple[int, int], int], products: Sequence[int]) -> None:
        never = len(products)
        pairs = np.array(list(ranks), np.int64).reshape(-1, 2)
        order = np.array(list(ranks.values()), np.int64)
        self.lefts, self.rights = np.zeros((2, never), np.int64)
        self.lefts[order], self.rights[order] = pairs.T
        self.first_use = np.full(max([0, *products, *pairs.ravel().tolist()]) + 1, never)
        np.minimum.at(self.first_use, pairs, order[:, None])
        keys = pairs[:, 0] << 32 | pairs[:, 1]
        by_key = np.argsort(keys)
        self._keys = np.append(keys[by_key], np.iinfo(np.int64).max)
        self._ranks = np.append(order[by_key], never).astype(np.int32)

    def by_rank(self, at: Ints, left: Ints, right: Ints) -> list[tuple[int, Ints]]:
        """Those of the places `at` whose pair can be merged, put together by its rank."""
        keys = left.astype(np.int64) << 32 | right
        found = np.searchsorted(self._keys, keys)
        known = self._keys[found] == keys
        at, rank = at[known], self._ranks[found[known]]
        if not rank.size:
            return []
        if rank.min() == rank.max():
            return [(int(rank[0]), at)]
        order = np.argsort(rank)
        rank = rank[order]
        first = np.flatnonzero(np.append(True, rank[1:] != rank[:-1]))
        return list(zip(rank[first].tolist(), np.split(at[order], first[1:]), strict=True))
