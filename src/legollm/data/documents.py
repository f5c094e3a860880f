"""Documents in bounded pieces, and the rows that were not fit to be one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from legollm.errors import DataError

BLOCK_BYTES = 1 << 16
"""How much of a file is read at once, so little that the processor's cache holds it while it is checked and cut; a
document longer than this arrives in several pieces."""

KEPT_MESSAGES = 10


class Piece(NamedTuple):
    """A part of a document: its text, where it begins, and whether the document ends with it.

    The text is valid UTF-8 and stays bytes all the way: files, hashes and compiled encoders want nothing else, and a
    string in between would cost as much as half of the encoding.
    """

    data: bytes
    file: str
    line: int
    """Line of `file` (row, for a table) in which the text begins, from 1."""
    ends: bool

    @property
    def text(self) -> str:
        return self.data.decode("utf-8")

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def halves(self, at: int) -> tuple["Piece", "Piece"]:
        """The piece up to byte `at`, where a character begins, and the rest of it."""
        first, rest = self.data[:at], self.data[at:]
        return self._replace(data=first, ends=False), self._replace(data=rest, line=self.line + n_lines(first))


class Document(NamedTuple):
    """A whole document and where it begins."""

    text: str
    file: str
    line: int


def n_lines(data: bytes) -> int:
    """How many line feeds there are; NumPy is four times as fast as `bytes.count` and lets other threads run."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord("\n")))


def _begins_character(data: bytes) -> NDArray[np.bool_]:
    """True at the first byte of each character: all but 0x80 to 0xBF, which are below -64 as signed numbers."""
    return np.frombuffer(data, np.int8) >= -64


def n_characters(data: bytes) -> int:
    """How many characters UTF-8 bytes are."""
    return len(data) if data.isascii() else int(np.count_nonzero(_begins_character(data)))


def place_of_character(data: bytes, number: int) -> int:
    """The byte with which a character begins, by its number from 0."""
    return int(np.flatnonzero(_begins_character(data))[number])


def next_character(data: bytes, at: int) -> int:
    """The first place from `at` on where a character begins, or the end."""
    while 0 < at < len(data) and data[at] & 0b1100_0000 == 0b1000_0000:
        at += 1
    return at


OnBadRow = Literal["stop", "skip"]


@dataclass
class BadRows:
    """What to do with a row that cannot be used, and how many there were."""

    policy: OnBadRow
    way_out: str = "data.read.on_bad_row=skip leaves such rows out and counts them"
    """What a message ends with, where there is such a setting."""
    n: int = 0
    messages: list[str] = field(default_factory=list)
    """The first few, in full."""

    def found(self, file: str, line: int, what: str) -> None:
        """Count a bad row and go on, or stop.

        Raises:
            DataError: the policy is to stop.
        """
        message = f"{file}:{line}: {what}"
        if self.policy == "stop":
            raise DataError(f"{message} ({self.way_out})" if self.way_out else message)
        self.n += 1
        if len(self.messages) < KEPT_MESSAGES:
            self.messages.append(message)


def whole(pieces: Iterable[Piece]) -> Iterator[Document]:
    """Pieces joined to documents, for those who need each text in one string."""
    parts: list[Piece] = []
    for piece in pieces:
        parts.append(piece)
        if piece.ends:
            yield Document(b"".join(part.data for part in parts).decode("utf-8"), parts[0].file, parts[0].line)
            parts.clear()
    assert not parts, "a source ended in the middle of a document"
