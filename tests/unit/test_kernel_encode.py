"""The compiled encoder gives the ids of the plain one, for every vocabulary, text and number of threads."""

import pickle
import random
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import RegexBPETokenizer, fast, regex_bpe
from legollm.tokenizers.bpe_model import BPEModel
from legollm.tokenizers.byte import BYTES
from legollm.tokenizers.patterns import PATTERNS

pytest.importorskip("numba")

WORDS = (
    "the quick brown fox doesn't jump over 12345 lazy dogs; internationalization of antidisestablishmentarianism é中文"
)
ALPHABET = "abcdefghij thequick'\n1.é中\u0301\udc80"


def text_of(rng: random.Random) -> str:
    words = [
        rng.choice(WORDS.split()),
        "".join(rng.choices(ALPHABET, k=rng.choice((1, 5, 14, 15, 16, 17, 63, 64, 65)))),
    ]
    return "".join(rng.choice(words) * rng.choice((1, 1, 1, 3, 30)) + rng.choice((" ", "", "\n")) for _ in range(30))


def both(pattern: str = "gpt4", *, vocab_size: int = 500) -> tuple[RegexBPETokenizer, RegexBPETokenizer]:
    """The same vocabulary with each engine."""
    plain = RegexBPETokenizer(pattern, engine="python")
    plain.train([WORDS * 5, ALPHABET.replace("\udc80", "") * 3], vocab_size=vocab_size)
    compiled = RegexBPETokenizer._from_model(plain._model())
    compiled.engine = "kernels"
    return plain, compiled


@pytest.mark.parametrize("pattern", PATTERNS)
def test_random_texts(pattern: str) -> None:
    plain, compiled = both(pattern)
    rng = random.Random(1)
    texts = [text_of(rng) for _ in range(60)]
    wanted = [plain.encode(text) for text in texts]
    assert [compiled.encode(text) for text in texts] == wanted
    assert [compiled.encode(text) for text in texts] == wanted  # now the words are remembered
    assert compiled.encode_batch(texts) == wanted


def test_ids_need_not_be_in_the_order_of_the_merges() -> None:
    plain, _ = both()
    old = plain._model()
    rng = random.Random(2)
    numbers = rng.sample(range(3_000), len(old.tokens))
    new_id = dict(zip(old.tokens, numbers, strict=True))
    model = BPEModel(
        pattern=old.pattern, tokens={new_id[i]: token for i, token in old.tokens.items()}, merges=old.merges
    )
    compiled = RegexBPETokenizer._from_model(model)
    compiled.engine = "kernels"
    for _ in range(30):
        text = text_of(rng)
        assert compiled.encode(text) == [new_id[i] for i in plain.encode(text)]


@pytest.mark.parametrize("whole_pieces", [False, True])
def test_tokens_that_no_merge_makes(whole_pieces: bool) -> None:
    tokens = [*BYTES, b"ab", b"abcab", b" thing", b"antidisestablishmentarianism", b"ca", b"bc"]
    model = BPEModel(
        pattern="gpt2",
        tokens=dict(enumerate(tokens)),
        merges=[(b"a", b"b"), (b"c", b"a"), (b"b", b"c")],
        whole_pieces=whole_pieces,
    )
    plain, compiled = RegexBPETokenizer._from_model(model), RegexBPETokenizer._from_model(model)
    plain.engine, compiled.engine = "python", "kernels"
    text = "abcab thing antidisestablishmentarianism\nantidisestablishmentarianism abcabc"
    assert compiled.encode(text) == plain.encode(text)
    assert (tokens.index(b" thing") in compiled.encode(text)) == whole_pieces


def random_merges(rng: random.Random, alphabet: str) -> list[tuple[bytes, bytes]]:
    """Merges of bytes and of what earlier ones made that come up in some text, whole characters or not."""
    merges: dict[bytes, tuple[bytes, bytes]] = {}
    for _ in range(rng.choice((5, 20, 60))):
        tokens = [bytes([value]) for value in "".join(rng.choices(alphabet, k=6)).encode()]
        for left, right in merges.values():
            for i in range(len(tokens) - 1, 0, -1):
                if tokens[i - 1 : i + 1] == [left, right]:
                    tokens[i - 1 : i + 1] = [left + right]
        i = rng.randrange(len(tokens))
        pair = tuple(tokens[i : i + 2])
        if len(pair) == 2 and len(b"".join(pair)) <= 8:
            merges.setdefault(b"".join(pair), pair)
    return list(merges.values())


