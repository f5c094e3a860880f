"""The compiled counter and learner: same words and same merges as their definitions, however the text arrives."""

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import count_words as counting
from legollm.tokenizers.count_words import CountedWords, Engine, count_words
from legollm.tokenizers.learn_merges import learn_in_python, learn_merges
from legollm.tokenizers.naive_bpe import NaiveBPETokenizer
from legollm.tokenizers.patterns import PATTERNS, Splitter

pytest.importorskip("numba")

ALPHABETS = ["a", "ab", "aab ", "abc \n", "ab'1\n .", "中文 ab.", "\x00é\ud800a", "aB/ \n!7"]


def random_text(dice: random.Random, length: int) -> str:
    alphabet = dice.choice(ALPHABETS)
    return "".join(dice.choices(alphabet, k=length))


def random_words(dice: random.Random) -> Counter[bytes]:
    """Pre-tokens of one alphabet, so that pairs overlap and counts are equal more often than not."""
    alphabet = dice.choice([b"a", b"ab", b"abc", b"\x00\x7f\x80\xff", bytes(range(256))])
    words = [
        bytes(dice.choices(alphabet, k=dice.choice((1, 2, 5, 9, 40, 300)))) for _ in range(dice.choice((1, 4, 30)))
    ]
    return Counter({word: dice.choice((1, 1, 2, 3, 1000)) for word in words})


def words_in(texts: list[str], pattern: str) -> dict[bytes, int]:
    """What `count_words` is to return: the pieces of the plain splitter, counted."""
    pieces = Counter(piece for text in texts for piece in Splitter(pattern).split(text))
    return {piece.encode("utf-8", "surrogatepass"): count for piece, count in pieces.items()}


def counted(texts: list[str], pattern: str, **options: int) -> dict[bytes, int]:
    counts = count_words(texts, Splitter(pattern), engine="kernels", **options)
    assert isinstance(counts, CountedWords)
    pairs = list(counts.items())
    assert len(dict(pairs)) == len(pairs), "a word was counted in two rows"
    return dict(pairs)


# ---- learning


def test_learns_what_the_definition_learns() -> None:
    dice = random.Random(0)
    for _ in range(400):
        words, n_merges = random_words(dice), dice.choice((0, 1, 7, 100, 3000))
        expected = learn_in_python(words.items(), n_merges)
        assert learn_merges(words, n_merges, engine="kernels") == expected, (words, n_merges)


def test_learns_what_recounting_everything_learns() -> None:
    dice = random.Random(1)
    for _ in range(60):
        pattern = dice.choice(["gpt2", "gpt4", "o200k"])
        texts = [random_text(dice, dice.choice((2, 20, 150))) for _ in range(dice.choice((1, 5)))]
        naive = NaiveBPETokenizer(pattern)
        naive.train(texts, vocab_size=296)
        words = count_words(texts, Splitter(pattern), engine="kernels")
        assert learn_merges(words, 40, engine="kernels") == naive.merges, (pattern, texts)


@pytest.mark.parametrize("length", [2, 3, 4, 5, 8, 9, 1000, 4097])
def test_overlapping_pairs_of_one_letter(length: int) -> None:
    words = {b"a" * length: 3, b"ba" * length: 2}
    assert learn_merges(words, 50, engine="kernels") == learn_in_python(words.items(), 50)


def test_ties_go_to_the_greatest_byte_strings() -> None:
    """Also where tokens agree in more bytes than are compared at once, or one goes on where the other ends in zeros."""
    for ends in ([b"x", b"y"], [b"", b"\x00"], [b"\x00", b"\x00\x00"], [b"\x7f", b"\x80"]):
        for stem in (b"", b"q", b"abcdefg", b"abcdefgh", b"abcdefghijklmnopq"):
            words = {stem + end + b"Z": 2 for end in ends}
            assert learn_merges(words, 60, engine="kernels") == learn_in_python(words.items(), 60), (stem, ends)


def test_stops_when_no_pair_occurs_twice() -> None:
    assert learn_merges({b"abc": 1, b"bcd": 1}, 1000, engine="kernels") == [(b"b", b"c")]
    assert learn_merges({b"abc": 1}, 1000, engine="kernels") == []
    assert learn_merges({b"a": 9}, 1000, engine="kernels") == []
    assert learn_merges({}, 1000, engine="kernels") == []


def test_counts_beyond_32_bits() -> None:
    words = {b"ab": 3 * 2**31 + 5, b"cd": 3 * 2**31 + 4, b"abcd": 1, b"xy": 2**40}
    assert learn_merges(words, 9, engine="kernels") == learn_in_python(words.items(), 9)


