"""All ways to cut a word into pieces, walked along: the best one, or one at random.

A word's lattice has a node before, between and after its characters, and an edge for every piece that spells what is
between two nodes. Every path from the first node to the last is a segmentation; its weight is the sum of its edges.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import TypeVar

T = TypeVar("T")


def longest_by_first(pieces: Iterable[str]) -> dict[str, int]:
    """How long a piece can be, by its first character: how far `edges` has to look."""
    longest: dict[str, int] = {}
    for piece in pieces:
        longest[piece[0]] = max(longest.get(piece[0], 0), len(piece))
    return longest


def edges(word: str, pieces: Mapping[str, T], longest: Mapping[str, int], unknown: T) -> Iterator[tuple[int, int, T]]:
    """(begin, end, value) of each edge in order of its begin; a character that is no piece has one with `unknown`."""
    n = len(word)
    for begin, character in enumerate(word):
        if character not in pieces:
            yield begin, begin + 1, unknown
        for end in range(begin + 1, min(begin + longest.get(character, 0), n) + 1):
            value = pieces.get(word[begin:end])
            if value is not None:
                yield begin, end, value


def best_path(word: str, scores: Mapping[str, float], longest: Mapping[str, int], unknown: float) -> list[str]:
    """The segmentation of the greatest score, among equals the one whose last piece is longest (Viterbi 1967)."""
    best = [0.0] + [-math.inf] * len(word)
    back = [0] * (len(word) + 1)
    for begin, end, score in edges(word, scores, longest, unknown):
        total = best[begin] + score
        if total > best[end]:
            best[end] = total
            back[end] = begin
    path = []
    end = len(word)
    while end:
        path.append(word[back[end] : end])
        end = back[end]
    return path[::-1]


def sample_path(
    word: str, scores: Mapping[str, float], longest: Mapping[str, int], unknown: float, *, alpha: float, rng: Random
) -> list[str]:
    """A segmentation drawn with probability proportional to exp(alpha * score), exactly.

    Forward filtering sums over all ways to each node; backward sampling then draws the last piece, the one before it,
    and so on, each in proportion to what leads there.
    """
    total = [0.0] + [-math.inf] * len(word)
    arriving: list[list[tuple[float, int]]] = [[] for _ in total]
    at = 0
    for begin, end, score in edges(word, scores, longest, unknown):
        if begin > at:  # no edge to this node is left to come
            at = begin
            total[at] = _log_sum(weight for weight, _ in arriving[at])
        arriving[end].append((total[begin] + alpha * score, begin))
    path = []
    end = len(word)
    while end:
        highest = max(weight for weight, _ in arriving[end])
        (begin,) = rng.choices(
            [start for _, start in arriving[end]], [math.exp(weight - highest) for weight, _ in arriving[end]]
        )
        path.append(word[begin:end])
        end = begin
    return path[::-1]


def _log_sum(logs: Iterable[float]) -> float:
    """log of the sum of exp, without overflow."""
    logs = list(logs)
    highest = max(logs)
    return highest + math.log(sum(math.exp(value - highest) for value in logs))
