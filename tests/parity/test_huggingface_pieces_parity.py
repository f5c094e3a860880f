"""Unigram and BPE over characters in Hugging Face's files: the same ids there, and the same tokenizer back."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import AutoTokenizer

from legollm.errors import TokenizerError
from legollm.tokenizers import CharBPETokenizer, UnigramTokenizer, load_tokenizer
from text_samples import BAG, random_texts

CORPUS = [*BAG, *random_texts(seed=6, n=300), "the cat sat on the mat, \u2581they'll see <0x8 \u2581. 2024\n" * 5]
LOOK_ALIKES = ["<0x80>", "a<0xE4>b <0xFF>", "<0x41>", "\u2581a \u2581\u2581", "\0\0<0x00>", "\u0300<0xC3><0x80>"]
TEXTS = [*BAG, *LOOK_ALIKES, *random_texts(seed=8, n=3_000), "a" * 3_000, " " * 500 + "x"]
SPECIAL = ["<|endoftext|>", "<|im_start|>"]


@pytest.fixture(params=[UnigramTokenizer, CharBPETokenizer])
def ours(request: pytest.FixtureRequest) -> Any:
    tokenizer = request.param(r"\s*\S+|\s+")  # "<0x80>" is one word
    tokenizer.train(CORPUS, vocab_size=900, special_tokens=SPECIAL)
    return tokenizer


def test_ids_are_equal_and_the_tokenizer_comes_back(ours: Any, tmp_path: Path) -> None:
    ours.to_huggingface(tmp_path, eos="<|endoftext|>", chat_template="{{ messages }}")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.encode_special_tokens = True
    expected = [encoding.ids for encoding in theirs.encode_batch(TEXTS, add_special_tokens=False)]
    assert ours.encode_batch(TEXTS) == expected
    known = load_tokenizer(tmp_path)
    assert type(known) is type(ours)
    assert known.fingerprint == ours.fingerprint
    assert known.encode_batch(TEXTS) == expected
    for text in [*BAG, *LOOK_ALIKES]:
        assert theirs.decode(ours.encode(text), skip_special_tokens=False) == text


def test_ties_of_a_tiny_alphabet_fall_the_same_way(tmp_path: Path) -> None:
    """Scores with more digits than the other program reads would break them otherwise."""
    rng = random.Random(3)
    for n in range(40):
        text = "".join(rng.choices("ab", k=30))
        tokenizer = UnigramTokenizer("gpt2")
        tokenizer.train([text], vocab_size=rng.randint(259, 264))
        tokenizer.to_huggingface(tmp_path / str(n))
        theirs = tokenizers.Tokenizer.from_file(str(tmp_path / str(n) / "tokenizer.json"))
        texts = ["".join(rng.choices("ab", k=rng.randint(2, 9))) for _ in range(50)]
        expected = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
        assert tokenizer.encode_batch(texts) == expected


def test_transformers_opens_the_folder(ours: Any, tmp_path: Path) -> None:
    ours.to_huggingface(tmp_path, eos="<|endoftext|>")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*BAG, *LOOK_ALIKES, *random.Random(1).sample(TEXTS, 200)]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text, allowed_special="all"), text
        assert theirs.decode(ours.encode(text), clean_up_tokenization_spaces=False) == text
    assert theirs.eos_token_id == ours.special_tokens["<|endoftext|>"]
    assert len(theirs) == ours.vocab_size


@pytest.mark.parametrize("kind", [UnigramTokenizer, CharBPETokenizer])
@pytest.mark.parametrize(
    ("text", "special", "wrong"),
    [
        ("<0x80>" * 50, "<|end|>", "spelled like the name of a byte"),
        ("a\udcffa\udcff" * 50, "<|end|>", "half a surrogate pair"),
        ("abc", "<0x80>", "special token '<0x80>' is the name of a byte"),
    ],
)
def test_what_the_file_cannot_hold_is_said(kind: Any, text: str, special: str, wrong: str, tmp_path: Path) -> None:
    tokenizer = kind(r"[\s\S]{6}")
    tokenizer.train(text, vocab_size=290, special_tokens=[special])
    with pytest.raises(TokenizerError, match=wrong):
        tokenizer.to_huggingface(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"normalizer": {"type": "NFC"}}, "normalizer NFC is not supported"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "pre-tokenizer Metaspace is not supported"),
        ({"pre_tokenizer": None}, "pre-tokenizer None is not supported"),
    ],
)
def test_files_that_work_otherwise_are_refused(change: dict[str, Any], wrong: str, ours: Any, tmp_path: Path) -> None:
    ours.to_huggingface(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(TokenizerError, match=wrong):
        load_tokenizer(file)


def test_other_orders_of_ids_are_refused(ours: Any, tmp_path: Path) -> None:
    ours.to_huggingface(tmp_path)
    file = tmp_path / "tokenizer.json"
    document = json.loads(file.read_text())
    vocab = document["model"]["vocab"]
    if isinstance(vocab, list):
        vocab[0], vocab[300] = vocab[300], vocab[0]
    else:
        swapped = next(name for name, i in vocab.items() if i == 300)
        vocab["\0"], vocab[swapped] = 300, 0
    file.write_text(json.dumps(document))
    with pytest.raises(TokenizerError, match=r"id 0 is .*only files whose ids are ASCII"):
        load_tokenizer(file)
