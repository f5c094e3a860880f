"""Same ids as tiktoken for the vocabularies of GPT-2, GPT-4 and GPT-4o, and the same cuts."""

from pathlib import Path

import pytest
import regex
import tiktoken
import tiktoken.load

from legollm.tokenizers import RegexBPETokenizer, load_tokenizer
from legollm.tokenizers.patterns import PATTERNS, Splitter
from text_samples import BAG, random_texts

# The originals: possessive, with `$`, as tiktoken 0.14 has them.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
SOURCES = {
    "gpt2": ("gpt2", GPT2),
    "cl100k_base.tiktoken": ("gpt4", CL100K),
    "o200k_base.tiktoken": ("o200k", PATTERNS["o200k"]),
}


def oracle(folder: Path, source: str) -> tiktoken.Encoding:
    if source == "gpt2":
        ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(
            str(folder / "gpt2" / "vocab.bpe"), str(folder / "gpt2" / "encoder.json")
        )
    else:
        ranks = tiktoken.load.load_tiktoken_bpe(str(folder / source))
    return tiktoken.Encoding(source, pat_str=SOURCES[source][1], mergeable_ranks=ranks, special_tokens={})


@pytest.fixture(scope="module", params=list(SOURCES))
def pair(request: pytest.FixtureRequest, shared_data: Path) -> tuple[RegexBPETokenizer, tiktoken.Encoding]:
    folder = shared_data / "tokenizers"
    tokenizer = load_tokenizer(folder / request.param)
    assert isinstance(tokenizer, RegexBPETokenizer)
    return tokenizer, oracle(folder, request.param)


def differing(tokenizer: RegexBPETokenizer, encoding: tiktoken.Encoding, texts: list[str]) -> list[str]:
    return [text for text in texts if tokenizer.encode(text) != encoding.encode_ordinary(text)]


def test_ids_on_all_kinds_of_text(pair: tuple[RegexBPETokenizer, tiktoken.Encoding]) -> None:
    assert differing(*pair, [*BAG, *random_texts(seed=3, n=2_000)]) == []


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


def test_known_files_have_their_special_tokens(pair: tuple[RegexBPETokenizer, tiktoken.Encoding]) -> None:
    end = {"gpt2": 50256, "cl100k_base.tiktoken": 100257, "o200k_base.tiktoken": 199999}[pair[1].name]
    assert pair[0].encode("<|endoftext|>", allowed_special="all") == [end]
    assert pair[0].vocab_size == {50256: 50257, 100257: 100277, 199999: 200019}[end]


def test_ranks_come_out_as_they_went_in(
    pair: tuple[RegexBPETokenizer, tiktoken.Encoding], shared_data: Path, tmp_path: Path
) -> None:
    tokenizer, encoding = pair
    tokenizer.to_tiktoken(tmp_path / "again")
    source = shared_data / "tokenizers" / encoding.name
    if source.is_file():
        assert (tmp_path / "again").read_bytes() == source.read_bytes()
    else:
        assert tiktoken.load.load_tiktoken_bpe(str(tmp_path / "again")) == encoding._mergeable_ranks


@pytest.mark.parametrize("source", list(SOURCES))
def test_cuts_are_those_of_the_original_pattern(source: str) -> None:
    name, original = SOURCES[source]
    splitter, compiled = Splitter(name), regex.compile(original)
    for text in [*BAG, *random_texts(seed=4, n=20_000)]:
        assert list(splitter.split(text)) == compiled.findall(text)


def test_a_trained_tokenizer_is_the_same_in_tiktoken(shared_data: Path, tmp_path: Path) -> None:
    tokenizer = RegexBPETokenizer("gpt4")
    text = (shared_data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    tokenizer.train(text[:300_000], vocab_size=1000)
    tokenizer.to_tiktoken(tmp_path / "ranks")
    ranks = tiktoken.load.load_tiktoken_bpe(str(tmp_path / "ranks"))
    encoding = tiktoken.Encoding("t", pat_str=CL100K, mergeable_ranks=ranks, special_tokens={})
    assert differing(tokenizer, encoding, [text, *BAG, *random_texts(seed=5, n=2_000)]) == []


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_ids_on_200_000_texts(pair: tuple[RegexBPETokenizer, tiktoken.Encoding], block: int) -> None:
    texts = random_texts(seed=100 + block, n=20_000)
    assert differing(*pair, texts) == []
    for text in texts:
        assert pair[0].decode(pair[0].encode(text)) == text
