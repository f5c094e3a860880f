"""Where tokens lie in the text, against the definition: byte by byte, character by character."""

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legollm.errors import TokenizerError
from legollm.tokenizers import ByteTokenizer, CharTokenizer, NaiveBPETokenizer, RegexBPETokenizer, WordTokenizer
from legollm.tokenizers.offsets import byte_spans, nfc_spans
from text_samples import BAG, random_texts

any_text = st.text(st.characters())  # lone surrogates, too
decomposed = st.text("aeo\u0301\u0323\u0308\u1100\u1161\u11a8가\u09c7\u09be\u0f73\u212bé ", max_size=12)


@pytest.fixture(scope="module")
def bpe() -> RegexBPETokenizer:
    tokenizer = RegexBPETokenizer()
    tokenizer.train([*BAG, *random_texts(seed=9, n=100)], vocab_size=500, special_tokens=["<|endoftext|>"])
    return tokenizer


@given(any_text, st.data())
def test_spans_are_the_characters_of_the_bytes(text: str, data: st.DataObject) -> None:
    owner = [i for i, character in enumerate(text) for _ in character.encode("utf-8", "surrogatepass")]
    widths, left = [], len(owner)
    while left:
        widths.append(data.draw(st.integers(1, min(left, 6))))
        left -= widths[-1]
    starts = [sum(widths[:i]) for i in range(len(widths))]
    touched = [owner[start : start + width] for start, width in zip(starts, widths, strict=True)]
    assert byte_spans(text, widths) == [(characters[0], characters[-1] + 1) for characters in touched]


def test_a_text_in_one_page(bpe: RegexBPETokenizer) -> None:
    tokenizer = ByteTokenizer(["<|end|>"])
    ids, offsets = tokenizer.encode_with_offsets("é<|end|>x", allowed_special="all")
    assert ids == [0xC3, 0xA9, 256, ord("x")]
    assert offsets == [(0, 1), (0, 1), (1, 8), (8, 9)]
    assert bpe.encode_with_offsets("") == ([], [])
    with pytest.raises(TokenizerError, match="at character 1"):
        tokenizer.encode_with_offsets("a<|end|>", disallowed_special="all")


@given(any_text)
def test_tokens_lie_one_after_the_other_and_cover_the_text(bpe: RegexBPETokenizer, text: str) -> None:
    ids, offsets = bpe.encode_with_offsets(text)
    assert ids == bpe.encode(text)
    position = 0
    for token_id, (start, end) in zip(ids, offsets, strict=True):
        assert bpe.token_bytes(token_id) in text[start:end].encode("utf-8", "surrogatepass")
        assert start in (position - 1, position), "the next character, or one that the last token began"
        assert max(start + 1, position) <= end
        position = end
    assert position == len(text)


@given(decomposed | any_text)
def test_each_character_of_the_normal_form_is_made_from_its_span(text: str) -> None:
    spans = nfc_spans(text)
    normal = unicodedata.normalize("NFC", text)
    assert len(spans) == len(normal)
    position, rebuilt = 0, ""
    for span in dict.fromkeys(spans):
        assert span[0] == position < span[1]
        rebuilt += unicodedata.normalize("NFC", text[slice(*span)])
        position = span[1]
    assert (position, rebuilt) == (len(text), normal)
    assert all(normal[i] in unicodedata.normalize("NFC", text[slice(*span)]) for i, span in enumerate(spans))


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("xe\u0301y", [(0, 1), (1, 3), (3, 4)]),
        ("\u1100\u1161\u11a8\u1100\u1161", [(0, 3), (3, 5)]),
        ("\u212bA", [(0, 1), (1, 2)]),
        ("q\u0301\u0323z", [(0, 3), (0, 3), (0, 3), (3, 4)]),
        ("\u0958", [(0, 1), (0, 1)]),
        ("é가", [(0, 1), (1, 2)]),
    ],
)
def test_normal_form_by_hand(text: str, spans: list[tuple[int, int]]) -> None:
    assert nfc_spans(text) == spans


def test_offsets_are_in_the_text_given_not_in_its_normal_form(bpe: RegexBPETokenizer) -> None:
    tokenizer = RegexBPETokenizer._from_model(replace(bpe._model(), nfc=True))
    text = "<|endoftext|>cafe\u0301 <|endoftext|>"
    ids, offsets = tokenizer.encode_with_offsets(text, allowed_special="all")
    assert offsets[0] == (0, 13)
    assert offsets[-1] == (19, 32)
    assert {text[start:end] for start, end in offsets if end == 18} == {"e\u0301"}
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_a_million_marks_take_no_million_squared_steps() -> None:
    assert nfc_spans("e" + "\u0301" * 10**5 + "a") == [(0, 10**5 + 1)] * 10**5 + [(10**5 + 1, 10**5 + 2)]


def test_unknown_characters_have_a_place_and_what_was_dropped_has_none(bpe: RegexBPETokenizer) -> None:
    characters = CharTokenizer(unk=True)
    characters.train("abc")
    assert characters.encode_with_offsets("aéc") == ([1, 0, 3], [(0, 1), (1, 2), (2, 3)])
    naive = NaiveBPETokenizer()
    naive.train("abab", vocab_size=300)
    assert naive.encode_with_offsets("abé")[1] == [(0, 2), (2, 3), (2, 3)]
    words = WordTokenizer()
    words.train("to be")
    assert words.encode_with_offsets("be to")[1] == [(0, 2), (2, 3), (3, 5)]
