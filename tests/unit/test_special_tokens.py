"""Control tokens: found longest first, never by accident."""

import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import ByteTokenizer
from legollm.tokenizers.special import cut_at_special, without_special


def test_the_longer_of_two_that_begin_together_counts() -> None:
    tokenizer = ByteTokenizer(["<|a|>", "<|a|>b", "<|a|><|a|>"])
    assert tokenizer.encode("<|a|>b<|a|><|a|><|a|>", allowed_special="all") == [257, 258, 256]
    assert tokenizer.encode("<|a|>b", allowed_special={"<|a|>"}) == [256, ord("b")]


def test_cutting_keeps_everything() -> None:
    parts = list(cut_at_special("x<|a|>y<|a|><|a|>", ["<|a|>"]))
    assert parts == [("x", False), ("<|a|>", True), ("y", False), ("<|a|>", True), ("<|a|>", True)]
    assert list(cut_at_special("", ["<|a|>"])) == []
    assert list(cut_at_special("x", [])) == [("x", False)]


def test_training_text_is_cut_at_control_tokens() -> None:
    assert list(without_special("a<|e|>b", ["<|e|>"])) == ["a", "b"]
    assert list(without_special(["a", "b"], [])) == ["a", "b"]


def test_names_are_matched_literally() -> None:
    tokenizer = ByteTokenizer(["[a-z]+", "(x|y)"])
    assert tokenizer.encode("abc[a-z]+(x|y)", allowed_special="all") == [97, 98, 99, 256, 257]


def test_a_single_name_may_stand_without_brackets() -> None:
    tokenizer = ByteTokenizer(["<|a|>", "<|b|>"])
    assert tokenizer.encode("<|a|>", allowed_special="<|a|>") == [256]


@pytest.mark.parametrize(("names", "cause"), [(["x", "x"], "must differ"), ([""], "''"), (["<\ud800>"], "surrogates")])
def test_impossible_names(names: list[str], cause: str) -> None:
    with pytest.raises(TokenizerError, match=cause):
        ByteTokenizer(names)


def test_what_is_allowed_and_what_is_refused() -> None:
    tokenizer = ByteTokenizer(["<a>", "<b>"])
    assert tokenizer.encode("<a>") == list(b"<a>"), "a user's text neither forges a token nor stops the program"
    assert tokenizer.encode("<a>", allowed_special={"<a>"}, disallowed_special="all") == [256]
    with pytest.raises(TokenizerError, match="special token '<b>' at character 3"):
        tokenizer.encode("<a><b>", allowed_special={"<a>"}, disallowed_special="all")
    with pytest.raises(TokenizerError, match="'<a>' at character 1"):
        tokenizer.encode("x<a>", allowed_special="all", disallowed_special={"<a>"})
    assert tokenizer.encode("<a><b>", disallowed_special=()) == list(b"<a><b>")
    for name in ("allowed_special", "disallowed_special"):
        with pytest.raises(TokenizerError, match="no special token '<c>'; this tokenizer has <a>, <b>"):
            tokenizer.encode("", **{name: {"<c>"}})
