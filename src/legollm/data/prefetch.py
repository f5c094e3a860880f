"""Batches that are read before they are asked for."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from legollm.data.loader import TextBatches


class _Read(NamedTuple):
    """A batch, and how things stand once it is handed out."""

    batch: Any
    state: dict[str, Any]
    figures: dict[str, float]


class Prefetched:
    """The batches of a source in the same order, the next n_ahead of them read beside what is done with this one.

    A single thread reads, one batch after the other. What it has read ahead is not in `state_dict`.
    """

    def __init__(self, batches: TextBatches, n_ahead: int) -> None:
        self.batches, self.n_ahead = batches, n_ahead
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self.waiting: deque[Future[_Read]] = deque()
        self._stand()

    def _stand(self) -> None:
        self.state, self.now = self.batches.state_dict(), self.batches.figures()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while len(self.waiting) <= self.n_ahead:
            self.waiting.append(self.thread.submit(self._read))
        batch, self.state, self.now = self.waiting.popleft().result()
        return batch

    def _read(self) -> _Read:
        return _Read(next(self.batches), self.batches.state_dict(), self.batches.figures())

    def state_dict(self) -> dict[str, Any]:
        """The source's, after the batches that were handed out."""
        return self.state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Raises:
            DataError: the source refuses the state.
        """
        for future in self.waiting:
            future.cancel()
        self.waiting.clear()
        self.thread.submit(self.batches.load_state_dict, state).result()  # after what is being read
        self._stand()

    def figures(self) -> dict[str, float]:
        """The source's, after the batches that were handed out."""
        return self.now
