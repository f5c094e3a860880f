"""Token files -> batches, without reading the corpus into memory.

Two things make a batch: an endless order of rows (windows here, packed documents in packing.py, both of several
sources in mixture.py), and `RowBatches`, which deals the rows out. A pass over N tokens (an epoch) cuts them into
windows of T at a shift that is drawn anew each time, and puts the windows into a new order. Every token but the first
is the target of exactly one window in every epoch; the windows at the two ends of the file may be shorter, and are
filled up with targets that do not count.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from legollm.data.shards import Ids, Tokens, joined, let_go
from legollm.errors import DataError
from legollm.interfaces import Batch, BatchSource

FORMAT = "legollm-tokens"
FORMAT_VERSION = 1
"""What the meta.json of a prepared folder calls itself."""

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
        dtype = np.dtype(self.meta["dtype"]).newbyteorder("<")
        files = files_of(split, counts)
        self.ids: Tokens = joined([_mapped(folder / name, dtype, n_tokens) for name, n_tokens in files.items()])
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


def files_of(split: str, counts: Mapping[str, Any]) -> dict[str, int]:
    """The files that hold the ids of a split, in their order, and how many ids are in each.

    counts: what meta.json says of the split; it lists shards only where there is more than one file.
    """
    if "shards" in counts:
        return {shard["file"]: shard["n_tokens"] for shard in counts["shards"]}
    return {f"{split}.bin": counts["n_tokens"]}


def _mapped(path: Path, dtype: np.dtype[Any], n_items: int) -> Ids:
    size = path.stat().st_size if path.is_file() else 0
    if size != n_items * dtype.itemsize:
        raise DataError(f"{path}: {size} bytes where meta.json promises {n_items * dtype.itemsize}; prepare again")
    if n_items == 0:
        return np.zeros(0, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, mode="r")


ROWS_HELD = 1000
"""So many rows are read before the pages they lie on are given back; one row brings 64 KB of a large file with it."""


class Rows(Protocol):
    """An endless order of rows, new in every epoch, that can be continued anywhere."""

    def take(self, n: int) -> Sequence[Any] | NDArray[Any]:
        """What tells the next n rows; cheap, because every rank takes the rows of all ranks."""
        ...

    def build(self, rows: Any) -> Any:
        """The batch of some of the rows that were taken."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def let_go(self) -> None:
        """Keep nothing in memory of the files that the rows were built from."""
        ...

    def figures(self) -> dict[str, float]:
        """How often the text was read so far, for the log of a run: `epochs`, or one `epochs_NAME` per source."""
        ...

    def figures_after(self, n_rows: int) -> dict[str, float]:
        """What they will be, about, when so many rows were taken."""
        ...


class TextBatches(BatchSource, Protocol):
    """A supply of batches that can tell how often its text was read."""

    def figures(self) -> dict[str, float]: ...


