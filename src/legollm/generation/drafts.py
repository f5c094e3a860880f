"""Guesses at the next tokens, cheap to make: by a smaller model, by counts, or by what the text said before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from legollm.architectures.ngram import NGram
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Row, history_of
from legollm.generation.reader import Glance, Reader, Reading
from legollm.generation.sampling import Sampling, draw, next_token_probs


@dataclass(frozen=True)
class Draft:
    """The guessed tokens of each row, and the distribution (B, n, V) that each was drawn from; None: it was not drawn.

    That has to be the very distribution: the rule that makes guesses lossless divides by it.
    """

    ids: list[list[int]]
    probs: Tensor | None = None


class Drafter(Protocol):
    """Who guesses. Between two guesses rows grow by tokens that may be others than the guessed ones."""

    def open(self, rows: Sequence[Row], n_new: int, n_most: int) -> None:
        """These rows follow, which will grow by n_new tokens at most, with n_most guesses at once."""
        ...

    def guess(self, rows: Sequence[Row], n: Sequence[int], sampling: Sampling, n_ids: int | None) -> Draft:
        """Up to n[i] tokens after row i."""
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Only these rows go on, in this order."""
        ...


class PromptLookup:
    """What followed the latest tokens when they occurred before (Saxena 2023): for answers that repeat their prompt.

    Of the longest sequence that occurred, its latest occurrence counts. Nothing is drawn, and nothing is read.
    """

    def __init__(self, longest: int = 5, shortest: int = 2) -> None:
        self.lengths = range(longest, shortest - 1, -1)
        self.rows: list[Occurrences] = []

    def open(self, rows: Sequence[Row], n_new: int, n_most: int) -> None:
        self.rows = [Occurrences() for _ in rows]

    def guess(self, rows: Sequence[Row], n: Sequence[int], sampling: Sampling, n_ids: int | None) -> Draft:
        texts = zip(rows, self.rows, n, strict=True)
        return Draft([seen.following(row.ids, self.lengths, most) for row, seen, most in texts])

    def select(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[row] for row in rows]


class Occurrences:
    """Where each short sequence of a text was last followed by something."""

    def __init__(self) -> None:
        self.ends: dict[tuple[int, ...], int] = {}
        self.n_known = 0
        """The text up to here is in the table."""

    def following(self, ids: list[int], lengths: range, n: int) -> list[int]:
        """Up to n tokens that may follow `ids`, a text that has grown since; none where nothing occurred before."""
        for end in range(self.n_known + 1, len(ids)):  # a sequence at the very end is followed by nothing yet
            for length in lengths:
                if length <= end:
                    self.ends[tuple(ids[end - length : end])] = end
        self.n_known = max(self.n_known, len(ids) - 1)
        for length in lengths:
            start = self.ends.get(tuple(ids[-length:])) if length <= len(ids) else None
            if start is not None:
                found: list[int] = []
                for place in range(start, start + n):  # where the text ends, what was found goes on: it repeats itself
                    found.append(ids[place] if place < len(ids) else found[place - len(ids)])
                return found
        return []


class ModelDraft:
    """A smaller model of the same vocabulary writes ahead, token by token, sampled as the answer is."""

    def __init__(self, model: GenerativeModel, chunk: int | None = 512) -> None:
        """chunk: tokens of a text that are read at once."""
        self.model, self.chunk = model, chunk
        self.device = next(model.parameters()).device
        self.reader: Reading | None = None
        self.ahead: list[tuple[int, list[int]]] = []
        """Of each row how long it was when its guesses were made, and those guesses."""

    def open(self, rows: Sequence[Row], n_new: int, n_most: int) -> None:
        if isinstance(self.model, NGram):
            self.reader = Glance(self.model, len(rows), max(1, len(self.model.levels) - 1))
        else:
            n_columns = n_columns_for(rows, n_new, n_most)
            self.reader = Reader(self.model, len(rows), n_columns, self.chunk)
        self.ahead = [(len(row.ids), []) for row in rows]

    def guess(self, rows: Sequence[Row], n: Sequence[int], sampling: Sampling, n_ids: int | None) -> Draft:
        """No guesses where the texts have become longer than this model can read."""
        assert self.reader is not None
        if self.model.max_seq_len is not None and max(row.n_seen for row in rows) + max(n) > self.model.max_seq_len:
            return Draft([[] for _ in rows])
        self.forget_what_was_wrong(rows)
        history = history_of(rows, sampling, self.device) if sampling.penalises else None
        ids: list[list[int]] = [[] for _ in rows]
        probs = []
        for step in range(max(n)):
            logits = self.model.lm_head(self.reader.read(rows, ids, 1)[:, -1])  # (B, V)
            if n_ids is not None:
                logits[:, n_ids:] = -torch.inf
            probs.append(next_token_probs(logits, sampling, history))
            chosen = probs[-1].argmax(-1)
            drawn = [i for i in range(len(rows)) if step < n[i]] if sampling.temperature > 0 else []
            if drawn:  # rows that want no more keep step without using up their random numbers
                chosen[drawn] = draw(probs[-1][drawn], [rows[i].rng for i in drawn])
            if history is not None:
                history = torch.cat([history, chosen[:, None]], 1)
            for row, token in zip(ids, chosen.tolist(), strict=True):
                row.append(token)
        self.ahead = [(len(row.ids), guesses) for row, guesses in zip(rows, ids, strict=True)]
        wanted = [guesses[:most] for guesses, most in zip(ids, n, strict=True)]
        return Draft(wanted, None if sampling.temperature == 0 else torch.stack(probs, 1))

    def forget_what_was_wrong(self, rows: Sequence[Row]) -> None:
        """Of the guesses that were read, keep those that became part of their row."""
        assert self.reader is not None
        too_many = []
        for row, n_read, (length, guesses) in zip(rows, self.reader.n_read, self.ahead, strict=True):
            n_right = 0
            for mine, taken in zip(guesses, row.ids[length:], strict=False):
                if mine != taken:
                    break
                n_right += 1
            too_many.append(max(0, n_read - (length - row.first + n_right)))
        self.reader.forget(too_many)

    def select(self, rows: Sequence[int]) -> None:
        assert self.reader is not None
        self.reader.select(rows)
        self.ahead = [self.ahead[row] for row in rows]


def n_columns_for(rows: Sequence[Row], n_new: int, n_most: int) -> int:
    """Columns of a cache for rows that grow by n_new tokens: with room for padding where there are several rows."""
    longest = max(row.n_seen for row in rows)
    return longest + n_new + n_most + (n_new if len(rows) > 1 else 0)
