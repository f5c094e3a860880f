"""Vocabularies that only know what they have seen."""

from collections import Counter

import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import ByteTokenizer, CharTokenizer, WordTokenizer


def test_characters_are_numbered_by_code_point() -> None:
    tokenizer = CharTokenizer()
    tokenizer.train(["cab", "é"])
    assert tokenizer.vocab == {0: b"a", 1: b"b", 2: b"c", 3: "é".encode()}
    assert tokenizer.encode("abc") == [0, 1, 2]


def test_an_unknown_character_is_named_with_its_place() -> None:
    tokenizer = CharTokenizer()
    tokenizer.train("abc")
    with pytest.raises(TokenizerError, match=r"'é' \(U\+00E9\) at position 3 .* CharTokenizer\(unk=True\)"):
        tokenizer.encode("abcé")


def test_unknown_characters_become_unk_on_request() -> None:
    tokenizer = CharTokenizer(unk=True)
    tokenizer.train("abcaab", vocab_size=3)
    assert tokenizer.encode("abcd") == [1, 2, 0, 0]
    assert tokenizer.decode([1, 0]) == "a<unk>"
    assert tokenizer.oov_rate("abcd") == 0.5


def test_characters_that_do_not_fit_are_refused_without_unk() -> None:
    with pytest.raises(TokenizerError, match="use 3 or more"):
        CharTokenizer().train("abc", vocab_size=2)


def test_words_are_numbered_by_frequency_and_ties_by_code_point() -> None:
    text = "to be or not to be: that is it"
    tokenizer = WordTokenizer(lossless=False)
    tokenizer.train(text)
    oracle = Counter(text.replace(":", " :").split())
    expected = ["<unk>", *sorted(oracle, key=lambda word: (-oracle[word], word))]
    assert [token.decode() for token in tokenizer.vocab.values()] == [word + " " for word in expected]


def test_words_of_many_scripts_stay_whole() -> None:
    tokenizer = WordTokenizer()
    words = ["don’t", "it's", "नमस्ते", "résumé", "été", "שָׁלוֹם", "snake_case", "3rd"]
    tokenizer.train(" ".join(words))
    for word in words:
        assert len(tokenizer.encode(word)) == 1


def test_min_freq_and_vocab_size_leave_rare_words_to_unk() -> None:
    tokenizer = WordTokenizer()
    tokenizer.train("a a a b b c", min_freq=2)
    assert tokenizer.decode(tokenizer.encode("a b c")) == "a b <unk>"
    tokenizer.train("a a a b b c", vocab_size=3)
    assert tokenizer.vocab_size == 3
    assert tokenizer.decode(tokenizer.encode("a b c")) == "a <unk> <unk>"
    assert tokenizer.oov_rate(["a b", " c "]) == pytest.approx(2 / 3)
    with pytest.raises(TokenizerError, match="no room for words; use 3 or more"):
        tokenizer.train("a", vocab_size=2, special_tokens=["<|x|>"])


def test_classic_words_forget_white_space() -> None:
    tokenizer = WordTokenizer(lossless=False)
    tokenizer.train("the cat,  the\ndog")
    ids = tokenizer.encode("the cat,  the\nfish")
    assert tokenizer.decode(ids) == "the cat , the <unk> "
    assert tokenizer.encode(tokenizer.decode(ids)[:-6]) == ids[:-1]


def test_bytes_need_room_for_256() -> None:
    tokenizer = ByteTokenizer()
    with pytest.raises(TokenizerError, match="use 257"):
        tokenizer.train("", vocab_size=256, special_tokens=["<|x|>"])
    tokenizer.train("", vocab_size=257, special_tokens=["<|x|>"])
    assert tokenizer.special_tokens == {"<|x|>": 256}
    assert tokenizer.encode_bytes(b"\xff\x00") == [255, 0]
