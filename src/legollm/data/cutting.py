"""Long documents cut where no tokenizer can tell the difference.

No named pattern joins a letter or digit to a blank after it: so much for texts with blanks. And none joins a line feed
to a letter or digit that follows it, nor (after a character that is no white space) to anything but the marks before
it. So between `x\\n` and `y`, x no white space and y a letter or digit, the tokens of both sides are the tokens of the
whole. A property test says so.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal

from legollm.data.documents import Piece, next_character
from legollm.data.sources import Split
from legollm.interfaces import Tokenizer
from legollm.tokenizers import RegexBPETokenizer
from legollm.tokenizers.fast import last_cut as last_blank
from legollm.tokenizers.patterns import PATTERNS

MAX_BYTES = 1 << 20
"""A document longer than this is cut as soon as a place is found."""

CutRule = Literal["anywhere", "words", "nowhere"]

CUT_BY_PATTERN = ("bpe", "naive_bpe", "char_bpe", "unigram")


def cut_rule(tokenizer: Tokenizer, saved: Path) -> CutRule:
    """Where text may be cut without changing its tokens; `saved` is the tokenizer's own file."""
    if isinstance(tokenizer, RegexBPETokenizer):  # whose file is large
        return cut_rule_of(tokenizer.kind, tokenizer.pattern)
    by_pattern = tokenizer.kind in CUT_BY_PATTERN
    return cut_rule_of(tokenizer.kind, json.loads(saved.read_bytes())["pattern"] if by_pattern else None)


def cut_rule_of(kind: str, pattern: str | None) -> CutRule:
    """The same by the kind of tokenizer and the regular expression, or the name of one, that it cuts by."""
    if kind in ("byte", "char"):
        return "anywhere"
    if kind == "word" or (kind in CUT_BY_PATTERN and (pattern in PATTERNS or pattern in PATTERNS.values())):
        return "words"
    return "nowhere"


def last_cut(data: bytes, rule: CutRule) -> int:
    """The last place where a text may be cut, 0 if there is none."""
    if rule == "anywhere":
        return len(data)
    return 0 if rule == "nowhere" else last_blank(data) or last_line(data)


def last_line(data: bytes) -> int:
    """The last place between two lines where no pattern joins them, 0 if there is none."""
    end = len(data) - 1  # a line feed at the very end has no neighbour yet
    while (found := data.rfind(b"\n", 0, end)) > 0:
        after = data[found + 1 : found + 5].decode("utf-8", "ignore")  # a character has four bytes at most
        if unicodedata.category(after[0])[0] in "LN":
            before = data[max(0, found - 4) : found].decode("utf-8", "ignore")
            # str.isspace() knows every white space that a pattern's \\s does, and some more
            if not before[-1].isspace():
                return found + 1
        end = found
    return 0


def cut_pieces(parts: Iterable[tuple[Split, Piece]], rule: CutRule) -> Iterator[tuple[Split, Piece]]:
    """The same text with other borders: each piece can be tokenised alone, and hardly one exceeds 2 * MAX_BYTES."""
    for split, run in groupby(parts, key=itemgetter(0)):  # a run ends with a document, or where the tail is cut off
        for piece in _cut_run(chain.from_iterable(_short(piece) for _, piece in run), rule):
            yield split, piece


def _cut_run(pieces: Iterable[Piece], rule: CutRule) -> Iterator[Piece]:
    held: list[Piece] = []  # the part of a document that waits for a place to cut
    n_held = 0
    for piece in pieces:
        if n_held + len(piece.data) > MAX_BYTES and not piece.ends:
            before = _last_two_characters(held[-1].data) if held else b""  # the place may be the border itself
            cut = last_cut(before + piece.data, rule) - len(before)
            if cut > 0 or (cut == 0 and held):
                first, piece = piece.halves(cut)
                yield _joined([*held, first])
                held, n_held = [], 0
        held.append(piece)
        n_held += len(piece.data)
        if piece.ends:
            yield _joined(held)
            held, n_held = [], 0
    if n_held:
        yield _joined(held)


def _short(piece: Piece) -> Iterator[Piece]:
    """A row may be a document of any length; a text file already comes in short pieces."""
    while (border := next_character(piece.data, MAX_BYTES)) < len(piece.data):
        first, piece = piece.halves(border)
        yield first
    yield piece


def _last_two_characters(data: bytes) -> bytes:
    return data[-8:].decode("utf-8", "ignore")[-2:].encode("utf-8")


def _joined(pieces: list[Piece]) -> Piece:
    return pieces[0]._replace(data=b"".join(piece.data for piece in pieces), ends=pieces[-1].ends)
