"""Token files: what is in them, and that nothing but the inputs decides it."""

import hashlib
import io
import json
import random
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from legollm.cli import main
from legollm.data import cutting, decoding, tokenising
from legollm.data import prepare as prepare_module
from legollm.data.documents import n_characters, n_lines, next_character, place_of_character
from legollm.data.loader import TokenFile, WindowBatches
from legollm.data.prepare import Prepared, PrepareOptions, prepare
from legollm.data.readers import SourceOptions
from legollm.data.sources import documents, open_source
from legollm.data.split import plan_split
from legollm.errors import ConfigError, DataError
from legollm.tokenizers import ByteTokenizer, CharTokenizer, RegexBPETokenizer

FILES = ("train.bin", "train.idx", "val.bin", "val.idx", "tokenizer.json", "meta.json")
END = "<|endoftext|>"


def byte_tokenizer() -> ByteTokenizer:
    tokenizer = ByteTokenizer()
    tokenizer.add_special_tokens([END])
    return tokenizer


def run(path: Path, folder: Path, tokenizer: Any = None, read: SourceOptions | None = None, **options: Any) -> Prepared:
    source = open_source(str(path), read or SourceOptions())
    return prepare(source, tokenizer or byte_tokenizer(), folder, options=PrepareOptions(**options))


def contents(folder: Path) -> dict[str, bytes]:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """300 documents of different lengths, some of them equal."""
    rng = random.Random(1)
    texts = ["".join(rng.choices("abc é\n", k=rng.randint(1, 60))) for _ in range(280)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, *texts[:20]]))
    return path


def test_one_document_is_cut_where_its_tail_begins(tmp_path: Path) -> None:
    """The same place as int(n * (1 - fraction)) characters, which others use for the same text."""
    text = "é" * 997
    (tmp_path / "a.txt").write_text(text)
    meta = run(tmp_path / "a.txt", tmp_path / "out").meta
    assert meta["rule"] == "tail"
    assert meta["splits"]["train"]["n_chars"] == int(997 * 0.9)
    assert meta["splits"]["val"]["n_chars"] == 997 - int(997 * 0.9)
    assert meta["splits"]["val"]["n_bytes"] == 2 * meta["splits"]["val"]["n_chars"]
    train, val = TokenFile(tmp_path / "out", "train"), TokenFile(tmp_path / "out", "val")
    assert END not in byte_tokenizer().decode(train.ids.tolist())  # the document goes on in the other split
    assert byte_tokenizer().decode([*train.ids.tolist(), *val.ids.tolist()]) == text + END


def test_tail_of_several_documents_keeps_their_order(rows: Path, tmp_path: Path) -> None:
    run(rows, tmp_path / "out", split="tail", val_fraction=0.3)
    both = [token for split in ("train", "val") for token in TokenFile(tmp_path / "out", split).ids.tolist()]  # type: ignore[arg-type]
    texts = [document.text + END for document in documents(open_source(str(rows), SourceOptions()))]
    assert byte_tokenizer().decode(both) == "".join(texts)


def test_many_documents_are_divided_by_content(rows: Path, tmp_path: Path) -> None:
    """Every document is in one split, equal ones in the same, and the index says where each begins."""
    meta = run(rows, tmp_path / "out", val_fraction=0.2).meta
    assert meta["rule"] == "hash"
    found: dict[str, list[str]] = {}
    for split in ("train", "val"):
        tokens = TokenFile(tmp_path / "out", split)  # type: ignore[arg-type]
        ends = [*tokens.document_starts[1:].tolist(), len(tokens)]
        found[split] = [
            byte_tokenizer().decode(tokens.ids[start:end].tolist()).removesuffix(END)
            for start, end in zip(tokens.document_starts.tolist(), ends, strict=True)
        ]
        assert meta["splits"][split]["n_documents"] == len(found[split])
        assert meta["splits"][split]["n_bytes"] == sum(len(text.encode()) for text in found[split])
    texts = [document.text for document in documents(open_source(str(rows), SourceOptions()))]
    assert sorted(found["train"] + found["val"]) == sorted(texts)
    assert not set(found["train"]) & set(found["val"])
    assert 30 <= len(found["val"]) <= 90


