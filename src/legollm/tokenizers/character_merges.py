"""Byte-pair encoding over characters, the learning half: which pairs of symbols to merge, from counted words.

Sennrich, Haddow and Birch 2016, arXiv:1508.07909, whose symbols were characters too. Written word by word: a merge
rewrites the words that have its pair and counts the pairs of those again, no others.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

from legollm.tokenizers.naive_bpe import merge

Pair = tuple[str, str]


def learn_character_merges(
    counts: Mapping[str, int], n_merges: int, *, progress: Callable[[int, int], None] | None = None
) -> list[Pair]:
    """The pairs to merge in rank order: the most frequent first, among equals the greatest pair of strings.

    counts: how often each word occurs. Fewer than n_merges come back when no pair is left that occurs twice.
    """
    words = [list(word) for word in counts]
    weights = list(counts.values())
    pair_counts: Counter[Pair] = Counter()
    words_with: defaultdict[Pair, set[int]] = defaultdict(set)  # some may have lost the pair since
    for i, word in enumerate(words):
        for pair in pairwise(word):
            pair_counts[pair] += weights[i]
            words_with[pair].add(i)
    heap = [_entry(pair, count) for pair, count in pair_counts.items()]
    heapify(heap)

    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        bound, _, _, pair = heappop(heap)
        if pair_counts[pair] != -bound:
            continue  # the count changed, and the change made an entry of its own
        if -bound < 2:
            break
        merges.append(pair)
        changed: Counter[Pair] = Counter()
        for i in words_with.pop(pair):
            for old in pairwise(words[i]):
                changed[old] -= weights[i]
            words[i] = merge(words[i], pair)
            for new in pairwise(words[i]):
                changed[new] += weights[i]
                words_with[new].add(i)
        for other, change in changed.items():
            if change:
                pair_counts[other] += change
                heappush(heap, _entry(other, pair_counts[other]))
        if progress is not None:
            progress(len(merges), n_merges)
    return merges


def _entry(pair: Pair, count: int) -> tuple[int, tuple[int, ...], tuple[int, ...], Pair]:
    """A heap gives its smallest entry: everything that shall be great is turned around."""
    return -count, _descending(pair[0]), _descending(pair[1]), pair


def _descending(symbol: str) -> tuple[int, ...]:
    """Sorts the greatest string first; the end sorts after every letter, as "ab" is greater than "a"."""
    return (*(-ord(character) for character in symbol), 1)
