"""Same ids as tiktoken for the vocabularies of GPT-2, GPT-4 and GPT-4o, and the same cuts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import regex
import tiktoken
import tiktoken.load
from tiktoken_ext import openai_public

from legollm.tokenizers import RegexBPETokenizer, load_tokenizer
from legollm.tokenizers.patterns import Splitter
from text_samples import BAG, random_texts

PATTERNS = {"gpt2": "gpt2", "cl100k_base": "gpt4", "o200k_base": "o200k"}  # their name: ours
FILES = {"gpt2": "gpt2", "cl100k_base": "cl100k_base.tiktoken", "o200k_base": "o200k_base.tiktoken"}


@pytest.fixture(scope="module", autouse=True)
def without_downloads() -> Iterator[pytest.MonkeyPatch]:
    """tiktoken keeps copies of what it reads, even of local files, under a key that outlives them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        yield patch


def definition(patch: pytest.MonkeyPatch, folder: Path | None, name: str) -> dict[str, Any]:
    """What tiktoken itself defines, with local files in the place of downloads; without a folder, no ranks."""

    def local(url: str) -> str:
        return str(folder / ("gpt2" if name == "gpt2" else "") / Path(url).name)

    def ranks(url: str, expected_hash: str) -> dict[bytes, int]:
        return {} if folder is None else tiktoken.load.load_tiktoken_bpe(local(url), expected_hash)

    def data_gym(vocab_bpe_file: str, encoder_json_file: str, **hashes: str) -> dict[bytes, int]:
        read = tiktoken.load.data_gym_to_mergeable_bpe_ranks
        return {} if folder is None else read(local(vocab_bpe_file), local(encoder_json_file), **hashes)

    patch.setattr(openai_public, "load_tiktoken_bpe", ranks)
    patch.setattr(openai_public, "data_gym_to_mergeable_bpe_ranks", data_gym)
    return dict(openai_public.ENCODING_CONSTRUCTORS[name]())


@pytest.fixture(scope="module", params=list(FILES))
def pair(
    request: pytest.FixtureRequest, shared_data: Path, without_downloads: pytest.MonkeyPatch
) -> tuple[RegexBPETokenizer, tiktoken.Encoding]:
    folder = shared_data / "tokenizers"
    tokenizer = load_tokenizer(folder / FILES[request.param])
    assert isinstance(tokenizer, RegexBPETokenizer)
    return tokenizer, tiktoken.Encoding(**definition(without_downloads, folder, request.param))


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


def test_ranks_come_out_as_they_went_in(
    pair: tuple[RegexBPETokenizer, tiktoken.Encoding], shared_data: Path, tmp_path: Path
) -> None:
    tokenizer, encoding = pair
    tokenizer.to_tiktoken(tmp_path / "again")
    source = shared_data / "tokenizers" / FILES[encoding.name]
    if source.is_file():
        assert (tmp_path / "again").read_bytes() == source.read_bytes()
    assert tiktoken.load.load_tiktoken_bpe(str(tmp_path / "again")) == encoding._mergeable_ranks


@pytest.mark.parametrize("name", list(PATTERNS))
def test_cuts_are_those_of_the_original_pattern(name: str, without_downloads: pytest.MonkeyPatch) -> None:
    splitter, original = Splitter(PATTERNS[name]), regex.compile(definition(without_downloads, None, name)["pat_str"])
    for text in [*BAG, *random_texts(seed=4, n=20_000)]:
        assert list(splitter.split(text)) == original.findall(text)


def test_a_trained_tokenizer_is_the_same_in_tiktoken(
    shared_data: Path, tmp_path: Path, without_downloads: pytest.MonkeyPatch
) -> None:
    tokenizer = RegexBPETokenizer("gpt4")
    text = (shared_data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    tokenizer.train(text[:300_000], vocab_size=1000)
    tokenizer.to_tiktoken(tmp_path / "ranks")
    ranks = tiktoken.load.load_tiktoken_bpe(str(tmp_path / "ranks"))
    cl100k = definition(without_downloads, None, "cl100k_base")
    encoding = tiktoken.Encoding(**cl100k | {"mergeable_ranks": ranks})
    assert differing(tokenizer, encoding, [text, *BAG, *random_texts(seed=5, n=2_000)]) == []


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_ids_on_200_000_texts(pair: tuple[RegexBPETokenizer, tiktoken.Encoding], block: int) -> None:
    texts = random_texts(seed=100 + block, n=20_000)
    assert differing(*pair, texts) == []
    for text in texts:
        assert pair[0].decode(pair[0].encode(text)) == text
