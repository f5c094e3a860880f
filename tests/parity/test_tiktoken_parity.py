"""Same ids as tiktoken for the vocabularies of GPT-2, GPT-4 and GPT-4o, and the same cuts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import regex
import tiktoken
import tiktoken.load

from legollm.tokenizers import RegexBPETokenizer, load_tokenizer
from legollm.tokenizers.patterns import Splitter
from text_samples import BAG, random_texts
from tokenizer_peers import tiktoken_definition, tokenizer_folder

PATTERNS = {"gpt2": "gpt2", "r50k_base": "gpt2", "cl100k_base": "gpt4", "o200k_base": "o200k"}  # their name: ours
FILES = {name: f"{name}.tiktoken" for name in PATTERNS} | {"gpt2": "gpt2"}


@pytest.fixture(scope="module", params=list(PATTERNS))
def pair(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RegexBPETokenizer, tiktoken.Encoding]:
    folder = tokenizer_folder(request.param, shared_data, tmp_path_factory.mktemp("ranks"))
    tokenizer = load_tokenizer(folder / FILES[request.param])
    assert isinstance(tokenizer, RegexBPETokenizer)
    return tokenizer, tiktoken.Encoding(**tiktoken_definition(folder, request.param))


def differing(tokenizer: RegexBPETokenizer, encoding: tiktoken.Encoding, texts: list[str]) -> list[str]:
    return [text for text in texts if tokenizer.encode(text) != encoding.encode_ordinary(text)]


def test_ids_on_all_kinds_of_text(pair: tuple[RegexBPETokenizer, tiktoken.Encoding]) -> None:
    assert differing(*pair, [*BAG, *random_texts(seed=3, n=7_000)]) == []


def test_ids_on_real_text(pair: tuple[RegexBPETokenizer, tiktoken.Encoding], shared_data: Path) -> None:
    for name in ("udhr-multilingual.txt", "neko-ja.txt"):
        text = (shared_data / "text" / name).read_text(encoding="utf-8")[:100_000]
        assert differing(*pair, [text]) == []
        assert pair[0].decode(pair[0].encode(text)) == text


def test_ids_of_long_pieces(pair: tuple[RegexBPETokenizer, tiktoken.Encoding]) -> None:
    assert (
        differing(*pair, [unit * (3_000 // len(unit)) for unit in ("a", " ", "ab", "\u0301", "=-", "日本", "\r\n")])
        == []
    )


def test_vocabulary_and_merges(pair: tuple[RegexBPETokenizer, tiktoken.Encoding]) -> None:
    tokenizer, encoding = pair
    special = set(tokenizer.special_tokens.values())
    ordinary = {i: token for i, token in tokenizer.vocab.items() if i not in special}
    assert ordinary == {i: token for token, i in encoding._mergeable_ranks.items()}
    assert [tokenizer._ids[left + right] for left, right in tokenizer.merges] == sorted(
        i for i, token in ordinary.items() if len(token) > 1
    )


def test_special_tokens(pair: tuple[RegexBPETokenizer, tiktoken.Encoding]) -> None:
    tokenizer, encoding = pair
    assert dict(tokenizer.special_tokens) == encoding._special_tokens
    assert tokenizer.vocab_size == encoding.n_vocab
    text = "".join(f"{name}text{name}" for name in encoding.special_tokens_set)
    assert tokenizer.encode(text, allowed_special="all") == encoding.encode(text, allowed_special="all")


def refuses(encode: Callable[..., list[int]], text: str, **sets: Any) -> bool:
    """tiktoken raises ValueError, ours a child of it."""
    try:
        encode(text, **sets)
    except ValueError:
        return True
    return False


def test_allowed_and_disallowed_special_tokens_mean_the_same(
    pair: tuple[RegexBPETokenizer, tiktoken.Encoding],
) -> None:
    """But for the default: tiktoken refuses what looks like a special token, here it is plain text."""
    tokenizer, encoding = pair
    names = sorted(tokenizer.special_tokens)
    texts = ["", "plain", "<|endoftext", *names, f"a{names[0]} b{names[-1]}c", f"<{names[0]}>{names[-1]}"]
    for text in texts:
        has_special = any(name in text for name in names)
        assert refuses(encoding.encode, text) == has_special
        assert not refuses(tokenizer.encode, text)
        assert tokenizer.encode(text) == encoding.encode(text, disallowed_special=())
        for allowed in ("all", set(), {names[0]}, {names[-1]}, set(names)):
            for disallowed in ("all", (), {names[0]}, {names[-1]}):
                sets = {"allowed_special": allowed, "disallowed_special": disallowed}
                refused = refuses(encoding.encode, text, **sets)
                assert refuses(tokenizer.encode, text, **sets) == refused
                assert refused or tokenizer.encode(text, **sets) == encoding.encode(text, **sets)


def test_ranks_come_out_as_they_went_in(
    pair: tuple[RegexBPETokenizer, tiktoken.Encoding],
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    tokenizer, encoding = pair
    tokenizer.to_tiktoken(tmp_path / "again")
    source = shared_data / "tokenizers" / FILES[encoding.name]  # r50k_base: tiktoken has checked the hash of ours
    if source.is_file():
        assert (tmp_path / "again").read_bytes() == source.read_bytes()
    assert tiktoken.load.load_tiktoken_bpe(str(tmp_path / "again")) == encoding._mergeable_ranks


@pytest.mark.parametrize("name", list(PATTERNS))
def test_cuts_are_those_of_the_original_pattern(name: str) -> None:
    splitter, original = Splitter(PATTERNS[name]), regex.compile(tiktoken_definition(None, name)["pat_str"])
    for text in [*BAG, *random_texts(seed=4, n=20_000)]:
        assert list(splitter.split(text)) == original.findall(text)


def test_a_trained_tokenizer_is_the_same_in_tiktoken(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    tokenizer = RegexBPETokenizer("gpt4")
    text = (shared_data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    tokenizer.train(text[:300_000], vocab_size=1000)
    tokenizer.to_tiktoken(tmp_path / "ranks")
    ranks = tiktoken.load.load_tiktoken_bpe(str(tmp_path / "ranks"))
    cl100k = tiktoken_definition(None, "cl100k_base")
    encoding = tiktoken.Encoding(**cl100k | {"mergeable_ranks": ranks})
    assert differing(tokenizer, encoding, [text, *BAG, *random_texts(seed=5, n=2_000)]) == []