def test_documents_in_several_pieces_are_one_in_split_and_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 16)
    monkeypatch.setattr(cutting, "MAX_BYTES", 20)
    monkeypatch.setattr(tokenising, "MAX_BYTES", 50)
    texts = [f"{i:02} " * 30 for i in range(60)]
    (tmp_path / "a.txt").write_text("|".join(texts))
    read = SourceOptions(separator="|")
    run(tmp_path / "a.txt", tmp_path / "out", read=read, split="hash", val_fraction=0.3)
    found = []
    for split in ("train", "val"):
        tokens = TokenFile(tmp_path / "out", split)  # type: ignore[arg-type]
        text = byte_tokenizer().decode(tokens.ids.tolist())
        assert tokens.document_starts.tolist() == [91 * i for i in range(len(tokens) // 91)]
        found += text.removesuffix(END).split(END)
    assert sorted(found) == texts


def test_documents_stay_in_their_split_when_others_are_added(rows: Path, tmp_path: Path) -> None:
    run(rows, tmp_path / "one", val_fraction=0.2)
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join([*lines[:150], '{"text": "new"}\n', *lines[150:]]))
    run(rows, tmp_path / "two", val_fraction=0.2)
    one, two = (TokenFile(tmp_path / name, "val").ids.tolist() for name in ("one", "two"))
    decode = byte_tokenizer().decode
    assert decode(two).replace(f"{END}new{END}", END).removeprefix(f"new{END}") == decode(one)


def test_another_seed_divides_otherwise(rows: Path, tmp_path: Path) -> None:
    run(rows, tmp_path / "one", seed=0)
    run(rows, tmp_path / "two", seed=1)
    assert (tmp_path / "one/val.bin").read_bytes() != (tmp_path / "two/val.bin").read_bytes()


def test_corpus_that_comes_divided_stays_as_it_is(tmp_path: Path) -> None:
    source = open_source("world", SourceOptions(world_bytes=20_000))
    meta = prepare(source, byte_tokenizer(), tmp_path, options=PrepareOptions(val_fraction=0.5)).meta
    assert meta["rule"] == "own"
    expected = "".join(document.text + END for document in documents(source, "val"))
    assert byte_tokenizer().decode(TokenFile(tmp_path, "val").ids.tolist()) == expected


def test_without_the_end_token_nothing_stands_between_documents(rows: Path, tmp_path: Path) -> None:
    meta = run(rows, tmp_path / "out", ByteTokenizer()).meta
    assert meta["end_of_document"] is None
    assert all(counts["n_tokens"] == counts["n_bytes"] for counts in meta["splits"].values())


def test_text_that_looks_like_a_control_token_stays_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"one{END}two" * 10)
    run(tmp_path / "a.txt", tmp_path / "out")
    ids = np.concatenate([TokenFile(tmp_path / "out", split).ids for split in ("train", "val")])  # type: ignore[arg-type]
    assert np.count_nonzero(ids == byte_tokenizer().special_tokens[END]) == 1


