"""One long row of ids that lies in one file or in several."""

import mmap
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids = np.ndarray[Any, np.dtype[Any]]


class Shards:
    """Several arrays as one sequence: read where somebody looks, and nowhere else.

    It is indexed as an array is, by a slice or an array of places, and answers with an array.
    """

    def __init__(self, parts: Sequence[Ids]) -> None:
        """parts: (N1,), (N2,), ... of one type, such as mapped files."""
        self.parts = tuple(parts)
        self.ends = np.cumsum([len(part) for part in parts])
        """Where each part ends, in ids."""

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, places: "slice | NDArray[np.integer[Any]]") -> Ids:
        if isinstance(places, slice):
            start, stop, step = places.indices(len(self))
            assert step == 1, "ids are read forwards and without gaps"
            begins = self.ends - [len(part) for part in self.parts]
            cuts = zip(self.parts, begins.tolist(), strict=True)
            return np.concatenate([part[max(start - at, 0) : max(stop - at, 0)] for part, at in cuts])
        found = np.empty(places.shape, self.parts[0].dtype)
        owners = np.searchsorted(self.ends, places, side="right")
        for owner in np.unique(owners).tolist():
            part = self.parts[owner]
            here = owners == owner
            found[here] = part[places[here] - (self.ends[owner] - len(part))]
        return found


Tokens: TypeAlias = Ids | Shards
"""The ids of a split, in one file or in several: len(), slices and arrays of places."""


def joined(parts: Sequence[Ids]) -> Tokens:
    """One sequence out of parts; a single one is what it is."""
    return parts[0] if len(parts) == 1 else Shards(parts)


def let_go(ids: Tokens) -> None:
    """Give back the pages of mapped files that were read: they stay in the system's cache, not in this process.

    Otherwise reading here and there makes the process as large as the file, since each place brings its neighbours.
    """
    for part in ids.parts if isinstance(ids, Shards) else (ids,):
        if isinstance(part.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            part.base.madvise(mmap.MADV_DONTNEED)
