"""Token files -> batches, without reading the corpus into memory.

A pass over N tokens (an epoch) cuts them into windows of T at a shift that is drawn anew each time, and puts the
windows into a new order. Every token but the first is the target of exactly one window in every epoch; the windows at
the two ends of the file may be shorter, and are filled up with targets that do not count.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from legollm.errors import DataError
from legollm.interfaces import Batch, BatchSource

FORMAT = "legollm-tokens"
FORMAT_VERSION = 1
"""What the meta.json of a prepared folder calls itself."""

Ids = np.ndarray[Any, np.dtype[Any]]

IGNORED = -100
"""Target of a position that does not count, as everywhere in PyTorch."""


class TokenFile:
    """One split of a prepared folder, mapped into memory: reading a slice reads only that slice."""

    def __init__(self, folder: Path, split: Literal["train", "val"]) -> None:
        """
        Raises:
            DataError: no prepared folder, an unfinished one, or one of another format.
        """
        self.folder = folder
        self.split = split
        self.meta = read_meta(folder)
        counts = self.meta["splits"][split]
        self.n_bytes: int = counts["n_bytes"]
        """UTF-8 bytes of text that the tokens stand for: what bits per byte are divided by."""
        self.ids = _mapped(folder / f"{split}.bin", np.dtype(self.meta["dtype"]).newbyteorder("<"), counts["n_tokens"])
        """(N,) uint16 or uint32."""
        self.document_starts = _mapped(folder / f"{split}.idx", np.dtype("<u8"), counts["n_documents"])
        """(documents,) uint64, in tokens."""

    def __len__(self) -> int:
        return len(self.ids)


def read_meta(folder: Path) -> dict[str, Any]:
    """What `prepare` wrote about a folder.

    Raises:
        DataError: see TokenFile.
    """
    path = folder / "meta.json"
    try:
        meta: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{folder}: no meta.json, so not (or not completely) prepared; run `legollm data prepare`"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); prepare the folder again") from error
    if not isinstance(meta, dict) or (meta.get("format"), meta.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise DataError(f"{path}: not {FORMAT} version {FORMAT_VERSION}; prepare the folder again with this version")
    return meta


def _mapped(path: Path, dtype: np.dtype[Any], n_items: int) -> Ids:
    size = path.stat().st_size if path.is_file() else 0
    if size != n_items * dtype.itemsize:
        raise DataError(f"{path}: {size} bytes where meta.json promises {n_items * dtype.itemsize}; prepare again")
    if n_items == 0:
        return np.zeros(0, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, mode="r")


class WindowBatches:
    """Endless batches of windows of a token file, in a shuffled order that can be continued anywhere.

    The order of the windows is a function of the seed and the epoch alone. A batch takes the next batch_size *
    world_size of them, of which each rank gets its own consecutive batch_size, so that neither resuming nor another
    number of processes at the same total changes what is learned from when.
    """

    def __init__(
        self, ids: Ids, *, batch_size: int, seq_len: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        """ids: (N,), such as TokenFile.ids; it is only read where a window needs it.

        Raises:
            DataError: fewer tokens than one window and the target after it.
        """
        if len(ids) < seq_len + 1:
            raise DataError(
                f"{len(ids)} tokens are fewer than the {seq_len + 1} of one window and its last target; "
                f"set train.seq_len to at most {max(len(ids) - 1, 0)}, or give more text"
            )
        self.ids = ids
        self.batch_size = batch_size
        self.seq_len = seq_len
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._begin_epoch(0, cursor=0)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        starts = self._take(self.batch_size * self.world_size)
        return _batch(self.ids, starts[self.rank * self.batch_size :][: self.batch_size], self.seq_len)

    def state_dict(self) -> dict[str, Any]:
        """Epoch, windows of it that all ranks together have had, and what gives these numbers their meaning."""
        return {"epoch": self.epoch, "cursor": self.cursor, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the batches that led to `state`, with any batch_size and world_size.

        Raises:
            DataError: the state is about other tokens, another window length or another seed.
        """
        for key, mine in self._identity().items():
            if state[key] != mine:
                raise DataError(f"the saved place in the data has {key} = {state[key]}, this run {mine}; set it back")
        self._begin_epoch(state["epoch"], state["cursor"])

    def _identity(self) -> dict[str, int]:
        return {"seed": self.seed, "seq_len": self.seq_len, "n_tokens": len(self.ids)}

    def _begin_epoch(self, epoch: int, cursor: int) -> None:
        # the legacy generator, because its stream is frozen: a run can be resumed under a later numpy
        low, high = self.seed & 0xFFFF_FFFF, self.seed >> 32 & 0xFFFF_FFFF
        rng = np.random.RandomState([low, high, epoch])
        self.epoch, self.cursor = epoch, cursor
        self.shift = rng.randint(self.seq_len)
        n_windows = -(-(len(self.ids) - 1 + self.shift) // self.seq_len)
        self.order: Ids = rng.permutation(n_windows)  # 8 bytes for every T tokens: 0.4 % of the file at T = 1024

    def _take(self, n: int) -> list[int]:
        """Where the next n windows start; the first of an epoch may start before the file."""
        starts: list[int] = []
        while len(starts) < n:
            if self.cursor == len(self.order):
                self._begin_epoch(self.epoch + 1, cursor=0)
            taken = self.order[self.cursor : self.cursor + n - len(starts)]
            starts += (taken * self.seq_len - self.shift).tolist()
            self.cursor += len(taken)
        return starts


class Chained:
    """A BatchSource that takes n_first batches from one source and all later ones from another."""

    def __init__(self, first: BatchSource, n_first: int, then: BatchSource) -> None:
        self.first, self.n_first, self.then = first, n_first, then
        self.n_taken = 0

    def __next__(self) -> Any:
        source = self.first if self.n_taken < self.n_first else self.then
        self.n_taken += 1
        return next(source)

    def state_dict(self) -> dict[str, Any]:
        return {"n_taken": self.n_taken, "first": self.first.state_dict(), "then": self.then.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Raises:
            DataError: one of the two sources is another one.
        """
        self.n_taken = int(state["n_taken"])
        self.first.load_state_dict(state["first"])
        self.then.load_state_dict(state["then"])


def validation_batches(ids: Ids, *, batch_size: int, seq_len: int) -> Iterator[Batch]:
    """The whole split once, in order: each token but the first is a target exactly once.

    A split shorter than a window is one row that is filled up; the last batch may have fewer rows.

    Raises:
        DataError: not a single target.
    """
    if len(ids) < 2:
        raise DataError(f"{len(ids)} tokens to validate on, and at least 2 are needed; use a larger val_fraction")
    starts = range(0, len(ids) - 1, seq_len)
    for first in range(0, len(starts), batch_size):
        yield _batch(ids, starts[first : first + batch_size], seq_len)


def _batch(ids: Ids, starts: Sequence[int], seq_len: int) -> Batch:
    """Windows of seq_len ids as (B, T) tokens and the targets after each; what lies outside the file is filled up."""
    tokens = np.zeros((len(starts), seq_len), np.int64)
    targets = np.full((len(starts), seq_len), IGNORED, np.int64)
    for row, start in enumerate(starts):
        first, last = max(start, 0), min(start + seq_len, len(ids) - 1)
        tokens[row, : last - first] = ids[first:last]
        targets[row, : last - first] = ids[first + 1 : last + 1]
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets))