@pytest.mark.parametrize("in_order", [True, False])
def test_characters_that_begin_as_tokens(in_order: bool) -> None:
    """Merges across the bytes of two characters come first, last or between; or use a token that a later one makes."""
    rng = random.Random(7)
    n_begun = 0
    for _ in range(100):
        alphabet = "".join(rng.sample("éèдж中丮文ก\u0e47\U0001f600", 4)) + "a "
        merges = random_merges(rng, alphabet)
        if not in_order:
            rng.shuffle(merges)
        tokens = dict(enumerate([*BYTES, *(left + right for left, right in merges)]))
        model = BPEModel(pattern="gpt2", tokens=tokens, merges=merges)
        plain, compiled = RegexBPETokenizer._from_model(model), RegexBPETokenizer._from_model(model)
        plain.engine, compiled.engine = "python", "kernels"
        for _ in range(10):
            text = "".join(rng.choices(alphabet, k=rng.choice((2, 5, 40))))
            assert compiled.encode(text) == plain.encode(text), (text, merges)
        n_begun += np.count_nonzero(compiled._fast._rules.characters >= 0)
    assert n_begun


def test_two_merges_of_one_token() -> None:
    merges = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc"), (b"abc", b"d")]
    tokens = [*BYTES, b"ab", b"bc", b"abc", b"abcd"]
    model = BPEModel(pattern="gpt4", tokens=dict(enumerate(tokens)), merges=merges)
    compiled = RegexBPETokenizer._from_model(model)
    compiled.engine = "kernels"
    assert compiled.encode("abcdabc") == [259, 258]


def test_normal_form_c_comes_first() -> None:
    plain, _ = both("qwen")
    model = BPEModel(pattern="qwen", tokens=plain._ordinary, merges=plain.merges, nfc=True)
    compiled = RegexBPETokenizer._from_model(model)
    compiled.engine = "kernels"
    assert compiled.encode("cafe\u0301") == plain.encode("café")
    assert compiled.encode_to_numpy("cafe\u0301".encode()).tolist() == plain.encode("café")


@pytest.mark.parametrize("character", ["a", " ", "\n", ".", "1", "é", "中", "\u0301"])
def test_long_runs(character: str) -> None:
    plain, compiled = both()
    text = character * 100_000 + "x"
    ids = compiled.encode_to_numpy(text)
    assert plain.decode(ids.tolist()) == text
    short = character * 5_000 + "x"  # beyond the longest word that is remembered
    assert compiled.encode(short) == plain.encode(short)


def test_long_words_of_few_letters() -> None:
    rng = random.Random(6)
    for _ in range(20):
        words = ["".join(rng.choices("abc", k=rng.randrange(2, 300))) for _ in range(20)]
        plain = RegexBPETokenizer(engine="python")
        plain.train(words, vocab_size=300)
        compiled = RegexBPETokenizer._from_model(plain._model())
        compiled.engine = "kernels"
        assert [compiled.encode(word) for word in words] == [plain.encode(word) for word in words]


def test_a_million_letters_are_one_word() -> None:
    _, compiled = both()
    assert compiled.decode(compiled.encode_to_numpy("ab" * 500_000).tolist()) == "ab" * 500_000


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
def test_batches(threads: int) -> None:
    plain, compiled = both()
    rng = random.Random(3)
    texts = ["", *(text_of(rng) for _ in range(12)), "", "a"]
    ids, offsets = compiled.encode_batch_to_numpy(texts, threads=threads)
    assert ids.dtype == np.int32
    assert [ids[a:b].tolist() for a, b in pairwise(offsets)] == list(map(plain.encode, texts))
    plain_ids, plain_offsets = plain.encode_batch_to_numpy(texts)
    assert (ids == plain_ids).all()
    assert (offsets == plain_offsets).all()
    assert compiled.encode_batch_to_numpy([], threads=threads)[0].tolist() == []


