"""What a token is made of: its bytes as one can read them, and the merges that built it as a tree down to bytes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from legollm.errors import TokenizerError
from legollm.interfaces import Tokenizer

Merge = tuple[bytes, bytes]


@runtime_checkable
class LearnedMerges(Protocol):
    """A tokenizer that joins pairs, in rank order."""

    @property
    def merges(self) -> Sequence[Merge]: ...


class Node(NamedTuple):
    """A token inside a tree of merges."""

    token: bytes
    rank: int | None
    """Of the merge that made it; the lower, the earlier. None: it is a byte, a character or a word as it stands."""
    path: str
    """How to get here from the top: "lr" is the right half of the left half."""


class MergeTrees:
    """Looks up the merge behind each token of a tokenizer.

    One that learns no merges, such as words or a unigram model, has trees of a single node.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        merges = tokenizer.merges if isinstance(tokenizer, LearnedMerges) else ()
        self._made_by: dict[bytes, tuple[int, Merge]] = {}
        for rank, (left, right) in enumerate(merges):
            self._made_by.setdefault(left + right, (rank, (left, right)))  # the earlier way is the one taken

    def rank(self, token: bytes) -> int | None:
        """Of the merge that makes this token; None if no merge does."""
        return self._made_by[token][0] if token in self._made_by else None

    def tree(self, token: bytes) -> Iterator[Node]:
        """The token, then its left half with all below, then its right half: as one reads it."""
        waiting = [(token, "")]  # not a recursive function: a damaged file may chain thousands of merges
        while waiting:
            part, path = waiting.pop()
            yield Node(part, self.rank(part), path)
            if part in self._made_by:
                _, (left, right) = self._made_by[part]
                waiting += [(right, f"{path}r"), (left, f"{path}l")]


def tree_lines(nodes: Iterator[Node]) -> Iterator[str]:
    """A tree as text, a line for each node: what it reads, and the rank of its merge."""
    for token, rank, path in nodes:
        above = "".join("│  " if side == "l" else "   " for side in path[:-1])
        branch = {"": "", "l": "├─ ", "r": "└─ "}[path[-1:]]
        yield f"{above}{branch}'{readable(token)}'" + ("" if rank is None else f"  merge {rank}")


def readable(token: bytes) -> str:
    """The token's characters, none of which can steer a terminal or turn the line around.

    Control characters, line ends, invisible and unassigned characters are written as Python escapes them, bytes that
    are no whole character as \\xNN, a backslash twice. Spaces stay.
    """
    return "".join(map(_readable, token.decode("utf-8", "surrogateescape")))


def _readable(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how surrogateescape marks a byte
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character.isprintable() and character != "\\":
        return character
    if "\x80" <= character <= "\xff":
        return f"\\u{ord(character):04x}"  # \xNN would read as a byte
    return character.encode("unicode_escape").decode("ascii")


def find_token(tokenizer: Tokenizer, wanted: str) -> int:
    """The id of a token given as its id in digits, or as its text.

    Raises:
        TokenizerError: no token has that id, or the text is none or several tokens.
    """
    if wanted.isdecimal():
        tokenizer.token_bytes(int(wanted))
        return int(wanted)
    if wanted in tokenizer.special_tokens:
        return tokenizer.special_tokens[wanted]
    ids = tokenizer.encode(wanted)
    if len(ids) != 1:
        parts = " ".join(f"'{readable(tokenizer.token_bytes(i))}'" for i in ids[:8]) + " ..." * (len(ids) > 8)
        shown = readable(wanted.encode("utf-8", "surrogatepass"))
        raise TokenizerError(f"'{shown}' is not one token but {len(ids)}: {parts}; give one of these, or an id")
    return ids[0]
