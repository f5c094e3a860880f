"""Where the named patterns cut, and what happens to patterns of one's own."""

import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import patterns
from legollm.tokenizers.patterns import PATTERNS, Splitter
from text_samples import BAG, random_texts


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("gpt2", "don't I'LL", ["don", "'t", " I", "'", "LL"]),
        ("gpt4", "don't I'LL", ["don", "'t", " I", "'LL"]),
        ("o200k", "don't I'LL", ["don't", " I'LL"]),
        ("o200k", "camelCase HTTPServer", ["camel", "Case", " HTTPServer"]),
        ("gpt2", "12345 ...!?", ["12345", " ...!?"]),
        ("gpt4", "12345 ...!?", ["123", "45", " ...!?"]),
        ("llama3", "12345 ...!?", ["123", "45", " ...!?"]),
        ("qwen", "12345", ["1", "2", "3", "4", "5"]),
        ("gpt2", "a\r\n\r\n  b  ", ["a", "\r\n\r\n ", " b", "  "]),
        ("gpt4", "a\r\n\r\n  b  ", ["a", "\r\n\r\n", " ", " b", "  "]),
        ("gpt4", "a \n  ", ["a", " \n  "]),  # the end of the text is one piece for cl100k_base only
        ("llama3", "a \n  ", ["a", " \n", "  "]),
        ("o200k", "a/\n  ", ["a", "/\n", "  "]),
        ("gpt4", "(word)\n", ["(word", ")\n"]),
    ],
)
def test_where_text_is_cut(name: str, text: str, pieces: list[str]) -> None:
    assert list(Splitter(name).split(text)) == pieces


@pytest.mark.parametrize("pattern", [*PATTERNS, r"\w+", r"(\w)(\w)", "", r"a*", r"(?=x)"])
def test_pieces_joined_are_the_text(pattern: str) -> None:
    splitter = Splitter(pattern)
    for text in [*BAG, *random_texts(seed=2, n=300), "\ud800 lone \udfff"]:
        pieces = list(splitter.split(text))
        assert "".join(pieces) == text
        assert "" not in pieces


def test_what_a_pattern_leaves_out_is_a_piece() -> None:
    assert list(Splitter(r"\w+").split("one, two!")) == ["one", ", ", "two", "!"]


def test_an_expression_that_is_none_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"'\(gpt5': not one of gpt2, .* no valid regex"):
        Splitter("(gpt5")


def test_a_pattern_that_explodes_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.05)
    with pytest.raises(TokenizerError, match="avoid nested quantifiers"):
        list(Splitter(r"(?:a|a|ab)*c").split("a" * 40 + "dc"))
