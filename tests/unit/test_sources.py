"""Corpora: what each kind yields, in which order, with which places."""

import logging
import random
from pathlib import Path

import pytest

from legollm.data import decoding
from legollm.data.documents import BadRows, Document, whole
from legollm.data.readers import SourceOptions
from legollm.data.recipes import RECIPES
from legollm.data.sources import NAMED, SOURCES, documents, open_source
from legollm.errors import ConfigError, DataError


def read(spec: Path | str, **options: object) -> list[Document]:
    return list(documents(open_source(str(spec), SourceOptions(**options))))  # type: ignore[arg-type]


def test_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert read(tmp_path / "a.txt") == [Document("one\ntwo\n", "a.txt", 1)]


def test_separator_divides_and_places_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n--\nthree\n--\n")
    found = read(tmp_path / "a.txt", separator="--\n")
    assert found == [Document("one\ntwo\n", "a.txt", 1), Document("three\n", "a.txt", 4)]


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="separator: '' separates nothing"):
        SourceOptions(separator="")
    with pytest.raises(ConfigError, match="world_bytes: 0 bytes"):
        SourceOptions(world_bytes=0)


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 64, 1 << 19])
def test_documents_joined_are_the_file_whatever_the_block(
    block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Separators and characters that lie across two blocks are found."""
    monkeypatch.setattr(decoding, "BLOCK_BYTES", block_bytes)
    rng = random.Random(1)
    text = "".join(rng.choice(["<|end|>", "<|", "|>", "e", "€", "😀", "\n", "a b"]) for _ in range(800))
    (tmp_path / "a.txt").write_bytes(text.encode())
    found = read(tmp_path / "a.txt", separator="<|end|>")
    assert [document.text for document in found] == [part for part in text.split("<|end|>") if part]
    starts = [text[: text.index(found[0].text)].count("\n") + 1]
    assert found[0].line == starts[0]
    assert sorted(document.line for document in found) == [document.line for document in found]


def test_separated_document_of_any_length_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(("line\n" * 300_000) + "--\nend")
    source = open_source(str(tmp_path / "a.txt"), SourceOptions(separator="--\n"))
    pieces = list(source.pieces(BadRows("stop")))
    assert max(len(piece.text) for piece in pieces) <= 1 << 20
    assert [document.text[-5:] for document in whole(pieces)] == ["line\n", "end"]
    assert pieces[-1].line == 300_002


def test_rows_and_chosen_field(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "body": "eins"}\n\n{"text": "two", "body": "zwei"}\n')
    assert read(tmp_path / "a.jsonl") == [Document("one", "a.jsonl", 1), Document("two", "a.jsonl", 3)]
    assert [document.text for document in read(tmp_path / "a.jsonl", field="body")] == ["eins", "zwei"]


def test_equal_ids_are_kept_on_request(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "one"}\n{"id": 1, "text": "two"}\n{"id": "1", "text": "3"}\n')
    assert len(read(tmp_path / "a.jsonl", id_field=None)) == 3
    assert len(read(tmp_path / "a.jsonl", on_bad_row="skip")) == 2  # 1 and "1" are different ids


def test_folder_is_read_in_sorted_order_without_hidden_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b/2.txt", "z.txt", "a.md", "c.txt", "b/1.jsonl", "b.txt", ".git/x.txt", ".hidden.txt", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "row"}' if name.endswith("l") else name)
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path)
    assert [document.file for document in found] == ["a.md", "b/1.jsonl", "b/2.txt", "b.txt", "c.txt", "z.txt"]
    assert "1 files of other kinds left out: 1 .png" in caplog.text


def test_further_endings_are_text_on_request(tmp_path: Path) -> None:
    (tmp_path / "a.tex").write_text("text")
    assert read(tmp_path, text_suffixes=(".tex",)) == [Document("text", "a.tex", 1)]


def test_parquet_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"a\.parquet: reading Parquet needs pyarrow; install the extra"):
        read(tmp_path / "a.parquet")


def test_parquet_rows(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": ["one", None, "two"], "n": [1, 2, 3]}), path)
    with pytest.raises(DataError, match=r"a\.parquet:2: field 'text' holds NoneType"):
        read(path)
    assert read(path, on_bad_row="skip") == [Document("one", "a.parquet", 1), Document("two", "a.parquet", 3)]
    with pytest.raises(DataError, match=r"no column 'body'; it has text, n"):
        read(path, field="body")
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"a\.parquet:1: not a readable Parquet table"):
        read(path)


def test_standard_library_is_there_without_its_tests() -> None:
    source = open_source("stdlib", SourceOptions())
    files = source.fingerprint()["sha256"]
    assert "json/decoder.py" in files
    assert len(files) > 300
    assert not any("test" in Path(name).parts for name in files)
    first = next(documents(source))
    assert first.file == next(iter(files))


def test_world_comes_divided_and_is_the_same_again() -> None:
    source = open_source("world", SourceOptions(world_bytes=40_000))
    train, val = (["".join(d.text for d in documents(source, split))] for split in source.splits)
    assert 40_000 <= len(train[0].encode()) < 60_000
    assert 2_000 <= len(val[0].encode()) < 10_000
    both = "".join(piece.text for piece in source.pieces(BadRows("stop")))
    assert both == train[0] + val[0]
    other = open_source("world", SourceOptions(world_bytes=40_000, world_seed=1))
    assert next(documents(other)).text != next(documents(source)).text
    assert other.fingerprint() != source.fingerprint()


def test_recipe_must_be_fetched_first_and_then_comes_divided(tmp_path: Path) -> None:
    corpora = str(tmp_path)
    with pytest.raises(DataError, match=r"wikitext2: not fetched yet, there is no .*train\.txt; run `legollm data get"):
        read("wikitext2", corpora=corpora)
    (tmp_path / "wikitext2").mkdir()
    for name in ("train.txt", "valid.txt", "test.txt"):
        (tmp_path / "wikitext2" / name).write_text(name)
    source = open_source("wikitext2", SourceOptions(corpora=corpora))
    assert source.splits == ("train", "val")
    assert [document.text for document in documents(source, "val")] == ["valid.txt"]
    assert [document.text for document in documents(source)] == ["train.txt", "valid.txt"]


def test_recipe_knows_its_separator_and_the_user_knows_better(tmp_path: Path) -> None:
    (tmp_path / "tinystories").mkdir()
    for file in RECIPES["tinystories"].files:
        (tmp_path / "tinystories" / file.name).write_text("One.\n<|endoftext|>\nTwo.")
    assert [d.text for d in read("tinystories", corpora=str(tmp_path))][:2] == ["One.", "Two."]
    assert next(iter(read("tinystories", corpora=str(tmp_path), separator="."))).text == "One"


def test_instruction_data_is_no_pre_training_corpus() -> None:
    with pytest.raises(DataError, match="legollm sft"):
        open_source("alpaca", SourceOptions())


def test_fingerprint_tells_content_and_way_of_reading(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    one = open_source(str(tmp_path / "a.txt"), SourceOptions()).fingerprint()
    assert one == open_source(str(tmp_path / "a.txt"), SourceOptions()).fingerprint()
    assert one != open_source(str(tmp_path / "a.txt"), SourceOptions(separator="x")).fingerprint()
    (tmp_path / "a.txt").write_text("Text")
    assert one != open_source(str(tmp_path / "a.txt"), SourceOptions()).fingerprint()


def test_table_of_sources_and_names_do_not_collide() -> None:
    assert set(SOURCES) == {"file", "folder", "recipe", "stdlib", "world"}
    assert not set(NAMED) & set(RECIPES)