def test_tables_grow_and_then_stop_growing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, compiled = both()
    rng = random.Random(4)
    words = ["".join(rng.choices("abcdefghij", k=rng.choice((6, 12, 20, 20)))) for _ in range(40_000)]
    text = " ".join(words)
    wanted = plain.encode(text)
    assert compiled.encode(text) == wanted
    (memory,) = compiled._fast._memories
    assert len(memory.short) > len(compiled._fast._new_memory().short)
    assert len(memory.long) > len(compiled._fast._new_memory().long)
    assert [np.count_nonzero(memory.short[1::4]), np.count_nonzero(memory.long[1::4])] == memory.used[:2].tolist()
    assert compiled.encode(text) == wanted
    monkeypatch.setattr(fast, "LARGEST_TABLE", 1)  # full from the start: words are found or merged, not remembered
    _, small = both()
    assert small.encode(text) == wanted


def test_files_are_cut_where_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "BLOCK", 50)
    plain, compiled = both()
    rng = random.Random(5)
    path = tmp_path / "text"
    for text in ("", "中" * 100, " ".join(text_of(rng) for _ in range(5)).replace("\udc80", "\r\n")):
        path.write_bytes(text.encode())
        assert compiled.encode_file(path, threads=2).tolist() == plain.encode(text)
        assert plain.encode_file(path).tolist() == plain.encode(text)


@pytest.mark.parametrize("engine", ["python", "kernels"])
def test_bad_input_is_told(engine: fast.Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = RegexBPETokenizer(engine=engine)
    with pytest.raises(TokenizerError, match="byte 1 of the text is no UTF-8"):
        tokenizer.encode_to_numpy(b"a\xff\xfe\xfd")
    with pytest.raises(TokenizerError, match="cannot be read"):
        tokenizer.encode_file(tmp_path / "none")
    monkeypatch.setattr(fast, "BLOCK", 50)
    (tmp_path / "text").write_bytes(b"hello world " * 20 + b"\xff abc")
    with pytest.raises(TokenizerError, match="byte 240 of the text is no UTF-8"):
        tokenizer.encode_file(tmp_path / "text")


def test_engines_that_cannot_be() -> None:
    with pytest.raises(TokenizerError, match="not one of auto, python, kernels"):
        RegexBPETokenizer(engine="rust")  # type: ignore[arg-type]
    with pytest.raises(TokenizerError, match="one of the named patterns"):
        RegexBPETokenizer(r"\w+", engine="kernels").encode("x")


def test_auto_takes_the_compiled_code_where_there_is_text_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regex_bpe, "is_loaded", lambda: False)
    monkeypatch.setattr(regex_bpe, "WORTH_LOADING", 20_000)
    plain, _ = both()
    auto = RegexBPETokenizer._from_model(plain._model())
    own = RegexBPETokenizer(r"\w+|\W")
    auto.encode(WORDS)
    assert auto._fast is None
    assert auto.encode(WORDS * 200) == plain.encode(WORDS * 200)
    assert auto._fast is not None
    assert len(own.encode_to_numpy("ab" * 20_000)) == 40_000


def test_without_numba_the_plain_code_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "legollm.kernels.encode", None)
    monkeypatch.setattr(regex_bpe, "WORTH_LOADING", 1)
    monkeypatch.setattr(regex_bpe, "WORTH_BUILDING", 1)
    tokenizer = RegexBPETokenizer()
    assert tokenizer.encode_to_numpy("abc").tolist() == [97, 98, 99]
    assert tokenizer.encode_batch(["abc"] * 2) == [[97, 98, 99]] * 2
    with pytest.raises(TokenizerError, match="needs numba"):
        RegexBPETokenizer(engine="kernels").encode("x")


def test_a_copy_in_another_process_works() -> None:
    plain, compiled = both()
    compiled.encode(WORDS)
    copy = pickle.loads(pickle.dumps(compiled))
    assert copy.encode(WORDS) == plain.encode(WORDS)


def test_saved_files_do_not_know_the_engine(tmp_path: Path) -> None:
    plain, compiled = both()
    assert plain.fingerprint == compiled.fingerprint
    compiled.save(tmp_path / "tokenizer.json")
    assert RegexBPETokenizer.load(tmp_path / "tokenizer.json").engine == "auto"
