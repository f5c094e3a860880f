"""Byte-pair encoding, the applying half: one pre-token's bytes -> ids, lowest merge rank first, leftmost among equals.

Two ways to the same result: looking through all pairs each time is fastest for the short pieces of real text, and a
heap over a linked list keeps a piece of a million letters from taking a million squared steps.
"""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise, repeat

LONG = 128
"""From this many bytes on the heap is the faster way."""

GONE = -1


def apply_merges(ids: list[int], ranks: Mapping[tuple[int, int], int], products: Sequence[int]) -> list[int]:
    """The ids left when no pair can be merged any more. Changes `ids`.

    ranks: pair of ids -> rank of its merge; products: rank -> id of the merged token.
    """
    return merge_by_heap(ids, ranks, products) if len(ids) >= LONG else merge_by_search(ids, ranks, products)


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
