"""Unigram language model, the learning half: which pieces, and how probable each is.

Kudo 2018, "Subword Regularization", arXiv:1804.10959, section 3.2. Begin with far too many pieces. In turns, estimate
their probabilities so that the corpus becomes most likely when every segmentation of a word counts (expectation
maximisation; Dempster, Laird and Rubin 1977), and drop the pieces that are missed least, until as many are left as are
wanted.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from legollm.tokenizers.unigram_lattice import edges, longest_by_first

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_PIECE_LENGTH = 16
"""Characters."""
MAX_SEEDS = 1_000_000
KEEP = 0.75
"""Share of the pieces that a round keeps: dropping few at a time lets the others take over their text."""
EM_STEPS = 2
"""Between two rounds of dropping."""
LAST_EM_STEPS = 4
LEAST_COUNT = 0.01
"""Expected occurrences that every piece is given at least, so that no probability is zero."""


def learn_pieces(
    counts: Mapping[str, int], n_pieces: int, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """n_pieces pieces and their log probabilities in nats, or fewer if the words have no more.

    counts: how often each word occurs. Their characters are all kept, so any text of these characters can be spelled;
    n_pieces must have room for them. progress: called with rounds done and rounds in all.
    """
    if not counts:
        if progress is not None:
            progress(1, 1)
        return {}
    seeds = seed_pieces(counts, max(n_pieces, MAX_SEEDS))
    pieces = sorted(seeds)
    corpus = Lattice.of(list(counts), pieces)
    weights = np.array(list(counts.values()), dtype=np.float64)
    spellings = Lattice.of(pieces, pieces).without_whole()

    alive = np.ones(len(pieces), dtype=np.bool_)
    expected = np.array([seeds[piece] * len(piece) for piece in pieces], dtype=np.float64)
    sizes = list(_shrinking(len(pieces), n_pieces))
    for done, size in enumerate(sizes, start=1):
        for _ in range(EM_STEPS):
            expected, _ = corpus.expected_counts(log_probabilities(expected, alive), weights)
        scores = log_probabilities(expected, alive)
        alive = _keep_best(losses(expected, scores, spellings), alive, size)
        corpus, spellings = corpus.having(alive), spellings.having(alive)
        if progress is not None:
            progress(done, len(sizes) + 1)
    for _ in range(LAST_EM_STEPS):
        expected, _ = corpus.expected_counts(log_probabilities(expected, alive), weights)
    scores = log_probabilities(expected, alive)
    if progress is not None:
        progress(len(sizes) + 1, len(sizes) + 1)
    return {pieces[i]: float(scores[i]) for i in np.flatnonzero(alive)}


def seed_pieces(counts: Mapping[str, int], max_seeds: int) -> dict[str, int]:
    """All characters, and the substrings that occur twice or more: those that cover most text if there are too many.

    A substring is frequent only if its parts are, so each length looks no further than the one before it found.
    """
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    longer: dict[str, int] = {}
    frequent = {character: count for character, count in characters.items() if count > 1}
    for length in range(2, MAX_PIECE_LENGTH + 1):
        found: Counter[str] = Counter()
        for word, count in counts.items():
            for begin in range(len(word) - length + 1):
                piece = word[begin : begin + length]
                if piece[:-1] in frequent and piece[1:] in frequent:
                    found[piece] += count
        frequent = {piece: count for piece, count in found.items() if count > 1}
        longer |= frequent
    best = sorted(longer, key=lambda piece: (-longer[piece] * len(piece), piece))[: max_seeds - len(characters)]
    return dict(characters) | {piece: longer[piece] for piece in best}


def _shrinking(size: int, wanted: int) -> Iterator[int]:
    """The number of pieces after each round."""
    while size > wanted:
        size = max(wanted, int(KEEP * size))
        yield size


def log_probabilities(expected: Floats, alive: Bools) -> Floats:
    """The maximisation step: log of each living piece's share of all expected occurrences, in nats; (pieces,)."""
    counts = np.where(alive, np.maximum(expected, LEAST_COUNT), 0.0)
    with np.errstate(divide="ignore"):  # a dropped piece has probability 0
        logs: Floats = np.log(counts / counts.sum())
    return logs


def losses(expected: Floats, scores: Floats, spellings: "Lattice") -> Floats:
    """How many nats the corpus loses without each piece, when the best spelling by others takes its place; (pieces,).

    A single character has no other spelling: its loss is infinite. spellings: `Lattice.without_whole` of the pieces.
    """
    other = spellings.forward(scores, np.maximum)[spellings.last]
    lost: Floats = np.full(len(scores), -np.inf)
    alive = scores > -np.inf
    lost[alive] = np.maximum(expected, LEAST_COUNT)[alive] * (scores[alive] - other[alive])
    return lost


