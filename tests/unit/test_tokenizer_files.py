"""Files of other programs, read strictly; our own, written whole."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from legollm.cli import main
from legollm.errors import TokenizerError
from legollm.tokenizers import RegexBPETokenizer, load_tokenizer
from legollm.tokenizers.bpe_model import BPEModel
from legollm.tokenizers.byte import BYTES
from legollm.tokenizers.patterns import PATTERNS
from legollm.whole_file import write_whole


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
    [
        ("YWI=", "line 257"),
        ("!!! 256", "line 257"),
        ("YWI= x", "line 257"),
        ("YWJj 256", "not the merge of two"),
        ("YWI= 255", "line 257 gives rank 255 to a second token"),
        ("YWI= 256\nYWI= 257", "token 257, b'ab', is not the merge"),
        ("YWI= -1", "id -1"),
        ("YWI= 99999999999", "id 99999999999"),
    ],
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
        (
            {"model": {"type": "BPE", "byte_fallback": True, "vocab": {}, "merges": []}},
            "pre-tokenizer Sequence is not supported",
        ),
        ({"model": {"type": "BPE", "unk_token": "<unk>", "vocab": {}, "merges": []}}, "unk_token"),
        ({"model": {"type": "BPE", "vocab": {" ": 0}, "merges": []}}, "byte alphabet"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}, "255 of the 256"),
        ({"model": {"type": "BPE", "vocab": [], "merges": []}}, "missing or wrong"),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}, "two tokens have id 0, b'a' and b'b'"),
        ({"model": {"type": "BPE", "vocab": {"a": 1.5}, "merges": []}}, "id 1.5 of a token is not a whole number"),
        ({"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}, "id '0' of a token"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "id -1 of a token"),
        ({"added_tokens": [{"content": "<|x|>", "id": 10**12}]}, "id 1000000000000 of a token"),
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
    write_whole(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new \ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(OSError, match=re.escape(repr(str(file / "below")))):
        write_whole(file / "below", "a file is no folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as taken:
        write_whole(tmp_path / "folder", b"a folder is in its place")
    assert (taken.value.filename, taken.value.filename2) == (str(tmp_path / "folder"), None)
    assert not list(tmp_path.glob(".tmp-*"))


def test_decoding_into_a_pipe_leaves_exactly_the_bytes(
    trained: RegexBPETokenizer, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The newline that is nice on a screen once was in the file, too, and half a character three bytes of another."""
    trained.save(tmp_path / "tok.json")
    ids = [*trained.encode("the cat\n"), *trained.encode("ü")[:1]]
    assert main(["tokenizer", "decode", str(tmp_path / "tok.json"), f"ids={ids}"]) == 0
    assert capfdbinary.readouterr().out == trained.decode_bytes(ids) == b"the cat\n" + trained.decode_bytes(ids[-1:])


def test_the_state_is_the_same_whatever_the_name_of_the_pattern() -> None:
    assert RegexBPETokenizer("qwen").fingerprint == RegexBPETokenizer(PATTERNS["qwen"]).fingerprint
    assert RegexBPETokenizer("qwen").fingerprint != RegexBPETokenizer("llama3").fingerprint


def test_a_key_that_occurs_twice_is_refused(exported: Path) -> None:
    exported.write_text(exported.read_text().replace('"version"', '"model": {}, "version"'))
    with pytest.raises(TokenizerError, match="the key 'model' occurs twice"):
        load_tokenizer(exported)


def test_a_merge_that_is_listed_twice_is_refused(exported: Path) -> None:
    document = json.loads(exported.read_text())
    document["model"]["merges"].append(document["model"]["merges"][3])
    exported.write_text(json.dumps(document))
    with pytest.raises(TokenizerError, match="is listed twice"):
        load_tokenizer(exported)


@pytest.fixture
def older(exported: Path, tmp_path: Path) -> Path:
    """vocab.json and merges.txt, as before there was tokenizer.json."""
    model = json.loads(exported.read_text())["model"]
    folder = tmp_path / "older"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"]))
    return folder


