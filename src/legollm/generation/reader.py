"""A model reading rows that do not keep step: some are ahead, some have to forget what they read too early."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from legollm.generation.cache import FullCache, GenerativeModel
from legollm.generation.complete import Row
from legollm.generation.generate import left_padded


class Reading(Protocol):
    """What a draft is written with: see `Reader`."""

    @property
    def n_read(self) -> Sequence[int]:
        """How many tokens of each row are remembered."""
        ...

    def read(self, rows: Sequence[Row], guesses: Sequence[Sequence[int]], n_wanted: int) -> Tensor: ...

    def forget(self, n_tokens: Sequence[int]) -> None: ...

    def select(self, rows: Sequence[int]) -> None: ...


class Reader:
    """A model, its cache, and how much of each row is in it.

    What is read next is what a row holds beyond that. Where less is new of a row than of others it is padded on the
    left, and columns that a row forgets while others keep theirs become padding, which no later token sees. When all
    columns are taken, the rows are read again, close together.
    """

    def __init__(self, model: GenerativeModel, n_rows: int, n_columns: int, chunk: int | None = None) -> None:
        """n_columns: of the cache. chunk: tokens that are read at once; None is all."""
        self.model, self.chunk = model, chunk
        self.device = next(model.parameters()).device
        self.cache = FullCache.for_model(model, n_rows, n_columns)
        self.n_read = [0] * n_rows
        self.is_even = True
        """Whether all rows have been read equally far, so that their columns are their positions."""

    def read(self, rows: Sequence[Row], guesses: Sequence[Sequence[int]], n_wanted: int) -> Tensor:
        """Read what is new of each row, and its guesses after it: the states of the latest columns (B, n_wanted, D)."""
        texts = self.new(rows, guesses)
        if self.cache.length + max(map(len, texts)) > self.cache.max_len:
            self.cache.reset()
            self.cache.select(range(len(rows)))
            self.n_read, self.is_even = [0] * len(rows), True
            texts = self.new(rows, guesses)
        tokens, positions = left_padded(texts, self.device)
        self.is_even &= positions is None and len(set(self.n_read)) == 1
        if not self.is_even:
            positions = torch.tensor(
                [
                    [-1] * (tokens.size(1) - len(text)) + list(range(n, n + len(text)))
                    for n, text in zip(self.n_read, texts, strict=True)
                ],
                device=self.device,
            )
        width = tokens.size(1)
        chunk = width if self.chunk is None else self.chunk
        start = 0
        while width - start > max(chunk, n_wanted):
            stop = min(start + chunk, width - n_wanted)
            piece = slice(start, stop)
            self.model.hidden(tokens[:, piece], None if positions is None else positions[:, piece], self.cache)
            start = stop
        states = self.model.hidden(tokens[:, start:], None if positions is None else positions[:, start:], self.cache)
        self.n_read = [n + len(text) for n, text in zip(self.n_read, texts, strict=True)]
        return states[:, -n_wanted:]

    def new(self, rows: Sequence[Row], guesses: Sequence[Sequence[int]]) -> list[list[int]]:
        """Of each row and its guesses, what is not in the cache."""
        texts = []
        for row, more, n in zip(rows, guesses, self.n_read, strict=True):
            n_own = row.n_seen - n  # negative where guesses have been read before
            texts.append([*row.ids[len(row.ids) - n_own :], *more] if n_own >= 0 else list(more[-n_own:]))
        return texts

    def forget(self, n_tokens: Sequence[int]) -> None:
        """Row i forgets its latest n_tokens[i] tokens."""
        if any(n_tokens):
            self.cache.forget(n_tokens)
            self.n_read = [n - less for n, less in zip(self.n_read, n_tokens, strict=True)]
            self.is_even &= len(set(n_tokens)) == 1

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        self.cache.select(rows)
        self.n_read = [self.n_read[row] for row in rows]


class Glance:
    """A model that looks back a few tokens only, and so needs no memory of them."""

    def __init__(self, model: GenerativeModel, n_rows: int, n_back: int) -> None:
        self.model, self.n_back = model, n_back
        self.n_read = [0] * n_rows

    def read(self, rows: Sequence[Row], guesses: Sequence[Sequence[int]], n_wanted: int) -> Tensor:
        """The state of the latest token of each row, after its guesses: (B, 1, D)."""
        assert n_wanted == 1
        texts = [[*row.ids[row.first :][-self.n_back :], *more] for row, more in zip(rows, guesses, strict=True)]
        return self.model.hidden(*left_padded([text[-self.n_back :] for text in texts]))[:, -1:]

    def forget(self, n_tokens: Sequence[int]) -> None:
        """Nothing was remembered."""

    def select(self, rows: Sequence[int]) -> None:
        self.n_read = [0] * len(rows)