def test_second_call_does_nothing_until_an_input_changes(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(rows, out).written
    before = contents(out)
    again = run(rows, out, n_workers=2)
    assert not again.written
    assert again.meta == json.loads(before["meta.json"])
    assert run(rows, out, val_fraction=0.2).written
    assert contents(out) != before
    assert run(rows, out).written
    assert contents(out) == before  # byte for byte
    rows.write_text(rows.read_text() + '{"text": "new"}\n')
    assert run(rows, out).written
    (out / "val.bin").write_bytes(b"")
    assert run(rows, out).written


def test_workers_leave_no_trace(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenising, "MAX_BYTES", 500)  # many tasks
    run(rows, tmp_path / "one", n_workers=1)
    run(rows, tmp_path / "two", n_workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_threads_leave_no_trace_either(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tokenizer is compiled; pieces of both splits in one task, documents in several pieces."""
    pytest.importorskip("numba")
    monkeypatch.setattr(tokenising, "MAX_BYTES", 500)
    monkeypatch.setattr(cutting, "MAX_BYTES", 20)
    for name, engine, n_workers in (("one", "python", 1), ("two", "kernels", 2)):
        tokenizer = RegexBPETokenizer("gpt2", engine=engine)  # type: ignore[arg-type]
        tokenizer.train(rows.read_text(), vocab_size=300, special_tokens=[END])
        run(rows, tmp_path / name, tokenizer, n_workers=n_workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("n_workers", [1, 2])
def test_large_splits_lie_in_several_files_that_read_as_one(n_workers: int, rows: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(rows, whole)
    meta = run(rows, parts, shard_bytes=1000, n_workers=n_workers).meta
    assert "shards" not in json.loads((whole / "meta.json").read_text())["splits"]["train"]
    for split in ("train", "val"):
        one, several = TokenFile(whole, split), TokenFile(parts, split)  # type: ignore[arg-type]
        counts = meta["splits"][split]
        assert several.ids[:].tolist() == one.ids.tolist()
        assert several.document_starts.tolist() == one.document_starts.tolist()
        assert {shard["file"] for shard in counts["shards"]} == {path.name for path in parts.glob(f"{split}-*.bin")}
        assert [shard["n_tokens"] for shard in counts["shards"][:-1]] == [500] * (len(counts["shards"]) - 1)
        joined = b"".join((parts / shard["file"]).read_bytes() for shard in counts["shards"])
        assert hashlib.sha256(joined).hexdigest() == counts["sha256"]
        assert joined == (whole / f"{split}.bin").read_bytes()
    batches = (WindowBatches(TokenFile(x, "train").ids, batch_size=4, seq_len=16, seed=1) for x in (whole, parts))
    for one_batch, other in zip(*(islice(source, 300) for source in batches), strict=True):
        assert torch.equal(one_batch.tokens, other.tokens)
        assert torch.equal(one_batch.targets, other.targets)
    with pytest.raises(ConfigError, match="shard_bytes: 3 bytes hold no id"):
        PrepareOptions(shard_bytes=3)


def test_another_division_into_files_is_no_other_input_and_leaves_no_old_file(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(rows, out, shard_bytes=1000)
    assert not run(rows, out).written  # the ids are the same
    (out / "train-00001.bin").unlink()
    assert run(rows, out).written
    assert set(contents(out)) == set(FILES)
    (out / "train.bin").write_bytes(b"")
    assert run(rows, out, shard_bytes=1000).written
    assert not (out / "train.bin").exists()
    (out / "train-00000.bin").write_bytes(b"1")
    with pytest.raises(DataError, match=r"train-00000\.bin: 1 bytes where meta\.json promises 1000"):
        TokenFile(out, "train")


@pytest.mark.parametrize("n_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_text_the_tokenizer_does_not_know_is_placed(n_workers: int, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "aab"}\n{"text": "abc"}\n')
    tokenizer = CharTokenizer()
    tokenizer.train("ab")
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*'c'"):
        run(tmp_path / "a.jsonl", tmp_path / "out", tokenizer, n_workers=n_workers, split="tail")


def test_interrupted_call_leaves_an_unfinished_folder_and_no_wrong_one(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(rows, out)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "write_whole", fail)
    with pytest.raises(KeyboardInterrupt):
        run(rows, out, val_fraction=0.3)
    with pytest.raises(DataError, match=r"no meta\.json, so not \(or not completely\) prepared"):
        TokenFile(out, "train")
    monkeypatch.undo()
    assert run(rows, out, val_fraction=0.3).written
    assert set(contents(out)) == set(FILES)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 16, "uint16"), ((1 << 16) + 1, "uint32")])
def test_ids_are_as_wide_as_the_vocabulary_needs(
    vocab_size: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ByteTokenizer, "vocab_size", vocab_size)
    monkeypatch.setattr(
        ByteTokenizer, "encode_batch", lambda _, texts: [[vocab_size - 1] * len(text) for text in texts]
    )
    (tmp_path / "a.txt").write_text("abcdefghij")
    meta = run(tmp_path / "a.txt", tmp_path / "out").meta
    assert meta["dtype"] == dtype
    assert TokenFile(tmp_path / "out", "train").ids.tolist() == [vocab_size - 1] * 9
    assert (tmp_path / "out/train.bin").stat().st_size == 9 * np.dtype(dtype).itemsize


def test_splits_without_documents_are_refused_and_no_validation_is_allowed(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 300 documents is for validation; use split=tail"):
        run(rows, tmp_path / "out", split="hash", val_fraction=1e-9)
    with pytest.raises(ConfigError, match=r"val_fraction: 1\.0 is no share"):
        PrepareOptions(val_fraction=1.0)
    with pytest.raises(ConfigError, match="n_workers: 0 processes"):
        PrepareOptions(n_workers=0)
    assert run(rows, tmp_path / "out", val_fraction=0.0).meta["splits"]["val"]["n_tokens"] == 0
    assert len(TokenFile(tmp_path / "out", "val")) == 0


def test_progress_reports_bytes_of_text(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenising, "MAX_BYTES", 500)
    told: list[tuple[str, int, int | None]] = []
    source = open_source(str(rows), SourceOptions())
    meta = prepare(
        source, byte_tokenizer(), tmp_path / "out", options=PrepareOptions(), progress=lambda *seen: told.append(seen)
    ).meta
    n_bytes = sum(counts["n_bytes"] for counts in meta["splits"].values())
    for stage, total in (("reading", None), ("tokenising", n_bytes)):
        seen = [done for name, done, of in told if name == stage and of == total]
        assert seen == sorted(seen)
        assert len(seen) > 5
        assert seen[-1] == n_bytes
    assert [stage for stage, _, _ in told] == sorted(stage for stage, _, _ in told)  # one after the other


def test_rows_left_out_are_in_the_meta_once(rows: Path, tmp_path: Path) -> None:
    rows.write_text(rows.read_text() + "{}\n")
    meta = run(rows, tmp_path / "out", read=SourceOptions(on_bad_row="skip")).meta
    assert meta["bad_rows"]["n"] == 1
    assert meta["bad_rows"]["messages"][0].startswith("rows.jsonl:301: no field 'text'")


def test_long_document_is_cut_only_between_lines_that_no_pattern_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "MAX_BYTES", 50)
    rng = random.Random(3)
    text = "".join(rng.choice(["word", " ", "\n", "\n", "\r\n", "12", ".", "é", "\n\n", "'s"]) for _ in range(3000))
    (tmp_path / "a.txt").write_bytes(text.encode())
    tokenizer = RegexBPETokenizer(pattern="gpt4")
    tokenizer.train(text, vocab_size=400, special_tokens=[END])
    seen: list[bytes] = []
    encode = tokenizer.encode_batch_to_numpy

    def watched(texts: list[bytes], **kwargs: bool) -> Any:
        seen.extend(texts)
        return encode(texts, **kwargs)

    monkeypatch.setattr(tokenizer, "encode_batch_to_numpy", watched)
    run(tmp_path / "a.txt", tmp_path / "out", tokenizer, val_fraction=0.0)
    assert b"".join(seen).decode() == text
    assert len(seen) > 20
    assert TokenFile(tmp_path / "out", "train").ids.tolist() == [
        *tokenizer.encode(text),
        tokenizer.special_tokens[END],
    ]


def test_pattern_of_ones_own_is_never_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "MAX_BYTES", 10)
    text = "one\ntwo\n" * 50
    (tmp_path / "a.txt").write_text(text)
    tokenizer = RegexBPETokenizer(pattern=r"[a-z]+\n[a-z]+|\s|\w")
    tokenizer.train(text, vocab_size=270)
    run(tmp_path / "a.txt", tmp_path / "out", tokenizer, val_fraction=0.0)
    assert TokenFile(tmp_path / "out", "train").ids.tolist() == tokenizer.encode(text)


def test_tiny_shakespeare_is_divided_as_elsewhere(shared_data: Path, tmp_path: Path) -> None:
    """The figures that nanoGPT gives for the same text: 301,966 and 36,059 tokens of GPT-2."""
    source = shared_data / "text/tinyshakespeare.txt"
    tokenizer = RegexBPETokenizer.from_huggingface(shared_data / "tokenizers/gpt2")
    counts = run(source, tmp_path / "out", tokenizer).meta["splits"]
    assert (counts["train"]["n_chars"], counts["val"]["n_chars"]) == (1_003_854, 111_540)
    assert (counts["train"]["n_tokens"], counts["val"]["n_tokens"]) == (301_966, 36_059 + 1)  # and the end of text
    text = source.read_text(encoding="utf-8")
    assert tokenizer.decode(TokenFile(tmp_path / "out", "val").ids[:-1].tolist()) == text[1_003_854:]


MEASURE = """
import resource, sys
from pathlib import Path
from legollm.data.prepare import PrepareOptions, prepare
from legollm.data.readers import SourceOptions
from legollm.data.sources import open_source
from legollm.tokenizers import ByteTokenizer

small, large, out = map(Path, sys.argv[1:])
peaks = []
for path in (small, large):
    source = open_source(str(path), SourceOptions())
    prepare(source, ByteTokenizer(), out / path.stem, options=PrepareOptions())
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """One document of 2 MB, then one of 40 MB: the peak may rise by less than 8 MB."""
    line = "A line of text that is neither short nor very long, as they are.\n"
    for name, n_bytes in (("small.txt", 2 << 20), ("large.txt", 40 << 20)):
        (tmp_path / name).write_text(line * (n_bytes // len(line)))
    command = [sys.executable, "-c", MEASURE, tmp_path / "small.txt", tmp_path / "large.txt", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    small, large = map(int, done.stdout.split())  # kilobytes; bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    assert (large - small) * unit < 8 << 20


def test_counting_a_plain_file_is_as_exact_as_reading_it(tmp_path: Path) -> None:
    """The quick way to the place of the cut, and the way by documents that every other source takes."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + "one\r\ntwo é€😀\r".encode() * 20_000)
    (tmp_path / "b.txt").write_text("漢字")
    for path in (tmp_path, tmp_path / "b.txt"):
        quick, thorough = (open_source(str(path), SourceOptions(on_bad_row=policy)) for policy in ("stop", "skip"))
        assert quick.plain is not None
        assert thorough.plain is None
        assert plan_split(quick, "auto", val_fraction=0.3, seed=0) == plan_split(
            thorough, "tail", val_fraction=0.3, seed=0
        )


def test_what_is_no_text_is_found_also_where_characters_are_only_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"line\n" * 30_000 + b"caf\xe9\n" + b"line\n" * 30_000)
    with pytest.raises(DataError, match=r"a\.txt:30001: byte 0xe9 at column 4"):
        run(tmp_path / "a.txt", tmp_path / "out")
    with pytest.raises(DataError, match=r"no meta\.json, so not \(or not completely\) prepared"):
        TokenFile(tmp_path / "out", "train")


def test_characters_of_utf8_are_counted_and_placed() -> None:
    text = "a\u00e9\u20ac\U0001f600\x7f\u07ff\u0800\uffff\U0010ffff\n"
    data = text.encode()
    assert (n_characters(data), n_lines(data)) == (len(text), 1)
    borders = [len(text[:i].encode()) for i in range(len(text) + 1)]
    assert [place_of_character(data, i) for i in range(len(text))] == borders[:-1]
    assert [next_character(data, at) for at in range(len(data) + 1)] == [
        min(border for border in borders if border >= at) for at in range(len(data) + 1)
    ]


def test_a_row_of_any_length_is_cut_between_characters(rows: Path, tmp_path: Path, monkeypatch: Any) -> None:
    text = "é€😀" * 200
    rows.write_text(json.dumps({"text": text}))
    for limit in range(1, 6):
        monkeypatch.setattr(cutting, "MAX_BYTES", limit)
        run(rows, tmp_path / str(limit), val_fraction=0.0)
        ids = TokenFile(tmp_path / str(limit), "train").ids.tolist()
        assert byte_tokenizer().decode(ids) == text + END


def test_a_tokenizer_that_changed_is_another_input(rows: Path, tmp_path: Path) -> None:
    """Its fingerprint is kept, but not longer than it is true."""
    tokenizer = byte_tokenizer()
    assert run(rows, tmp_path / "out", tokenizer).written
    assert not run(rows, tmp_path / "out", tokenizer).written
    before = tokenizer.fingerprint
    tokenizer.add_special_tokens(["<|more|>"])
    assert tokenizer.fingerprint != before
    assert run(rows, tmp_path / "out", tokenizer).written


def test_on_a_terminal_the_command_shows_how_far_it_is(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "prepare", f"data.source={rows}", "tokenizer=byte", f"folder={tmp_path / 'out'}"]
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    (tmp_path / "out/meta.json").unlink()
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert main(words) == 0
    assert "reading" in terminal.getvalue()
    assert "tokenising" in terminal.getvalue()
    assert terminal.getvalue().count("100%") >= 2
