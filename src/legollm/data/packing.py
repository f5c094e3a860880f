"""Whole documents packed into rows: no row begins in the middle of one, and hardly a column is wasted.

Documents of different lengths are put together so that they fill rows of T, as in Ding et al. 2024 (arXiv:2404.10830);
a mask keeps them apart and positions start again with each (Krell et al. 2021, arXiv:2107.02027), so that the loss is
that of each document alone. A document longer than a row is cut into pieces of T. Every token but the first of each
document is a target exactly once per epoch.

    epoch:   all pieces in a new order
    block:   the next look_ahead pieces, packed; their rows in a new order
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from legollm.data.loader import IGNORED, check_same, frozen_random
from legollm.data.shards import Ids, Tokens, let_go
from legollm.errors import DataError
from legollm.interfaces import PackedBatch

LOOK_AHEAD = 4096
"""Pieces that are packed together; what they do not fill is left empty, about one row in hundreds."""


class Row(NamedTuple):
    """The pieces of one row, from left to right."""

    starts: NDArray[np.int64]
    """(n,) where each begins in the token file."""
    lengths: NDArray[np.int64]
    """(n,) its targets: it is read up to the token before its last."""


class Packed:
    """Rows of packed documents in an order that is a function of the seed and the epoch alone."""

    def __init__(
        self,
        ids: Tokens,
        document_starts: Ids,
        *,
        seq_len: int,
        seed: int,
        look_ahead: int = LOOK_AHEAD,
        is_target: NDArray[np.bool_] | None = None,
    ) -> None:
        """ids: (N,) and document_starts: (documents,), as in a TokenFile. is_target: (N,) whether each is to be
        learned where something stands in front of it; None is all.

        Raises:
            DataError: no document has two tokens.
        """
        self.ids, self.seq_len, self.seed, self.look_ahead = ids, seq_len, seed, look_ahead
        self.is_target = is_target
        self.starts = np.asarray(document_starts).astype(np.int64)
        self.n_targets = np.maximum(np.diff(self.starts, append=len(ids)) - 1, 0)  # the first token is nobody's target
        self.last_piece = np.cumsum(-(-self.n_targets // seq_len))  # how many pieces there are up to each document
        if not len(self.starts) or not self.last_piece[-1]:
            raise DataError(
                f"{len(self.starts)} documents, and none has two tokens: nothing to predict; give more text"
            )
        self.n_pieces = int(self.last_piece[-1])
        self.epoch = -1
        self._begin_block(0, 0, cursor=0)

    def take(self, n: int) -> list[Row]:
        """The next n rows."""
        rows: list[Row] = []
        while len(rows) < n:
            if self.cursor == len(self.rows):
                self._begin_next_block()
            taken = self.rows[self.cursor : self.cursor + n - len(rows)]
            rows += taken
            self.cursor += len(taken)
        return rows

    def build(self, rows: Sequence[Row]) -> PackedBatch:
        n_pieces = [len(row.starts) for row in rows]
        starts, lengths = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # place in the own piece
        n_filled = np.array([row.lengths.sum() for row in rows])
        gaps = np.repeat(np.arange(len(rows)) * self.seq_len - (np.cumsum(n_filled) - n_filled), n_filled)
        columns = np.arange(n_filled.sum()) + gaps  # in the batch as one long row
        source = np.repeat(starts, lengths) + inside
        number = np.concatenate([np.arange(n) for n in n_pieces])
        shape = (len(rows), self.seq_len)
        tokens, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        targets, documents = np.full(shape, IGNORED, np.int64), np.full(shape, -1, np.int64)
        tokens.flat[columns] = self.ids[source]
        following = self.ids[source + 1]
        targets.flat[columns] = (
            following if self.is_target is None else np.where(self.is_target[source + 1], following, IGNORED)
        )
        positions.flat[columns] = inside
        documents.flat[columns] = np.repeat(number, lengths)
        return PackedBatch(*map(torch.from_numpy, (tokens, targets, documents, positions)))

    def let_go(self) -> None:
        let_go(self.ids)

    def state_dict(self) -> dict[str, Any]:
        """Epoch, block and rows of it that were taken: from these the block is packed again as it was."""
        return {"epoch": self.epoch, "block": self.block, "cursor": self.cursor, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Raises:
            DataError: the state is about other documents, another row length, another seed, or about windows.
        """
        check_same(state, self._identity())
        self._begin_block(state["epoch"], state["block"], state["cursor"])

    def figures(self) -> dict[str, float]:
        before = self.block * self.look_ahead
        in_block = min(self.look_ahead, self.n_pieces - before)
        return {"epochs": self.epoch + (before + in_block * self.cursor / len(self.rows)) / self.n_pieces}

    def figures_after(self, n_rows: int) -> dict[str, float]:
        return {"epochs": float(n_rows * self.seq_len / self.n_targets.sum())}

    @property
    def share_filled(self) -> float:
        """Columns of the present block that hold a target, of all."""
        return float(sum(row.lengths.sum() for row in self.rows) / (len(self.rows) * self.seq_len))

    def _identity(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "seq_len": self.seq_len,
            "n_tokens": len(self.ids),
            "n_documents": len(self.starts),
            "look_ahead": self.look_ahead,
        }

    def _begin_next_block(self) -> None:
        done = (self.block + 1) * self.look_ahead >= self.n_pieces
        self._begin_block(self.epoch + done, 0 if done else self.block + 1, cursor=0)

    def _begin_block(self, epoch: int, block: int, cursor: int) -> None:
        if epoch != self.epoch:
            self.order = frozen_random(self.seed, epoch).permutation(self.n_pieces)
        self.epoch, self.block, self.cursor = epoch, block, cursor
        chosen = self.order[block * self.look_ahead :][: self.look_ahead]
        owner = np.searchsorted(self.last_piece, chosen, side="right")  # the document each is a piece of
        first = self.last_piece[owner] + -self.n_targets[owner] // self.seq_len  # the first piece of that document
        at = (chosen - first) * self.seq_len
        starts, lengths = self.starts[owner] + at, np.minimum(self.n_targets[owner] - at, self.seq_len)
        packed = pack(lengths, self.seq_len)
        order = frozen_random(self.seed, epoch, block).permutation(len(packed))
        self.rows = [Row(starts[packed[i]], lengths[packed[i]]) for i in order]


def pack(lengths: NDArray[np.integer[Any]], size: int) -> list[list[int]]:
    """Best-fit decreasing: from the longest to the shortest, each goes where the least room is left that it fits into.

    lengths: (n,), of 1 to size -> which of them share a row.
    """
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # rows by the room that is left in them
    rooms: list[int] = []  # the amounts of room there are, ascending
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        at = bisect_left(rooms, length)
        if at < len(rooms):
            room = rooms[at]
            row = with_room[room].pop()
            if not with_room[room]:
                del rooms[at]
            rows[row].append(item)
        else:
            room, row = size, len(rows)
            rows.append([item])
        left = room - length
        if left:
            if not with_room.setdefault(left, []):
                insort(rooms, left)
            with_room[left].append(row)
    return rows
