"""Ids equal to tiktoken's and Hugging Face's on random strings of every kind, and on all the real text there is.

Left out are only characters that engines know from different versions of Unicode: those that came after Python's.
Lone surrogates are no text and have a test of their own, because the peers do not encode them as they are.
"""

import itertools
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pytest
import regex
import tiktoken

from legollm.tokenizers import RegexBPETokenizer
from tokenizer_peers import Pair, huggingface_pair, tiktoken_definition, tiktoken_pair

Engine = Literal["python", "kernels"]
ENGINES: tuple[Engine, ...] = ("kernels", "python")
BLOCK = 20_000

_CODES = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
_LATER = {c for c in regex.findall(r"\P{Cn}", "".join(_CODES)) if unicodedata.category(c) == "Cn"} | {"\u0295"}
_ANY = [c for c in _CODES if c not in _LATER]  # private use and what no Unicode has assigned, too
_ASSIGNED = [c for c in _ANY if unicodedata.category(c) not in ("Cn", "Co")]
_SCRIPTS = [c for c in _ASSIGNED if c < "\u3100"]
_MARKS = [c for c in _ASSIGNED if unicodedata.category(c) in ("Mn", "Mc", "Me")]
_DIGITS = [c for c in _ASSIGNED if unicodedata.category(c) in ("Nd", "Nl", "No")]
_SPACES = [c for c in _ASSIGNED if c.isspace()] + list(" \n\r\t") * 6 + ["\r\n"] * 8
_CONTRACTIONS = [
    letter + "'" + "".join(cased)
    for tail in ("s", "t", "re", "ve", "m", "ll", "d", "x", "ſ")
    for cased in itertools.product(*((c, c.upper()) for c in tail))
    for letter in ("", "a", "A", " ", "é", "1")
]
_LOOKALIKES = ["<|endoftext|>", "<|im_start|>", "<|eot_id|>", "<|endoftext", "|>", "<|", "<", "<|fim_prefix|>", "<s>"]
_WORDS = [
    "the",
    " The",
    " of",
    "Tokenizer",
    "日本語",
    " мир",
    "naïve",
    "_x",
    "://",
    "...",
    "---",
    "=\n",
    "\t\t",
    "/\n/",
]
_ASCII = [chr(code) for code in range(128)]
_POOLS = (
    *(_ASCII, _ASCII, _WORDS, _WORDS, _CONTRACTIONS, _SPACES, _SCRIPTS, _ASSIGNED, _ANY, _MARKS, _DIGITS),
    *(list("0123456789"), list("abcdeABCDE"), _LOOKALIKES, ["\x00", "\x00\x00", "\x7f", "\ufeff", "\uffff", "\u200d"]),
)


def strings(seed: int, n: int) -> list[str]:
    """Short strings out of one to four of the pools; one in fifty repeats a piece hundreds of times."""
    rng = random.Random(seed)
    made = []
    for i in range(n):
        pools = rng.choices(_POOLS, k=rng.randrange(1, 5))
        pieces = [rng.choice(pool) for pool in rng.choices(pools, k=rng.randrange(1, 20))]
        if i % 50 == 0:
            pieces[0] *= rng.randrange(2, 600)
        made.append("".join(pieces))
    return made


TIKTOKEN = ("gpt2", "r50k_base", "cl100k_base", "o200k_base")
HUGGING_FACE = ("gpt2", "qwen", "llama3")
PAIRS = MappingProxyType(
    {f"tiktoken {name}": (tiktoken_pair, name) for name in TIKTOKEN}
    | {f"tokenizers {name}": (huggingface_pair, name) for name in HUGGING_FACE}
)


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        make, name = PAIRS[request.param]
        yield make(name, shared_data, tmp_path_factory.mktemp("files"))


def with_engine(tokenizer: RegexBPETokenizer, engine: Engine) -> RegexBPETokenizer:
    if engine == "kernels":
        pytest.importorskip("numba")
    fresh = RegexBPETokenizer(engine=engine)
    fresh._adopt(tokenizer._model())
    return fresh


def assert_equal_ids(pair: Pair, tokenizer: RegexBPETokenizer, texts: list[str]) -> None:
    """Equal ids, and the text back."""
    theirs = pair.ordinary(texts)
    ours = tokenizer.encode_batch(texts)
    assert [(text, a, b) for text, a, b in zip(texts, ours, theirs, strict=True) if a != b][:3] == []
    whole = tokenizer.decode_bytes(itertools.chain.from_iterable(ours))
    assert whole == "".join(map(pair.normal, texts)).encode()


def comparable(pair: Pair, texts: list[str]) -> list[str]:
    """Those that mean the same to both: of seven pairs, only Qwen has others.

    Its normaliser has the tables of an older Unicode, and its tokens that are visible, such as <tool_call>, cannot be
    taken as text there.
    """
    if pair.normal is str:
        return texts
    return [
        text
        for text in texts
        if pair.normal(text) == unicodedata.normalize("NFC", text)
        and not any(name in text for name in pair.ours._visible)
    ]


