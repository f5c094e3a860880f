"""BPE over characters: merges are those of counting everything anew, and bytes stand in for unknown characters."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import CharBPETokenizer
from legollm.tokenizers.character_merges import Pair, learn_character_merges
from legollm.tokenizers.naive_bpe import merge


def naive_merges(counts: dict[str, int], n_merges: int) -> list[Pair]:
    words = [(list(word), count) for word, count in counts.items()]
    merges: list[Pair] = []
    while len(merges) < n_merges:
        pairs: Counter[Pair] = Counter()
        for symbols, count in words:
            for pair in pairwise(symbols):
                pairs[pair] += count
        # The rule is about byte strings: UTF-8 keeps the order of code points, so strings do not need to be encoded.
        best = max(pairs, key=lambda pair: (pairs[pair], *(part.encode() for part in pair)), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        words = [(merge(symbols, best), count) for symbols, count in words]
    return merges


def test_merges_are_those_of_counting_everything_anew() -> None:
    rng = random.Random(1)
    for alphabet in ("ab", "aäß日\U0001f600", "abcdefgh "):
        for _ in range(40):
            counts = {
                "".join(rng.choices(alphabet, k=rng.randrange(1, 14))): rng.randrange(1, 4)
                for _ in range(rng.randrange(1, 30))
            }
            assert learn_character_merges(counts, 25) == naive_merges(counts, 25)


def test_encoding_is_replaying_the_merges() -> None:
    rng = random.Random(2)
    tokenizer = CharBPETokenizer(r"[\s\S]+")
    tokenizer.train("".join(rng.choices("abcäö", k=5_000)), vocab_size=330)
    for _ in range(200):
        text = "".join(rng.choices("abcäöü", k=rng.randrange(1, 300)))
        parts = [
            byte for c in text for byte in ([c.encode()] if c != "ü" else [bytes([value]) for value in c.encode()])
        ]
        for pair in tokenizer.merges:
            parts = merge(parts, pair)
        assert [tokenizer.token_bytes(i) for i in tokenizer.encode(text)] == parts


def test_no_token_ends_inside_a_character() -> None:
    tokenizer = CharBPETokenizer()
    tokenizer.train("日本語の文章 und übliche Größe, żółć " * 20, vocab_size=400)
    for i, token in tokenizer.vocab.items():
        assert i < 256 or token.decode()
    assert len(tokenizer.encode("日")) == 1
    assert tokenizer.encode("語語") == 2 * tokenizer.encode("語")
    assert tokenizer.encode("鬱") == list("鬱".encode())


def test_a_pair_that_occurs_once_is_not_merged(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = CharBPETokenizer()
    tokenizer.train("abcd", vocab_size=300)
    assert tokenizer.merges == []
    assert "0 of 44 merges learned" in caplog.text


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"no room for 256 bytes and 1 special tokens; use 257 or more"):
        CharBPETokenizer().train("text", vocab_size=256, special_tokens=["<|x|>"])


def test_a_merge_without_its_tokens_is_refused() -> None:
    tokenizer = CharBPETokenizer()
    with pytest.raises(TokenizerError, match="needs tokens that the vocabulary lacks"):
        tokenizer._set_merges([("a", "b")])
