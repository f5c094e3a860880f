"""Where a text is read when all of it is to be predicted: windows that follow each other, or overlap by a stride."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from legollm.data.shards import Tokens
from legollm.evaluation.likelihood import Continuation


class Window(NamedTuple):
    """A part of a text: what is read before, and what is predicted."""

    start: int
    first: int
    stop: int
    """Ids start .. first - 1 are context, first .. stop - 1 are predicted, each from all between `start` and itself."""

    def of(self, ids: Tokens | Sequence[int]) -> Continuation:
        read = np.asarray(ids[self.start : self.stop]).tolist()
        return Continuation(read[: self.first - self.start], read[self.first - self.start :])


def windows(n_ids: int, *, seq_len: int, stride: int) -> Iterator[Window]:
    """Windows in which every id of a text but the first is predicted once, reading at most seq_len ids at a time.

    The first window predicts seq_len ids, every later one the next `stride`, with at least seq_len - stride ids before
    each. stride = 1 gives every id the longest context there is, stride = seq_len reads every id but once.
    """
    first = 1
    while first < n_ids:
        stop = min(first + (seq_len if first == 1 else stride), n_ids)
        yield Window(max(0, stop - 1 - seq_len), first, stop)
        first = stop


def windows_apart(ids: Tokens, *, seq_len: int) -> Iterator[Continuation]:
    """The whole split in windows of seq_len that do not overlap; documents follow each other as in training."""
    for first in range(1, len(ids), seq_len):
        yield Window(first - 1, first, min(first + seq_len, len(ids))).of(ids)


def windows_of_documents(
    ids: Tokens, starts: Sequence[int] | NDArray[Any], *, begin: int | None, seq_len: int, stride: int
) -> Iterator[tuple[int, Continuation]]:
    """Every document by itself, in overlapping windows, each with the number of its document.

    starts: where documents begin. begin: the id that stands before each; with None nothing does, and the first id of
    a document, which nothing is before, is not predicted.
    """
    ends = [*np.asarray(starts[1:]).tolist(), len(ids)]
    for number, (start, end) in enumerate(zip(np.asarray(starts).tolist(), ends, strict=True)):
        text = np.asarray(ids[start:end]).tolist()
        text = text if begin is None else [begin, *text]
        for window in windows(len(text), seq_len=seq_len, stride=stride):
            yield number, window.of(text)
