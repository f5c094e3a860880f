"""Long documents cut where no tokenizer can tell the difference.

A split pattern never joins a line feed to a letter or digit that follows it, nor (after a character that is no white
space) to anything but the marks before it. So between `x\\n` and `y`, x no white space and y a letter or digit, the
tokens of both sides are the tokens of the whole. That holds for the named patterns; a property test says so.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal

from legollm.data.documents import Piece
from legollm.data.sources import Split
from legollm.interfaces import Tokenizer
from legollm.tokenizers.patterns import PATTERNS

MAX_CHARS = 1 << 19
"""A document longer than this is cut as soon as a place is found."""

CutRule = Literal["anywhere", "line", "nowhere"]

CUT_BY_PATTERN = ("bpe", "naive_bpe", "char_bpe", "unigram")


def cut_rule(tokenizer: Tokenizer, saved: Path) -> CutRule:
    """Where text may be cut without changing its tokens; `saved` is the tokenizer's own file."""
    by_pattern = tokenizer.kind in CUT_BY_PATTERN
    return cut_rule_of(tokenizer.kind, json.loads(saved.read_bytes())["pattern"] if by_pattern else None)


def cut_rule_of(kind: str, pattern: str | None) -> CutRule:
    """The same by the kind of tokenizer and the regular expression, or the name of one, that it cuts by."""
    if kind in ("byte", "char"):
        return "anywhere"
    if kind == "word" or (kind in CUT_BY_PATTERN and (pattern in PATTERNS or pattern in PATTERNS.values())):
        return "line"
    return "nowhere"


def last_cut(text: str, rule: CutRule) -> int | None:
    """The last place where `text` may be cut, None if there is none."""
    if rule == "anywhere":
        return len(text)
    if rule == "nowhere":
        return None
    end = len(text) - 1  # a line feed at the very end has no neighbour yet
    while (found := text.rfind("\n", 0, end)) > 0:
        # str.isspace() knows every white space that a pattern's \\s does, and some more
        if not text[found - 1].isspace() and unicodedata.category(text[found + 1])[0] in "LN":
            return found + 1
        end = found
    return None


def cut_pieces(parts: Iterable[tuple[Split, Piece]], rule: CutRule) -> Iterator[tuple[Split, Piece]]:
    """The same text with other borders: each piece can be tokenised alone, and hardly one exceeds 2 * MAX_CHARS."""
    for split, run in groupby(parts, key=itemgetter(0)):  # a run ends with a document, or where the tail is cut off
        for piece in _cut_run(chain.from_iterable(_short(piece) for _, piece in run), rule):
            yield split, piece


def _cut_run(pieces: Iterable[Piece], rule: CutRule) -> Iterator[Piece]:
    held: list[Piece] = []  # the part of a document that waits for a place to cut
    n_held = 0
    for piece in pieces:
        if n_held + len(piece.text) > MAX_CHARS and not piece.ends:
            before = held[-1].text[-2:] if held else ""  # the place may be the border itself
            cut = last_cut(before + piece.text, rule)
            if cut is not None:
                first, piece = piece.halves(cut - len(before))
                yield _joined([*held, first])
                held, n_held = [], 0
        held.append(piece)
        n_held += len(piece.text)
        if piece.ends:
            yield _joined(held)
            held, n_held = [], 0
    if n_held:
        yield _joined(held)


def _short(piece: Piece) -> Iterator[Piece]:
    """A row may be a document of any length; a text file already comes in short pieces."""
    while len(piece.text) > MAX_CHARS:
        first, piece = piece.halves(MAX_CHARS)
        yield first
    yield piece


def _joined(pieces: list[Piece]) -> Piece:
    return pieces[0]._replace(text="".join(piece.text for piece in pieces), ends=pieces[-1].ends)
