"""Cut at every allowed place, a text has the tokens it has as a whole."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from legollm.data import cutting
from legollm.data.cutting import cut_pieces, last_line
from legollm.data.documents import Piece
from legollm.tokenizers import WordTokenizer
from legollm.tokenizers.fast import last_cut as last_blank
from legollm.tokenizers.patterns import PATTERNS, Splitter

PARTS = (
    *("a", "B", "word", "1", "1234", "²", "Ⅷ", "é", "e\u0301", "\u0301", "漢", "ش", "😀", "\u200d"),
    *("_", "/", ".", "...", "'", "'s", "'LL", " ", "  ", "\t", "\n", "\n\n", "\r", "\r\n"),
    *("\x0b", "\x1c", "\x85", "\u2028", "\u3000", "\u180e"),
)
"""What the patterns treat differently."""

texts = st.lists(st.sampled_from(PARTS) | st.characters(codec="utf-8"), max_size=12).map("".join)
lines = st.lists(texts, min_size=1, max_size=8).map("\n".join)

parts_of_prose = st.text("ab. \n", min_size=1, max_size=40)


def all_cuts(text: str) -> list[str]:
    """The text in as many pieces as there are places."""
    data, places = text.encode(), set()
    for last in (last_blank, last_line):
        end = len(data)
        while end := last(data[:end]):
            places.add(end)
    return [data[a:b].decode() for a, b in pairwise([0, *sorted(places), len(data)])]


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=100, deadline=None)
@given(text=lines)
@example(text="a b1 c  d \u0301e /f\t's 2 \n3")
@example(text="one\ntwo\n 3\n\n4.\n5'\ns\n\u0301x\n/y")
def test_no_named_pattern_joins_what_is_cut(pattern: str, text: str) -> None:
    splitter = Splitter(pattern)
    parts = all_cuts(text)
    assert "".join(parts) == text
    assert [token for part in parts for token in splitter.split(part)] == list(splitter.split(text))


@settings(max_examples=100, deadline=None)
@given(text=lines)
def test_words_are_not_joined_either(text: str) -> None:
    tokenizer = WordTokenizer()
    tokenizer.train(text)
    assert [token for part in all_cuts(text) for token in tokenizer.encode(part)] == tokenizer.encode(text)


def test_ordinary_prose_has_places() -> None:
    assert all_cuts("One line,\nand another.\n\nNot here.\n1 more\n") == [
        "One",
        " line,\n",
        "and",
        " another.\n\nNot",
        " here.\n",
        "1",
        " more\n",
    ]


def test_border_of_two_blocks_is_a_place_too() -> None:
    """Lines as long as the blocks of a file would otherwise never be cut, and held in memory together."""
    line = "x" * (cutting.MAX_BYTES - 1) + "\n"
    blocks = [("train", Piece(line.encode(), "a.txt", number, ends=number == 5)) for number in range(1, 6)]
    assert [(piece.line, len(piece.text)) for _, piece in cut_pieces(blocks, "words")] == [
        (1, len(line)),
        (2, len(line)),
        (3, len(line)),
        (4, 2 * len(line)),
    ]


@settings(max_examples=100, deadline=None)
@given(
    documents=st.lists(
        st.lists(st.text("ab. \n", min_size=1, max_size=40), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    limit=st.integers(1, 60),
    rule=st.sampled_from(["anywhere", "words", "nowhere"]),
)
def test_cutting_keeps_text_places_and_ends(documents: list[list[str]], limit: int, rule: cutting.CutRule) -> None:
    given_pieces = [
        Piece(part.encode(), "a.txt", 1 + "".join(document[:i]).count("\n"), ends=i == len(document) - 1)
        for document in documents
        for i, part in enumerate(document)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "MAX_BYTES", limit)
        found = [piece for _, piece in cut_pieces([("train", piece) for piece in given_pieces], rule)]
    texts = [""]
    for piece in found:
        assert piece.line == 1 + texts[-1].count("\n")
        texts[-1] += piece.text
        if piece.ends:
            texts.append("")
    assert texts == ["".join(document) for document in documents] + [""]
    if rule == "anywhere":
        assert max(len(piece.text) for piece in found) <= 2 * limit
    if rule == "nowhere":
        assert len(found) == len(documents)
