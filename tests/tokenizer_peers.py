"""The tokenizers that ours are held against: tiktoken and Hugging Face's, from local files only."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tiktoken
import tiktoken.load
import tokenizers
from tiktoken_ext import openai_public
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from legollm.tokenizers import RegexBPETokenizer, load_tokenizer
from legollm.tokenizers.patterns import PATTERNS

RANKS = {"cl100k_base": "cl100k_base.tiktoken", "o200k_base": "o200k_base.tiktoken"}
LLAMA3_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]


@dataclass(frozen=True)
class Pair:
    """One vocabulary in two programs."""

    ours: RegexBPETokenizer
    ordinary: Callable[[list[str]], list[list[int]]]
    """Their ids, what looks like a special token taken as text."""
    special: Callable[[list[str]], list[list[int]]]
    """Their ids, special tokens recognised."""
    normal: Callable[[str], str] = str
    """What they do to a text before anything else."""


def tiktoken_definition(folder: Path | None, name: str) -> dict[str, Any]:
    """What tiktoken itself defines, with local files in the place of downloads; without a folder, no ranks."""

    def local(url: str) -> str:
        return str(folder / ("gpt2" if name == "gpt2" else "") / Path(url).name)

    def ranks(url: str, expected_hash: str) -> dict[bytes, int]:
        return {} if folder is None else tiktoken.load.load_tiktoken_bpe(local(url), expected_hash)

    def data_gym(vocab_bpe_file: str, encoder_json_file: str, **hashes: str) -> dict[bytes, int]:
        read = tiktoken.load.data_gym_to_mergeable_bpe_ranks
        return {} if folder is None else read(local(vocab_bpe_file), local(encoder_json_file), **hashes)

    # tiktoken keeps copies of what it reads, even of local files, under a key that outlives them.
    with (
        patch.dict("os.environ", TIKTOKEN_CACHE_DIR=""),
        patch.object(openai_public, "load_tiktoken_bpe", ranks),
        patch.object(openai_public, "data_gym_to_mergeable_bpe_ranks", data_gym),
    ):
        return dict(openai_public.ENCODING_CONSTRUCTORS[name]())


def tiktoken_pair(name: str, data: Path, scratch: Path) -> Pair:
    """name: gpt2, r50k_base, cl100k_base or o200k_base. tiktoken checks the SHA-256 of all it reads."""
    folder = tokenizer_folder(name, data, scratch)
    ours = load_tokenizer(folder / (name if name == "gpt2" else f"{name}.tiktoken"))
    assert isinstance(ours, RegexBPETokenizer)
    theirs = tiktoken.Encoding(**tiktoken_definition(folder, name))
    return Pair(
        ours=ours,
        ordinary=lambda texts: theirs.encode_ordinary_batch(texts, num_threads=1),
        special=lambda texts: theirs.encode_batch(texts, num_threads=1, allowed_special="all"),
    )


def tokenizer_folder(name: str, data: Path, scratch: Path) -> Path:
    """Where the files of tiktoken's `name` are. r50k_base is GPT-2's vocabulary in the other format, so we write it."""
    if name != "r50k_base":
        return data / "tokenizers"
    RegexBPETokenizer.from_huggingface(data / "tokenizers" / "gpt2").to_tiktoken(scratch / "r50k_base.tiktoken")
    return scratch


def huggingface_pair(name: str, data: Path, scratch: Path) -> Pair:
    """name: gpt2, qwen or llama3. No file they read was written by us."""
    folder = data / "tokenizers"
    if name == "llama3":
        llama3_folder(folder / RANKS["cl100k_base"], scratch)
        folder, theirs = scratch, tokenizers.Tokenizer.from_file(str(scratch / "tokenizer.json"))
    elif name == "gpt2":
        files = folder / name / "encoder.json", folder / name / "vocab.bpe"
        folder, theirs = folder / name, tokenizers.Tokenizer(tokenizers.models.BPE.from_file(*map(str, files)))
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        theirs.add_special_tokens(["<|endoftext|>"])
    else:
        folder, theirs = folder / name, AutoTokenizer.from_pretrained(folder / name).backend_tokenizer
    ours = load_tokenizer(folder)
    assert isinstance(ours, RegexBPETokenizer)

    def ids(texts: list[str], *, as_text: bool) -> list[list[int]]:
        theirs.encode_special_tokens = as_text
        return [encoding.ids for encoding in theirs.encode_batch_fast(texts, add_special_tokens=False)]

    return Pair(
        ours=ours,
        ordinary=lambda texts: ids(texts, as_text=True),
        special=lambda texts: ids(texts, as_text=False),
        normal=str if theirs.normalizer is None else theirs.normalizer.normalize_str,
    )


def llama3_folder(ranks: Path, folder: Path) -> None:
    """A tokenizer.json as LLaMA 3 has it, made by transformers' own converter from other ranks.

    So several merges build one token, and whole pieces that are tokens are not merged.
    """
    with patch.dict("os.environ", TIKTOKEN_CACHE_DIR=""):
        converter = TikTokenConverter(
            vocab_file=str(ranks), pattern=PATTERNS["llama3"], extra_special_tokens=LLAMA3_SPECIAL
        )
        converted = converter.converted()
    document = json.loads(converted.to_str())
    document["model"]["ignore_merges"] = True
    (folder / "tokenizer.json").write_text(json.dumps(document))
