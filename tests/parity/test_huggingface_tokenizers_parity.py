"""Same ids as Hugging Face's tokenizers: what we export they read, what they have we read."""

import unicodedata
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import tokenizers
from transformers import AutoTokenizer

from legollm.tokenizers import CharTokenizer, RegexBPETokenizer, load_tokenizer
from legollm.tokenizers.patterns import PATTERNS
from text_samples import BAG, random_texts
from tokenizer_peers import Pair, huggingface_pair

CORPUS = [*BAG, *random_texts(seed=6, n=400), "the cat sat on the mat, the dog didn't; they'll see. 2024 2025\n" * 5]
TEXTS = [*BAG, *random_texts(seed=7, n=2_000)]


def differing(ours: RegexBPETokenizer, theirs: tokenizers.Tokenizer, texts: list[str]) -> list[str]:
    return [
        text
        for text in texts
        if ours.encode(text, allowed_special="all") != theirs.encode(text, add_special_tokens=False).ids
    ]


@pytest.mark.parametrize("pattern", [*PATTERNS, r"\w+|\s+"])
def test_what_we_export_gives_the_same_ids(pattern: str, tmp_path: Path) -> None:
    ours = RegexBPETokenizer(pattern)
    ours.train(CORPUS, vocab_size=700, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    ours.to_huggingface(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert differing(ours, theirs, TEXTS) == []
    assert theirs.get_vocab_size() == ours.vocab_size
    for text in BAG:
        assert theirs.decode(ours.encode(text), skip_special_tokens=False) == text


def test_auto_tokenizer_opens_the_folder(tmp_path: Path) -> None:
    ours = RegexBPETokenizer("gpt4")
    ours.train(CORPUS, vocab_size=400, special_tokens=["<|endoftext|>", "<|im_end|>"])
    template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    ours.to_huggingface(tmp_path, eos="<|im_end|>", pad="<|endoftext|>", chat_template=template)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == ours.special_tokens["<|im_end|>"]
    assert theirs.pad_token_id == ours.special_tokens["<|endoftext|>"]
    assert len(theirs) == ours.vocab_size
    for text in BAG:
        ids = ours.encode(text, allowed_special="all")
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs.decode(ids) == text
    chat = theirs.apply_chat_template([{"role": "user", "content": "hi there"}], tokenize=True, return_dict=False)
    assert chat == ours.encode("hi there<|im_end|>", allowed_special="all")
    theirs.save_pretrained(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").encode_batch(TEXTS[:200]) == ours.encode_batch(TEXTS[:200])


def test_ids_that_are_not_consecutive_survive_the_export(tmp_path: Path) -> None:
    ours = RegexBPETokenizer("gpt4")
    ours.train(CORPUS, vocab_size=400)
    ours = RegexBPETokenizer._from_model(replace(ours._model(), special_tokens={"<|b|>": 900, "<|a|>": 1000}))
    ours.to_huggingface(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert differing(ours, theirs, ["x<|a|>y<|b|>z", *TEXTS]) == []
    assert ours.encode("<|a|><|b|>", allowed_special="all") == [1000, 900]
    assert load_tokenizer(tmp_path).fingerprint == ours.fingerprint


def test_qwen(shared_data: Path) -> None:
    folder = shared_data / "tokenizers" / "qwen"
    ours = load_tokenizer(folder)
    assert isinstance(ours, RegexBPETokenizer)
    theirs = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    # Their normaliser has the tables of an older Unicode: it leaves marks where they are that came later.
    same_form = [text for text in TEXTS if theirs.normalizer.normalize_str(text) == unicodedata.normalize("NFC", text)]
    assert differing(ours, theirs, same_form) == []
    long_known = [text for text in TEXTS if all(map(unicodedata.ucd_3_2_0.name, text, repeat("")))]
    assert set(long_known) <= set(same_form)
    assert len(same_form) > 0.98 * len(TEXTS)
    assert ours.special_tokens["<|im_end|>"] == 151645
    tool_call = ours.encode("<tool_call>{}<|im_end|>", allowed_special="all")
    assert ours.decode(tool_call, skip_special=True) == theirs.decode(tool_call) == "<tool_call>{}"


def test_what_they_train_gives_the_same_ids(tmp_path: Path) -> None:
    theirs = tokenizers.ByteLevelBPETokenizer()
    theirs.train_from_iterator(CORPUS, vocab_size=600, special_tokens=["<s>", "<|endoftext|>"], show_progress=False)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert isinstance(ours, RegexBPETokenizer)
    assert differing(ours, theirs._tokenizer, TEXTS) == []


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_tokens_that_no_merge_builds(ignore_merges: bool, tmp_path: Path) -> None:
    ours = RegexBPETokenizer("llama3")
    ours.train(CORPUS, vocab_size=300)
    model = ours._model()
    tokens = {**model.tokens, 300: b" mattress", 301: b"xyz"}
    ours = RegexBPETokenizer._from_model(replace(model, tokens=tokens, whole_pieces=ignore_merges))
    assert (ours.encode("the mattress")[-1] == 300) is ignore_merges
    ours.to_huggingface(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert differing(ours, theirs, ["xyz mattress xyzxyz", *TEXTS[:200]]) == []
    assert load_tokenizer(tmp_path).fingerprint == ours.fingerprint


def test_tiny_shakespeare_has_65_characters(shared_data: Path) -> None:
    text = (shared_data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    tokenizer = CharTokenizer()
    tokenizer.train(text)
    assert tokenizer.vocab_size == 65
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.fixture(
    scope="module", params=["gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qwen", "llama3"))]
)
def published(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Pair, Path]:
    """A vocabulary of many thousand tokens that others made, and the folder it was exported to."""
    folder = tmp_path_factory.mktemp("published")
    pair = huggingface_pair(request.param, shared_data, folder)
    pair.ours.to_huggingface(folder / "export", eos="<|endoftext|>" if request.param != "llama3" else "<|eot_id|>")
    return pair, folder / "export"


def test_published_vocabularies_go_out_and_come_back(published: tuple[Pair, Path], shared_data: Path) -> None:
    pair, folder = published
    assert load_tokenizer(folder).fingerprint == pair.ours.fingerprint
    theirs = AutoTokenizer.from_pretrained(folder)
    assert len(theirs) == len(pair.ours.vocab)
    assert theirs.eos_token_id == pair.ours.special_tokens[theirs.eos_token]
    real = [
        (shared_data / "text" / name).read_text()[5_000:25_000] for name in ("udhr-multilingual.txt", "neko-ja.txt")
    ]
    for text in [*BAG, *real]:
        ids = pair.ours.encode(text, allowed_special="all")
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs.decode(ids) == pair.ours.decode(ids) == pair.normal(text)


def test_offsets(published: tuple[Pair, Path]) -> None:
    """The same spans, except where text is brought into normal form: theirs then lie inside ours, which are sound."""
    pair, folder = published
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    reordered = 0
    for text in TEXTS:
        if pair.normal(text) != (unicodedata.normalize("NFC", text) if pair.ours._nfc else text):
            continue
        encoding = theirs.encode(text, add_special_tokens=False)
        ids, offsets = pair.ours.encode_with_offsets(text, allowed_special="all")
        assert ids == encoding.ids
        if pair.normal(text) == text:
            assert offsets == encoding.offsets
        else:
            reordered += 1
            inside = [a <= c and d <= b for (a, b), (c, d) in zip(offsets, encoding.offsets, strict=True)]
            assert all(inside)
    assert (reordered > 0) is pair.ours._nfc