def test_room_is_made_while_merging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Growing drops dead pairs and moves the rest; with no room to spare it happens before most merges."""
    from legollm.kernels import learn_room as kernel

    monkeypatch.setattr(kernel, "SLACK", 0)
    dice = random.Random(2)
    text = "".join(dice.choices("abcdefgh", k=30_000))
    words = Counter(text[i : i + 30].encode() for i in range(0, len(text), 30))
    assert learn_merges(words, 2000, engine="kernels") == learn_in_python(words.items(), 2000)


def test_progress_ends_with_what_was_learned() -> None:
    words = Counter(bytes([a, b, c]) for a in range(30) for b in range(30) for c in range(30))
    calls: list[tuple[int, int]] = []
    merges = learn_merges(words, 600, engine="kernels", progress=lambda *call: calls.append(call))
    assert merges == learn_merges(words, 600, engine="kernels")
    assert len(calls) > 1
    assert calls[-1] == (len(merges), 600)


# ---- counting


@pytest.mark.parametrize("pattern", PATTERNS)
def test_counts_the_words_of_the_splitter(pattern: str) -> None:
    dice = random.Random(3)
    texts = [random_text(dice, dice.choice((0, 1, 5, 70, 400))) for _ in range(150)]
    assert counted(texts, pattern) == words_in(texts, pattern)


def test_words_of_every_length() -> None:
    """Short ones are their own key, long ones lie in a pool; neighbours in length must not be taken for each other."""
    words = [letter * length for letter in "aé\x00" for length in (*range(1, 40), 1000)]
    texts = [*words, *reversed(words), "a" * 14 + "b", "a" * 15 + "b", "a" * 16 + "b"]
    assert counted(texts, "gpt4") == words_in(texts, "gpt4")


def test_long_words_of_equal_hash_are_told_apart() -> None:
    import numpy as np

    from legollm.kernels import count as kernel

    table = kernel._new_table(8, 64)
    text = np.frombuffer(b"abcdefghijklmnopqABCDEFGHIJKLMNOPQ", np.uint8)
    high = kernel.LONG << kernel.LENGTH_AT | 17
    for start in (0, 17, 17):
        kernel._add(table, 5, high, 0, 1, text, start)
    assert table.rows.reshape(-1, kernel.COLUMNS)[:3, kernel.COUNT].tolist() == [1, 2, 0]


def test_tables_grow() -> None:
    dice = random.Random(4)
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    words = [" " + "".join(dice.choices(alphabet, k=dice.choice((3, 6, 12, 25)))) for _ in range(40_000)]
    text = "".join(words + words[::2])
    assert counted([text, "x" * 300_000, text], "gpt2") == words_in([text, "x" * 300_000, text], "gpt2")


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_threads_and_chunks_leave_no_trace(monkeypatch: pytest.MonkeyPatch, n_threads: int) -> None:
    monkeypatch.setattr(counting, "CHUNK", 20)
    dice = random.Random(5)
    lines = [
        "x y",
        "x  y",
        "7 8",
        " ",
        "x\ny",
        "\n\nA",
        "if (a)\n\tb",
        "it's\nI'LL",
        "/\nz/",
        " \nq",
        "1234\nfive",
        "words of a line",
        "né\u3000\nb",
    ]
    texts = ["".join(dice.choices(lines, k=400)) for _ in range(6)] + ["", "short"]
    for pattern in PATTERNS:
        assert counted(texts, pattern, n_threads=n_threads) == words_in(texts, pattern)


def test_patterns_of_ones_own_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "CHUNK", 4)
    assert count_words(["ab cd ef gh"], Splitter(r"[\s\S]+")) == {b"ab cd ef gh": 1}


def test_reads_texts_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays flat: no more than a few chunks are taken before the first one is counted."""
    from legollm.kernels.count import WordCounter

    monkeypatch.setattr(counting, "CHUNK", 100)
    taken, most_waiting, n_counted = 0, 0, 0
    add = WordCounter.add

    def counting_add(self: WordCounter, texts: list[bytes]) -> None:
        nonlocal n_counted
        add(self, texts)
        n_counted += len(texts)

    def stream() -> Iterator[str]:
        nonlocal taken, most_waiting
        for _ in range(200):
            taken += 1
            most_waiting = max(most_waiting, taken - n_counted)
            yield "word " * 30

    monkeypatch.setattr(WordCounter, "add", counting_add)
    counts = count_words(stream(), Splitter("gpt2"), engine="kernels", n_threads=2)
    assert dict(counts.items()) == words_in(["word " * 30] * 200, "gpt2")
    assert most_waiting < 20


# ---- the choice


def test_real_text(shared_data: Path) -> None:
    text = (shared_data / "text" / "tinyshakespeare.txt").read_text()[:200_000]
    words = words_in([text], "gpt4")
    assert counted([text], "gpt4") == words
    assert learn_merges(words, 500, engine="kernels") == learn_in_python(words.items(), 500)


def test_small_jobs_do_not_wait_for_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("legollm.kernels.count", "legollm.kernels.learn"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
    words = count_words(["a small text, a small one"], Splitter("gpt2"))
    assert learn_merges(words, 3) == learn_in_python(words.items(), 3)


@pytest.mark.parametrize("engine", ["auto", "python"])
def test_works_without_numba(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.setitem(sys.modules, "legollm.kernels.learn", None)
    monkeypatch.setattr(counting, "SMALL", 0)
    words = count_words(["a text, and a text"], Splitter("gpt2"), engine=engine)
    assert words == words_in(["a text, and a text"], "gpt2")
    assert learn_merges(words, 5, engine=engine) == learn_in_python(words.items(), 5)


def test_kernels_that_are_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TokenizerError, match="knows the patterns gpt2"):
        count_words(["a"], Splitter("a+"), engine="kernels")
    monkeypatch.setitem(sys.modules, "legollm.kernels.learn", None)
    with pytest.raises(TokenizerError, match="numba"):
        learn_merges({b"ab": 2}, 1, engine="kernels")
