"""Learning and applying merges."""

import logging
from collections.abc import Iterator

import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import RegexBPETokenizer, word_cache
from legollm.tokenizers.apply_merges import merge_by_heap
from legollm.tokenizers.bpe_model import BPEModel
from legollm.tokenizers.byte import BYTES
from legollm.tokenizers.learn_merges import learn_merges


def test_most_frequent_pair_first_and_the_greatest_among_equals() -> None:
    # es and st: 9 each, and st is greater; then est follows, then lo and ow with 7 each.
    words = {b"low": 5, b"lower": 2, b"widest": 3, b"newest": 6}
    assert learn_merges(words, 6) == [
        (b"s", b"t"),
        (b"e", b"st"),
        (b"o", b"w"),
        (b"l", b"ow"),
        (b"w", b"est"),
        (b"n", b"e"),
    ]


def test_a_longer_token_is_greater_than_its_beginning() -> None:
    # After ab, the pairs (ab, x) and (a, y) both occur twice; b"ab" > b"a".
    assert learn_merges({b"abx": 2, b"ab": 2, b"ay": 2}, 2) == [(b"a", b"b"), (b"ab", b"x")]


def test_learning_stops_with_a_reason_when_no_pair_occurs_twice(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = RegexBPETokenizer()
    with caplog.at_level(logging.WARNING):
        tokenizer.train("abab cd", vocab_size=1000, special_tokens=["<|x|>"])
    assert tokenizer.merges == [(b"a", b"b")]
    assert tokenizer.vocab_size == 258
    assert "1 of 743 merges learned: no pair occurs twice" in caplog.text


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(TokenizerError, match="use 257 or more"):
        RegexBPETokenizer().train("text", vocab_size=256, special_tokens=["<|x|>"])


def test_texts_are_read_one_by_one() -> None:
    """Memory follows the different pre-tokens: of a stream, no two texts are ever asked for together."""
    alive: list[int] = []

    class Text(str):
        def __init__(self, _: str) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    most = 0

    def stream() -> Iterator[str]:
        nonlocal most
        for i in range(50):
            yield Text(f"text {i} ")
            most = max(most, len(alive))

    RegexBPETokenizer().train(stream(), vocab_size=260)
    assert 0 < most <= 2


def test_ids_and_vocabulary_of_a_known_merge() -> None:
    tokenizer = RegexBPETokenizer("gpt2")
    tokenizer.train(["aaab", "aaab"], vocab_size=258)
    assert tokenizer.merges == [(b"a", b"a"), (b"aa", b"a")]
    assert tokenizer.encode("aaab") == [257, ord("b")]
    assert tokenizer.encode("aaaab") == [256, 256, ord("b")]  # the lower rank goes first, wherever it is
    assert tokenizer.vocab[257] == b"aaa"


class CountingRanks(dict[tuple[int, int], int]):
    """A table of merges that knows how often it was asked."""

    asked = 0

    def get(self, pair: tuple[int, int], default: int | None = None) -> int | None:  # type: ignore[override]
        self.asked += 1
        return super().get(pair, default)


@pytest.mark.parametrize("unit", ["a", "ab"])
def test_work_grows_with_the_length_of_a_piece_and_not_with_its_square(unit: str) -> None:
    ranks = CountingRanks({(97, 97): 0, (97, 98): 1, (256, 256): 2, (257, 257): 3, (258, 258): 4})
    asked = []
    for n in (1_000, 10_000):
        ranks.asked = 0
        merge_by_heap(list((unit * n).encode()), ranks, [256, 257, 258, 259, 260])
        asked.append(ranks.asked)
    assert asked[1] < 11 * asked[0]


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "MAX_CACHED_PIECES", 3)
    tokenizer = RegexBPETokenizer()
    tokenizer.train("one two three four five six " * 2, vocab_size=300)
    text = " one two three four five six seven " + "x" * 100
    first = tokenizer.encode(text)
    assert tokenizer.encode(text) == first
    assert 0 < len(tokenizer._cache.known) <= 3
    assert "x" * 100 not in tokenizer._cache.known


def test_what_is_returned_may_be_changed() -> None:
    tokenizer = RegexBPETokenizer()
    tokenizer.encode("hello").clear()
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"


def model(**changes: object) -> BPEModel:
    tokens = dict(enumerate([*BYTES, b"ab", b"abc"]))
    fields = {"pattern": "gpt4", "tokens": tokens, "merges": [(b"a", b"b")]} | changes
    return BPEModel(**fields)  # type: ignore[arg-type]


def test_whole_pieces_are_found_without_merges() -> None:
    assert RegexBPETokenizer._from_model(model()).encode("abc") == [256, ord("c")]
    assert RegexBPETokenizer._from_model(model(whole_pieces=True)).encode("abc") == [257]


def test_normal_form_c() -> None:
    tokenizer = RegexBPETokenizer._from_model(model(nfc=True))
    assert tokenizer.decode(tokenizer.encode("e\u0301")) == "\xe9"


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"tokens": {0: b"a"}}, "255 of the 256 single bytes"),
        ({"tokens": dict(enumerate([*BYTES, b"ab", b"ab"]))}, "two ids"),
        ({"merges": [(b"b", b"c")]}, "needs tokens that the vocabulary lacks"),
        ({"special_tokens": {"<|x|>": 5}}, "taken or negative"),
        ({"special_tokens": {"<|x|>": 300, "<|y|>": 300}}, "taken or negative"),
        ({"special_tokens": {"<|x|>": -1}}, "not a whole number"),
    ],
)
def test_models_that_contradict_themselves_are_refused(changes: dict[str, object], cause: str) -> None:
    with pytest.raises(TokenizerError, match=cause):
        RegexBPETokenizer._from_model(model(**changes))


def test_free_ids_inside_a_foreign_vocabulary_can_be_named() -> None:
    tokenizer = RegexBPETokenizer._from_model(model(special_tokens={"<|end|>": 300}))
    assert tokenizer.vocab_size == 301
    with pytest.raises(TokenizerError, match="42 of them unused"):
        tokenizer.decode([299])
    tokenizer.register_special_tokens({"<|pad|>": 299})
    assert tokenizer.decode([299, 97], skip_special=False) == "<|pad|>a"
    tokenizer.register_special_tokens({"<|pad|>": 299})  # saying it again changes nothing
    assert tokenizer.vocab_size == 301
