"""Documents in bounded pieces, and the rows that were not fit to be one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from legollm.errors import DataError

BLOCK_BYTES = 1 << 19
"""How much of a file is read at once; a document longer than this arrives in several pieces."""

KEPT_MESSAGES = 10


class Piece(NamedTuple):
    """A part of a document: text, where it begins, and whether the document ends with it."""

    text: str
    file: str
    line: int
    """Line of `file` (row, for a table) in which the text begins, from 1."""
    ends: bool

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def halves(self, at: int) -> tuple["Piece", "Piece"]:
        """The piece up to character `at`, and the rest of it."""
        line = self.line + self.text.count("\n", 0, at)
        return self._replace(text=self.text[:at], ends=False), self._replace(text=self.text[at:], line=line)


class Document(NamedTuple):
    """A whole document and where it begins."""

    text: str
    file: str
    line: int


OnBadRow = Literal["stop", "skip"]


@dataclass
class BadRows:
    """What to do with a row that cannot be used, and how many there were."""

    policy: OnBadRow
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
            raise DataError(f"{message} (on_bad_row=skip leaves such rows out and counts them)")
        self.n += 1
        if len(self.messages) < KEPT_MESSAGES:
            self.messages.append(message)


def whole(pieces: Iterable[Piece]) -> Iterator[Document]:
    """Pieces joined to documents, for those who need each text in one string."""
    parts: list[Piece] = []
    for piece in pieces:
        parts.append(piece)
        if piece.ends:
            yield Document("".join(part.text for part in parts), parts[0].file, parts[0].line)
            parts.clear()
    assert not parts, "a source ended in the middle of a document"
