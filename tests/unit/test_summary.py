"""Figures of corpora made so that the figures are known."""

import json
from pathlib import Path

import pytest

from legollm.data import decoding
from legollm.data.prepare import PrepareOptions
from legollm.data.readers import SourceOptions
from legollm.data.sources import open_source
from legollm.data.summary import count_scripts, summarise
from legollm.tokenizers import ByteTokenizer


def rows(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_counts_lengths_and_copies(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", ["one two", "drei vier fünf", "one two", "x" * 200, "one two"])
    figures = summarise(open_source(str(path), SourceOptions()))
    assert figures == {
        "name": "a.jsonl",
        "documents": 5,
        "bytes": 3 * 7 + 15 + 200,
        "characters": 3 * 7 + 14 + 200,
        "words": 3 * 2 + 3 + 1,
        "exact_copies": 2,
        "rows_left_out": 0,
        "characters_per_document": {"least": 7, "median": 7, "most": 200},
        "documents_by_characters": {"4-7": 3, "8-15": 1, "16-31": 0, "32-63": 0, "64-127": 0, "128-255": 1},
        "scripts": {"Latin": (3 * 6 + 12 + 200) / 235, "common": (3 + 2) / 235},
    }
    json.dumps(figures)


def test_fertility(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", ["aaa bb", "ü c"])
    figures = summarise(open_source(str(path), SourceOptions()), tokenizer=ByteTokenizer())
    assert figures["tokens"] == 10
    assert figures["bytes_per_token"] == 1.0
    assert figures["tokens_per_word"] == 2.5


def test_rows_left_out_are_counted(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", ["one", "", "two"])
    assert summarise(open_source(str(path), SourceOptions(on_bad_row="skip")))["rows_left_out"] == 1


@pytest.mark.parametrize("block_bytes", [1, 3, 8, 1 << 19])
def test_words_across_pieces_count_once(block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BLOCK_BYTES", block_bytes)
    (tmp_path / "a.txt").write_text("one two  three\nfour\n\n five six")
    assert summarise(open_source(str(tmp_path / "a.txt"), SourceOptions()))["words"] == 6


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("abcXYZßéž", "Latin"),
        ("αβγΩ", "Greek"),
        ("жЯё", "Cyrillic"),
        ("אבג", "Hebrew"),
        ("العربية", "Arabic"),
        ("नमस्ते", "Devanagari"),
        ("ไทย", "Thai"),
        ("한국어", "Hangul"),
        ("ひらがな", "Hiragana"),
        ("カタカナ", "Katakana"),
        ("漢字𠀀", "Han"),
        ("ქართული", "Georgian"),
        ("አማርኛ", "Ethiopic"),
        ("😀🎉", "emoji"),
        ("12 .,\n–“。", "common"),
        ("ᚠᚡ", "other"),
    ],
)
def test_scripts(text: str, script: str) -> None:
    assert count_scripts(text) == {script: len(text)}


@pytest.mark.parametrize("block_bytes", [5, 1 << 19])
def test_overlap_of_the_splits(block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation is the last half; 5 of its 28 runs of 13 words are copied from the first, in other letter case."""
    monkeypatch.setattr(decoding, "BLOCK_BYTES", block_bytes)
    first = [f"w{i:03}" for i in range(40)]
    second = [*first[10:27], *(f"v{i:03}" for i in range(23))]
    (tmp_path / "a.txt").write_text(" ".join(first) + "\n" + " ".join(second).upper() + "\n")
    source = open_source(str(tmp_path / "a.txt"), SourceOptions())
    found = summarise(source, overlap_of=PrepareOptions(val_fraction=0.5))["overlap"]
    assert found == {"words_per_run": 13, "runs_in_val": 28, "also_in_train": 5, "share": 5 / 28}