def test_the_strings_have_everything() -> None:
    text = "".join(strings(0, BLOCK))
    assert {ord(c) >> 16 for c in text} == set(range(17))
    assert {unicodedata.category(c) for c in text} == {unicodedata.category(c) for c in _ANY}
    for needed in ("\x00", "\r\n", "<|endoftext|>", "'LL", "'rE", "a" * 20, " " * 20, "\uffff"):
        assert needed in text, needed


# Slow: 28,600 strings of their own for each of the seven pairs, 200,000 together. A part goes the plain way as well.
@pytest.mark.parametrize(
    ("engine", "n"),
    [("kernels", 5_000), pytest.param("kernels", 28_600, marks=pytest.mark.slow), ("python", 2_000)],
)
def test_ids_on_random_strings(pair: Pair, engine: Engine, n: int, request: pytest.FixtureRequest) -> None:
    seed = list(PAIRS).index(request.node.callspec.params["pair"])
    texts = comparable(pair, strings(seed, n))
    assert len(texts) > 0.9 * n
    assert_equal_ids(pair, with_engine(pair.ours, engine), texts)


# Eight blocks of their own for each of the seven pairs: 1,120,000 strings together, the first block the plain way, too.
@pytest.mark.parametrize(
    "block", [pytest.param(i, marks=pytest.mark.soak if i else pytest.mark.slow) for i in range(8)]
)
def test_ids_on_a_million_random_strings(pair: Pair, block: int, request: pytest.FixtureRequest) -> None:
    seed = 100 + 8 * list(PAIRS).index(request.node.callspec.params["pair"]) + block
    texts = comparable(pair, strings(seed, BLOCK))
    for engine in ENGINES if block == 0 else ("kernels",):
        assert_equal_ids(pair, with_engine(pair.ours, engine), texts)


def test_special_tokens_among_random_strings(pair: Pair) -> None:
    texts = comparable(pair, [text for text in strings(7, 8_000) if "<|" in text])
    assert len(texts) > 500
    ours = [pair.ours.encode(text, allowed_special="all") for text in texts]
    assert ours == pair.special(texts)
    assert any(ids != ordinary for ids, ordinary in zip(ours, pair.ordinary(texts), strict=True))


def test_every_code_point_alone_and_among_others(pair: Pair) -> None:
    """Each in six surroundings; in steps of 83, so that every block of Unicode has its turn."""
    texts = [f"{c} {c}a{c}1{c}\n{c}.{c}" for c in _ASSIGNED[::83]]
    assert_equal_ids(pair, pair.ours, comparable(pair, texts))


SOME = [*_ASSIGNED[::7], *_ANY[::101]]


@pytest.mark.parametrize(
    "characters",
    [pytest.param(SOME, marks=pytest.mark.slow, id="some"), pytest.param(_ANY, marks=pytest.mark.soak, id="all")],
)
def test_each_single_code_point(pair: Pair, characters: list[str]) -> None:
    for block in range(0, len(characters), BLOCK):
        texts = [f"{c} {c}a{c}1{c}\n{c}.{c}'{c}" for c in characters[block : block + BLOCK]]
        assert_equal_ids(pair, pair.ours, comparable(pair, texts))


def test_streams_have_whole_characters_only(pair: Pair) -> None:
    texts = [text for text in comparable(pair, strings(9, 600)) if "\ufffd" not in text]
    for text in texts:
        pieces = list(pair.ours.decode_stream(pair.ours.encode(text)))
        assert "\ufffd" not in "".join(pieces)
        assert "" not in pieces
        assert "".join(pieces) == pair.normal(text)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_ids_on_all_real_text(pair: Pair, engine: Engine, shared_data: Path) -> None:
    """Whole with the engine, because a scanner has windows to get wrong; the plain way reads a tenth."""
    tokenizer = with_engine(pair.ours, engine)
    for file in sorted((shared_data / "text").glob("*.txt")):
        text = file.read_bytes().decode()
        assert_equal_ids(pair, tokenizer, [text if engine == "kernels" else text[: len(text) // 10]])


def test_lone_surrogates_keep_their_three_bytes(shared_data: Path) -> None:
    """Cut like any character that is neither letter nor digit nor space, then merged as bytes.

    The peers' way is another: tiktoken replaces them by U+FFFD, tokenizers refuses the text.
    """
    definition = tiktoken_definition(shared_data / "tokenizers", "cl100k_base")
    theirs, cut = tiktoken.Encoding(**definition), regex.compile(definition["pat_str"])
    tokenizer = RegexBPETokenizer.from_tiktoken(shared_data / "tokenizers" / "cl100k_base.tiktoken")
    engines = [with_engine(tokenizer, engine) for engine in ENGINES]
    rng = random.Random(8)
    for text in strings(8, 1_000):
        i = rng.randrange(len(text) + 1)
        broken = text[:i] + "".join(chr(rng.randrange(0xD800, 0xE000)) for _ in range(rng.randrange(1, 4))) + text[i:]
        pieces = [piece.encode("utf-8", "surrogatepass") for piece in cut.findall(broken)]
        ids = engines[0].encode(broken)
        assert ids == engines[1].encode(broken)
        assert ids == [i for piece in pieces for i in theirs._encode_single_piece(piece)], ascii(broken)
        assert tokenizer.decode_bytes(ids) == b"".join(pieces)
    assert theirs.encode_ordinary("a\ud800b") == tokenizer.encode("a\ufffdb")