class RowBatches:
    """Endless batches of an order of rows, shared out among ranks.

    A batch takes the next batch_size * world_size rows, of which each rank gets its own consecutive batch_size. The k
    micro-batches of a step follow each other, so a step is the next k * batch_size * world_size rows, whatever the
    three numbers are: neither resuming nor another division at the same product changes what is learned from when.
    """

    def __init__(self, rows: Rows, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.rows = rows
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.n_held = 0  # rows whose pages may be in memory

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.n_held > ROWS_HELD:
            self.rows.let_go()
            self.n_held = 0
        self.n_held += self.batch_size
        taken = self.rows.take(self.batch_size * self.world_size)
        return self.rows.build(taken[self.rank * self.batch_size :][: self.batch_size])

    def state_dict(self) -> dict[str, Any]:
        """The place in the order of all ranks together: the same on each of them."""
        return self.rows.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the batches that led to `state`, with any batch_size and world_size.

        Raises:
            DataError: the state is about other tokens, another row length or another seed.
        """
        self.rows.load_state_dict(state)

    def figures(self) -> dict[str, float]:
        """How often the text was read so far."""
        return self.rows.figures()


class Windows:
    """The windows of a token file in an order that is a function of the seed and the epoch alone."""

    def __init__(self, ids: Tokens, *, seq_len: int, seed: int) -> None:
        """ids: (N,), such as TokenFile.ids; it is only read where a window needs it.

        Raises:
            DataError: fewer tokens than one window and the target after it.
        """
        if len(ids) < seq_len + 1:
            raise DataError(
                f"{len(ids)} tokens are fewer than the {seq_len + 1} of one window and its last target; "
                f"set train.seq_len to at most {max(len(ids) - 1, 0)}, or give more text"
            )
        self.ids, self.seq_len, self.seed = ids, seq_len, seed
        self._begin_epoch(0, cursor=0)

    def take(self, n: int) -> NDArray[np.int64]:
        """(n,) where the next n windows start; the first of an epoch may start before the file."""
        parts: list[NDArray[np.int64]] = []
        while n:
            if self.cursor == len(self.order):
                self._begin_epoch(self.epoch + 1, cursor=0)
            taken = self.order[self.cursor : self.cursor + n]
            parts.append(taken.astype(np.int64) * self.seq_len - self.shift)
            self.cursor += len(taken)
            n -= len(taken)
        return np.concatenate(parts)

    def build(self, rows: NDArray[np.int64]) -> Batch:
        return _batch(self.ids, rows, self.seq_len)

    def let_go(self) -> None:
        let_go(self.ids)

    def state_dict(self) -> dict[str, Any]:
        """Epoch, windows of it that were taken, and what gives these numbers their meaning."""
        return {"epoch": self.epoch, "cursor": self.cursor, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Raises:
            DataError: the state is about other tokens, another window length or another seed.
        """
        check_same(state, self._identity())
        self._begin_epoch(state["epoch"], state["cursor"])

    def figures(self) -> dict[str, float]:
        return {"epochs": self.epoch + self.cursor / len(self.order)}

    def figures_after(self, n_rows: int) -> dict[str, float]:
        return {"epochs": n_rows * self.seq_len / (len(self.ids) - 1)}

    def _identity(self) -> dict[str, int]:
        return {"seed": self.seed, "seq_len": self.seq_len, "n_tokens": len(self.ids)}

    def _begin_epoch(self, epoch: int, cursor: int) -> None:
        rng = frozen_random(self.seed, epoch)
        self.epoch, self.cursor = epoch, cursor
        self.shift = rng.randint(self.seq_len)
        n_windows = -(-(len(self.ids) - 1 + self.shift) // self.seq_len)
        self.order = np.arange(n_windows, dtype=np.uint32)  # 4 bytes for T tokens: 0.2 % of the file at T = 1024
        rng.shuffle(self.order)


class WindowBatches(RowBatches):
    """Endless batches of the windows of one token file: the usual case in one call."""

    def __init__(
        self, ids: Tokens, *, batch_size: int, seq_len: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        """
        Raises:
            DataError: see Windows.
        """
        windows = Windows(ids, seq_len=seq_len, seed=seed)
        super().__init__(windows, batch_size=batch_size, rank=rank, world_size=world_size)


def frozen_random(seed: int, *place: int) -> np.random.RandomState:
    """Random numbers of a seed and a place in the data: the legacy generator, whose stream never changes, so that a
    run can be resumed under a later numpy."""
    return np.random.RandomState([seed & 0xFFFF_FFFF, seed >> 32 & 0xFFFF_FFFF, *place])


def check_same(state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """
    Raises:
        DataError: a saved place in the data that is a place in other data.
    """
    for key, mine in identity.items():
        if state.get(key) != mine:
            raise DataError(f"the saved place in the data has {key} = {state.get(key)}, this run {mine}; set it back")


class Chained:
    """A BatchSource that takes n_first batches from one source and all later ones from another."""

    def __init__(self, first: BatchSource, n_first: int, then: TextBatches) -> None:
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

    def figures(self) -> dict[str, float]:
        """How often the text of the later batches was read so far."""
        return self.then.figures()


def validation_batches(ids: Tokens, *, batch_size: int, seq_len: int) -> Iterator[Batch]:
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


def _batch(ids: Tokens, starts: Sequence[int] | NDArray[np.int64], seq_len: int) -> Batch:
    """Windows of seq_len ids as (B, T) tokens and the targets after each; what lies outside the file is filled up."""
    begins = np.asarray(starts, np.int64)
    first, last = np.maximum(begins, 0), np.minimum(begins + seq_len, len(ids) - 1)
    places = first[:, None] + np.arange(seq_len + 1)
    read = ids[np.minimum(places, len(ids) - 1)].astype(np.int64)  # (B, T + 1), one gather for all rows
    tokens, targets = read[:, :-1].copy(), read[:, 1:].copy()
    if (last - first < seq_len).any():
        outside = places[:, :-1] >= last[:, None]
        tokens[outside], targets[outside] = 0, IGNORED
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets))