PLACES = [place / 30 for place in range(30)]


@pytest.mark.parametrize("name", ["own.json", "tokenizer.json", "vocab.json", "merges.txt", "ranks"])
def test_a_file_cut_at_thirty_places_is_refused_at_each(
    trained: RegexBPETokenizer, exported: Path, older: Path, tmp_path: Path, name: str
) -> None:
    def load(file: Path) -> RegexBPETokenizer:
        if name == "own.json":
            return RegexBPETokenizer.load(file)
        if name == "ranks":
            return RegexBPETokenizer.from_tiktoken(file, pattern="o200k")
        return RegexBPETokenizer.from_huggingface(older if file.parent == older else file, pattern="o200k")

    trained.save(tmp_path / "own.json")
    trained.to_tiktoken(tmp_path / "ranks")
    file = older / name if (older / name).is_file() else tmp_path / name
    whole = file.read_bytes().rstrip()
    assert load(file).vocab_size in (trained.vocab_size, trained.vocab_size - 1)  # ranks have no special tokens
    for share in PLACES:
        part = whole[: int(share * len(whole))]
        if name == "ranks" and len(part.split()) % 2 == 0 and len(part.splitlines()) > 256:
            continue  # lines left out at the end leave a smaller vocabulary, and a whole one
        file.write_bytes(part)
        with pytest.raises(TokenizerError) as error:
            load(file)
        assert "\n" not in str(error.value)
        assert str(tmp_path) in str(error.value)


def test_published_ranks_that_are_not_whole_are_not_taken_for_what_they_were(shared_data: Path, tmp_path: Path) -> None:
    content = (shared_data / "tokenizers" / "cl100k_base.tiktoken").read_bytes()
    file = tmp_path / "cl100k_base.tiktoken"
    for damaged in (content[:-20], content.replace(b" 5000\n", b" 5001\n")):
        file.write_bytes(damaged)
        with pytest.raises(TokenizerError, match="does not say how text is split"):
            load_tokenizer(file)


@pytest.mark.parametrize("texts", ["", [], ["", ""], ["a"], ["abc"]])
def test_a_text_with_nothing_to_merge_gives_bytes_and_one_warning(
    texts: str | list[str], caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = RegexBPETokenizer()
    with caplog.at_level(logging.WARNING):
        tokenizer.train(texts, vocab_size=300, special_tokens=["<|end|>"])
    assert tokenizer.vocab_size == 257
    assert [record.getMessage() for record in caplog.records] == [
        "0 of 43 merges learned: no pair occurs twice any more"
    ]


def test_a_refused_training_leaves_the_tokenizer_as_it_was(trained: RegexBPETokenizer) -> None:
    before = trained.fingerprint
    with pytest.raises(TokenizerError, match="no room for 256 bytes and 2 special tokens; use 258 or more"):
        trained.train("text", vocab_size=257, special_tokens=["<|a|>", "<|b|>"])
    assert trained.fingerprint == before


@pytest.mark.parametrize("wrong", [1.0, 1.5, "1", None, b"a", [1]])
def test_ids_are_whole_numbers(trained: RegexBPETokenizer, wrong: Any) -> None:
    for call in (trained.decode, trained.decode_bytes, lambda ids: list(trained.decode_stream(ids))):
        with pytest.raises(TokenizerError, match="token ids are a sequence of whole numbers: "):
            call([97, wrong])
    with pytest.raises(TokenizerError, match="whole numbers"):
        trained.token_bytes(wrong)


def test_ids_out_of_arrays_and_tensors_are_taken(trained: RegexBPETokenizer) -> None:
    ids = trained.encode("the cat")
    for same in (np.array(ids, np.uint16), torch.tensor(ids), iter(ids), tuple(ids)):
        assert trained.decode(same) == "the cat"
    assert list(trained.decode_stream(torch.tensor(trained.encode("é!")))) == ["é", "!"]
