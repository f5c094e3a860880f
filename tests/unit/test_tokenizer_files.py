"""Files of other programs, read strictly; our own, written whole."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import RegexBPETokenizer, load_tokenizer
from legollm.tokenizers.bpe_model import BPEModel
from legollm.tokenizers.byte import BYTES
from legollm.tokenizers.files import write_text
from legollm.tokenizers.patterns import PATTERNS


@pytest.fixture
def trained() -> RegexBPETokenizer:
    tokenizer = RegexBPETokenizer("o200k")
    tokenizer.train("the cat and the hat, the\n\nbat — über " * 4, vocab_size=290, special_tokens=["<|end|>"])
    return tokenizer


@pytest.fixture
def exported(trained: RegexBPETokenizer, tmp_path: Path) -> Path:
    trained.to_huggingface(tmp_path)
    return tmp_path / "tokenizer.json"


def test_ranks_go_out_and_come_back(trained: RegexBPETokenizer, tmp_path: Path) -> None:
    trained.to_tiktoken(tmp_path / "x.tiktoken")
    back = RegexBPETokenizer.from_tiktoken(
        tmp_path / "x.tiktoken", pattern="o200k", special_tokens=trained.special_tokens
    )
    assert back.fingerprint == trained.fingerprint
    with pytest.raises(TokenizerError, match="does not say how text is split"):
        load_tokenizer(tmp_path / "x.tiktoken")


@pytest.mark.parametrize(
    ("line", "cause"),
    [("YWI=", "line 257"), ("!!! 256", "line 257"), ("YWI= x", "line 257"), ("YWJj 256", "not the merge of two")],
)
def test_damaged_ranks_are_refused(tmp_path: Path, line: str, cause: str) -> None:
    file = tmp_path / "x.tiktoken"
    RegexBPETokenizer().to_tiktoken(file)
    file.write_text(file.read_text() + line)
    with pytest.raises(TokenizerError, match=f"x.tiktoken: .*{cause}"):
        RegexBPETokenizer.from_tiktoken(file, pattern="gpt4")


def test_ranks_need_ids_in_the_order_of_merges(tmp_path: Path) -> None:
    tokens = dict(enumerate([*BYTES, b"cd", b"ab"]))
    model = BPEModel(pattern="gpt4", tokens=tokens, merges=[(b"a", b"b"), (b"c", b"d")])
    tokenizer = RegexBPETokenizer._from_model(model)
    assert tokenizer.encode("abcd") == [257, 256]
    with pytest.raises(TokenizerError, match="order of the merges"):
        tokenizer.to_tiktoken(tmp_path / "x.tiktoken")
    tokenizer.to_huggingface(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint


def test_special_tokens_that_are_text_to_the_reader_stay_so(exported: Path, tmp_path: Path) -> None:
    document = json.loads(exported.read_text())
    document["added_tokens"].append({"id": 400, "content": "<think>", "special": False})
    exported.write_text(json.dumps(document))
    tokenizer = RegexBPETokenizer.from_huggingface(exported)
    ids = tokenizer.encode("<think>a<|end|>", allowed_special="all")
    assert ids[0] == 400
    assert tokenizer.decode(ids, skip_special=True) == "<think>a"
    tokenizer.to_huggingface(tmp_path / "again")
    tokenizer.save(tmp_path / "again.json")
    for again in (load_tokenizer(tmp_path / "again"), load_tokenizer(tmp_path / "again.json")):
        assert again.fingerprint == tokenizer.fingerprint
        assert again.decode(ids, skip_special=True) == "<think>a"


def split(**changes: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": False} | changes


def byte_level(**changes: Any) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False} | changes


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"normalizer": {"type": "NFKC"}}, "normalizer NFKC"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}}, "normalizer Sequence"),
        ({"pre_tokenizer": None}, "pre-tokenizer none"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "pre-tokenizer Metaspace"),
        ({"pre_tokenizer": byte_level()}, "pre-tokenizer ByteLevel"),
        ({"pre_tokenizer": byte_level(use_regex=True, add_prefix_space=True)}, "add_prefix_space"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(behavior="Removed"), byte_level()]}}, "Split"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(), split(), byte_level()]}}, "Split . Split"),
        ({"model": {"type": "Unigram", "vocab": []}}, "type 'Unigram'"),
        ({"model": {"type": "BPE", "byte_fallback": True, "vocab": {}, "merges": []}}, "byte-level"),
        ({"model": {"type": "BPE", "unk_token": "<unk>", "vocab": {}, "merges": []}}, "unk_token"),
        ({"model": {"type": "BPE", "vocab": {" ": 0}, "merges": []}}, "byte alphabet"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}, "255 of the 256"),
        ({"model": {"type": "BPE", "vocab": [], "merges": []}}, "missing or wrong"),
        ({"added_tokens": [{"content": "<|x|>"}]}, "missing or wrong .*id"),
        ({"added_tokens": [{"content": "<|x|>", "id": 97}]}, "taken"),
    ],
)
def test_what_is_not_known_is_refused_by_name(exported: Path, changes: dict[str, Any], cause: str) -> None:
    exported.write_text(json.dumps(json.loads(exported.read_text()) | changes))
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json: .*{cause}"):
        load_tokenizer(exported.parent)


def test_gpt2_style_byte_level_is_the_gpt2_pattern(exported: Path) -> None:
    document = json.loads(exported.read_text())
    document["pre_tokenizer"] = byte_level(use_regex=True)
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    exported.write_text(json.dumps(document))
    tokenizer = RegexBPETokenizer.from_huggingface(exported)
    assert list(tokenizer._splitter.split("I'LL")) == ["I", "'", "LL"]


def test_what_is_ignored_is_said(exported: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = json.loads(exported.read_text())
    document["added_tokens"][0]["lstrip"] = True
    document["post_processor"] = {"type": "Sequence", "processors": [{"type": "TemplateProcessing"}]}
    exported.write_text(json.dumps(document))
    with caplog.at_level(logging.WARNING):
        load_tokenizer(exported)
    assert "lstrip" in caplog.text
    assert "TemplateProcessing" in caplog.text


def test_a_folder_without_a_class_needs_a_pattern(tmp_path: Path, exported: Path) -> None:
    document = json.loads(exported.read_text())["model"]
    older = tmp_path / "older"
    older.mkdir()
    with pytest.raises(TokenizerError, match="no tokenizer here"):
        load_tokenizer(older)
    (older / "vocab.json").write_text(json.dumps(document["vocab"]))
    (older / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in document["merges"]))
    with pytest.raises(TokenizerError, match=r"pattern=\.\.\."):
        load_tokenizer(older)
    tokenizer = RegexBPETokenizer.from_huggingface(older, pattern="o200k")
    assert tokenizer.fingerprint == load_tokenizer(exported).fingerprint  # <|end|> is what no merge builds


def test_roles_must_be_special_tokens(trained: RegexBPETokenizer, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"eos = '<\|nothing\|>' is no special token .* it has <\|end\|>"):
        trained.to_huggingface(tmp_path / "new", eos="<|nothing|>")
    assert not (tmp_path / "new").exists()


def test_a_name_that_tokenizer_json_cannot_tell_from_text_is_refused(
    trained: RegexBPETokenizer, tmp_path: Path
) -> None:
    trained.add_special_tokens(["Ġthe"])  # how tokenizer.json spells b" the"
    with pytest.raises(TokenizerError, match="spelled like an ordinary one"):
        trained.to_huggingface(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "tok.json"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_state_is_the_same_whatever_the_name_of_the_pattern() -> None:
    assert RegexBPETokenizer("qwen").fingerprint == RegexBPETokenizer(PATTERNS["qwen"]).fingerprint
    assert RegexBPETokenizer("qwen").fingerprint != RegexBPETokenizer("llama3").fingerprint