def _keep_best(lost: Floats, alive: Bools, size: int) -> Bools:
    kept = np.zeros_like(alive)
    kept[np.argsort(-lost, kind="stable")[:size]] = True
    return kept & alive


@dataclass(frozen=True)
class _Step:
    """The edges into all nodes of one depth."""

    edges: Ints
    """Those into the same node side by side."""
    groups: Ints
    """Where in `edges` those of each node begin."""
    nodes: Ints


@dataclass(frozen=True)
class Lattice:
    """The lattices of many words as one set of arrays: nodes and edges are numbered through."""

    first: Ints
    """(words,): the node before each word's first character."""
    last: Ints
    """(words,): the node after its last character."""
    begin: Ints
    """(edges,): node."""
    end: Ints
    """(edges,): node."""
    piece: Ints
    """(edges,): index of the piece that spells what is between the two."""

    @classmethod
    def of(cls, words: Sequence[str], pieces: Sequence[str]) -> Self:
        """Every way to spell `words`; each of their characters must be a piece."""
        index = {piece: i for i, piece in enumerate(pieces)}
        longest = longest_by_first(pieces)
        length = np.array([len(word) for word in words], dtype=np.int64)
        last = np.cumsum(length + 1) - 1
        first = last - length
        flat = [
            (start + begin, start + end, piece)
            for start, word in zip(first.tolist(), words, strict=True)
            for begin, end, piece in edges(word, index, longest, -1)
        ]
        begins, ends, indices = np.array(flat, dtype=np.int64).reshape(-1, 3).T
        return cls(first, last, begins, ends, indices)

    def having(self, alive: Bools) -> Self:
        """Without the edges of dropped pieces."""
        return self._with_edges(alive[self.piece])

    def without_whole(self) -> Self:
        """Without the edges that are a whole word: what is left are the ways to spell it by others."""
        return self._with_edges(~(np.isin(self.begin, self.first) & np.isin(self.end, self.last)))

    def _with_edges(self, chosen: Bools) -> Self:
        return type(self)(self.first, self.last, self.begin[chosen], self.end[chosen], self.piece[chosen])

    def expected_counts(self, scores: Floats, weights: Floats) -> tuple[Floats, float]:
        """The expectation step: how often each piece is used, (pieces,), and the log likelihood in nats.

        Every segmentation counts by its probability (forward-backward; Baum et al. 1970). scores: log probability of
        each piece; weights: how often each word occurs.
        """
        before = self.forward(scores, np.logaddexp)
        after = self.backward(scores, np.logaddexp)
        total = before[self.last]  # (words,): log probability of each word, all its segmentations together
        nodes = self.last - self.first + 1
        through = before[self.begin] + scores[self.piece] + after[self.end] - np.repeat(total, nodes)[self.begin]
        expected = np.exp(through) * np.repeat(weights, nodes)[self.begin]
        per_piece = np.bincount(self.piece, expected, minlength=len(scores)).astype(np.float64)
        return per_piece, float(weights @ total)

    def forward(self, scores: Floats, add: np.ufunc) -> Floats:
        """For each node, the paths from its word's first node added up; (nodes,). add: np.logaddexp or np.maximum."""
        depth = np.arange(self.last[-1] + 1) - np.repeat(self.first, self.last - self.first + 1)
        return self._sweep(scores, add, self.begin, self.end, depth, starts=self.first)

    def backward(self, scores: Floats, add: np.ufunc) -> Floats:
        """For each node, the paths to its word's last node added up; (nodes,)."""
        depth = np.repeat(self.last, self.last - self.first + 1) - np.arange(self.last[-1] + 1)
        return self._sweep(scores, add, self.end, self.begin, depth, starts=self.last)

    def _sweep(self, scores: Floats, add: np.ufunc, source: Ints, target: Ints, depth: Ints, starts: Ints) -> Floats:
        total: Floats = np.full(len(depth), -np.inf)
        total[starts] = 0.0
        for step in _steps(depth[target], target):
            through = total[source[step.edges]] + scores[self.piece[step.edges]]
            total[step.nodes] = add.reduceat(through, step.groups)
        return total


def _steps(depth: Ints, target: Ints) -> Iterator[_Step]:
    """Edges in the order in which all words can be walked together: everything that a depth needs lies before it."""
    order = np.argsort(depth, kind="stable")  # a word has one node at each depth: its edges stay side by side
    group = np.flatnonzero(np.diff(target[order], prepend=-1))  # first edge into each node
    level = depth[order][group]
    cuts = [*np.flatnonzero(np.diff(level, prepend=-1)).tolist(), len(group)]
    group = np.append(group, len(order))
    for low, high in pairwise(cuts):
        chosen = order[group[low] : group[high]]
        groups = group[low:high] - group[low]
        yield _Step(chosen, groups, target[chosen[groups]])
