"""All ways to cut a word into pieces, walked along: the best one, or one at random.

A word's lattice has a node before, between and after its characters, and an edge for every piece that spells what is
between two nodes. Every path from the first node to the last is a segmentation; its weight is the sum of its edges.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import TypeVar

T = TypeVar("T")

LONG = 1 << 12
"""A word of so many characters is no word, and may be the same few characters again and again."""
MAX_WINDOWS = 1 << 16
SAMPLES = 256


def longest_by_first(pieces: Iterable[str]) -> dict[str, int]:
    """How long a piece can be, by its first character: how far `edges` has to look."""
    longest: dict[str, int] = {}
    for piece in pieces:
        longest[piece[0]] = max(longest.get(piece[0], 0), len(piece))
    return longest


def edges(word: str, pieces: Mapping[str, T], longest: Mapping[str, int], unknown: T) -> Iterator[tuple[int, int, T]]:
    """(begin, end, value) of each edge in order of its begin; a character that is no piece has one with `unknown`."""
    n = len(word)
    if n >= LONG and _repeats_itself(word, max(longest.values(), default=1)):
        yield from _remembered_edges(word, pieces, longest, unknown)
        return
    for begin, character in enumerate(word):
        if character not in pieces:
            yield begin, begin + 1, unknown
        for end in range(begin + 1, min(begin + longest.get(character, 0), n) + 1):
            value = pieces.get(word[begin:end])
            if value is not None:
                yield begin, end, value


def _repeats_itself(word: str, width: int) -> bool:
    """Whether most stretches of so many characters, looked at here and there, occur more than once."""
    begins = range(0, len(word), max(1, len(word) // SAMPLES))
    return 2 * len({word[begin : begin + width] for begin in begins}) < len(begins)


def _remembered_edges(
    word: str, pieces: Mapping[str, T], longest: Mapping[str, int], unknown: T
) -> Iterator[tuple[int, int, T]]:
    """`edges`, which are the same wherever the same characters follow: a run of one letter is looked up once."""
    width = max(longest.values(), default=1)
    known: dict[str, list[tuple[int, T]]] = {}
    for begin in range(len(word)):
        window = word[begin : begin + width]
        found = known.get(window)
        if found is None:
            lengths = range(1, min(longest.get(window[0], 0), len(window)) + 1)
            found = [] if window[0] in pieces else [(1, unknown)]
            found += [(length, pieces[window[:length]]) for length in lengths if window[:length] in pieces]
            if len(known) >= MAX_WINDOWS:
                known.clear()
            known[window] = found
        for length, value in found:
            yield begin, begin + length, value


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


def best_paths(
    word: str, scores: Mapping[str, float], longest: Mapping[str, int], unknown: float, n: int
) -> list[tuple[float, list[str]]]:
    """The n segmentations of the greatest score, best first; fewer if there are no more. The first is `best_path`.

    The n best ways to a node go on from the n best ways to the node before it, so no others need to be kept.
    """
    ways: list[list[tuple[float, int, int]]] = [[] for _ in range(len(word) + 1)]  # score, node before, its way
    ways[0] = [(0.0, 0, 0)]
    at = 0
    for begin, end, score in edges(word, scores, longest, unknown):
        if begin > at:  # no edge to this node is left to come
            at = begin
            ways[at] = _highest(ways[at], n)
        ways[end] += [(total + score, begin, way) for way, (total, _, _) in enumerate(ways[begin])]
    found = []
    for total, begin, way in _highest(ways[-1], n):
        path = []
        end = len(word)
        while end:
            path.append(word[begin:end])
            end = begin
            _, begin, way = ways[end][way]
        found.append((total, path[::-1]))
    return found


def _highest(ways: list[tuple[float, int, int]], n: int) -> list[tuple[float, int, int]]:
    """The n of the greatest score, those that came first before their equals."""
    return sorted(ways, key=lambda way: -way[0])[:n]


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
