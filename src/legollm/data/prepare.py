"""Corpus + tokenizer -> a folder of token files that training maps into memory.

    data/NAME/train.bin, val.bin   the ids, one after the other: uint16, or uint32 above 65,536 of them; little endian
              train.idx, val.idx   where each document begins, in tokens: uint64, little endian
              tokenizer.json       what wrote them
              meta.json            counts, hashes and the rules by which it was done

The text flows in pieces of bounded size, so that memory does not grow with the corpus; the bytes are the same however
many processes work on them; a folder without meta.json is unfinished.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from legollm.data.cutting import cut_pieces, cut_rule
from legollm.data.documents import BadRows, n_characters
from legollm.data.loader import FORMAT, FORMAT_VERSION
from legollm.data.sources import Source, Split
from legollm.data.split import SplitPlan, SplitRule, plan_split, split_pieces
from legollm.data.tokenising import Encoded, Task, id_type, tasks, tokenised
from legollm.errors import ConfigError
from legollm.interfaces import Tokenizer

SPLITS: tuple[Split, ...] = ("train", "val")
END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How a corpus is divided and turned into tokens."""

    split: SplitRule = "auto"
    """hash: documents by content; tail: the last characters; auto: hash where there are enough documents."""
    val_fraction: float = 0.1
    """Share of the corpus that is kept for validation; a corpus that comes divided stays as it is."""
    seed: int = 0
    """Another seed puts other documents into validation (hash only)."""
    n_workers: int = 1
    """Processes that tokenise, or threads where the tokenizer is compiled; 1 works in this one."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(
                f"val_fraction: {self.val_fraction} is no share of a corpus; give 0 (no validation) up to below 1"
            )
        if self.n_workers < 1:
            raise ConfigError(f"n_workers: {self.n_workers} processes cannot work; give 1 or more")


@dataclass(frozen=True)
class Prepared:
    """A folder of token files, and whether this call wrote it."""

    folder: Path
    meta: dict[str, Any]
    written: bool


Progress = Callable[[str, int, int | None], None]
"""Called with the stage ("reading", "tokenising"), the bytes of text it is through with, and of how many if known."""


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    options: PrepareOptions,
    progress: Progress | None = None,
) -> Prepared:
    """Write the token files of `source`, unless the same inputs already did.

    Where the tokenizer has `<|endoftext|>`, it ends every document. Only one call at a time may write a folder.

    Raises:
        DataError: text that cannot be read, divided or tokenised; names file and line.
    """
    begin = partial(_begin, source, tokenizer, folder, options, progress)
    with ThreadPoolExecutor(1) as beside:
        hashes = beside.submit(source.fingerprint)  # hashing leaves Python to others, so it runs beside the plan
        plan = None if (folder / "meta.json").exists() else begin()  # a finished folder may need no plan
        inputs = _inputs(source.name, hashes.result(), tokenizer, options)
    stamp = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    done = _finished(folder, stamp)
    if done is not None:
        return Prepared(folder, done, written=False)
    plan = plan or begin()
    bad_rows = BadRows(source.on_bad_row)
    counts = _write_splits(source, tokenizer, folder, plan, bad_rows, options.n_workers, progress)
    meta = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **inputs,
        "rule": plan.rule,
        "dtype": id_type(tokenizer).name,
        "splits": counts,
        "bad_rows": asdict(bad_rows),
        "stamp": stamp,
    }
    _put(folder / "meta.json", (json.dumps(meta, indent=2, ensure_ascii=False) + "\n").encode())
    return Prepared(folder, meta, written=True)


def _begin(
    source: Source, tokenizer: Tokenizer, folder: Path, options: PrepareOptions, progress: Progress | None
) -> SplitPlan:
    """Make the folder an unfinished one with its tokenizer, and decide what goes where."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    tokenizer.save(folder / "tokenizer.json")
    read = None if progress is None else lambda n_bytes: progress("reading", n_bytes, None)
    return plan_split(source, options.split, val_fraction=options.val_fraction, seed=options.seed, progress=read)


def _inputs(name: str, fingerprint: dict[str, Any], tokenizer: Tokenizer, options: PrepareOptions) -> dict[str, Any]:
    """All that decides the bytes; the number of workers does not."""
    choices = asdict(options)
    del choices["n_workers"]
    return {
        "tokenizer": {
            "kind": tokenizer.kind,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
        },
        "source": {"name": name, **fingerprint},
        "options": choices,
        "end_of_document": END_OF_TEXT if END_OF_TEXT in tokenizer.special_tokens else None,
    }


def _finished(folder: Path, stamp: str) -> dict[str, Any] | None:
    """The meta of a folder that holds exactly these inputs, with files of the size it promises."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not isinstance(meta, dict) or meta.get("stamp") != stamp:
        return None
    width = np.dtype(meta["dtype"]).itemsize
    for split, counts in meta["splits"].items():
        for path, size in ((f"{split}.bin", counts["n_tokens"] * width), (f"{split}.idx", counts["n_documents"] * 8)):
            if not (folder / path).is_file() or (folder / path).stat().st_size != size:
                return None
    return meta


class _SplitWriter:
    """One split on its way to disk: ids, document starts and counts."""

    def __init__(self, folder: Path, split: Split, separator: Sequence[int], files: ExitStack) -> None:
        self.paths = {folder / f".tmp-{split}.{kind}": folder / f"{split}.{kind}" for kind in ("bin", "idx")}
        self.bin, self.idx = (files.enter_context(path.open("wb")) for path in self.paths)
        self.split = split
        self.separator = separator
        self.hash = hashlib.sha256()
        self.in_document = False
        self.counts = {"n_tokens": 0, "n_bytes": 0, "n_chars": 0, "n_documents": 0}

    def write(self, task: Task, encoded: Encoded) -> None:
        """Those pieces of a task that are of this split."""
        pieces = [piece for split, piece in task if split == self.split]
        if not pieces:
            return
        mine = np.array([split == self.split for split, _ in task])
        lengths = np.diff(encoded.offsets)
        ids = encoded.ids if mine.all() else encoded.ids[np.repeat(mine, lengths)]
        ends = np.array([piece.ends for piece in pieces])
        begins = np.append(not self.in_document, ends[:-1])
        offsets = np.cumsum(np.append(0, lengths[mine]))
        if self.separator and ends.any():
            ids = np.insert(ids, np.repeat(offsets[1:][ends], len(self.separator)), np.tile(self.separator, ends.sum()))
            offsets += len(self.separator) * np.cumsum(np.append(0, ends))
        self.idx.write((self.counts["n_tokens"] + offsets[:-1][begins]).astype("<u8").tobytes())
        self.bin.write(ids.data)
        self.hash.update(ids.data)
        self.in_document = not pieces[-1].ends
        self.counts["n_tokens"] += len(ids)
        self.counts["n_bytes"] += sum(len(piece.data) for piece in pieces)
        self.counts["n_chars"] += sum(n_characters(piece.data) for piece in pieces)
        self.counts["n_documents"] += int(begins.sum())

    def sync(self) -> None:
        for file in (self.bin, self.idx):
            file.flush()
            os.fsync(file.fileno())


def _write_splits(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    plan: SplitPlan,
    bad_rows: BadRows,
    n_workers: int,
    progress: Progress | None,
) -> dict[str, dict[str, Any]]:
    special = tokenizer.special_tokens.get(END_OF_TEXT)
    separator = () if special is None else (special,)
    parts = cut_pieces(split_pieces(source, plan, bad_rows), cut_rule(tokenizer, folder / "tokenizer.json"))
    with ExitStack() as files:
        writers = {split: _SplitWriter(folder, split, separator, files) for split in SPLITS}
        for task, encoded in tokenised(tasks(parts), tokenizer, folder / "tokenizer.json", n_workers):
            for writer in writers.values():
                writer.write(task, encoded)
            if progress is not None:
                progress("tokenising", sum(writer.counts["n_bytes"] for writer in writers.values()), plan.n_bytes)
        for writer in writers.values():
            writer.sync()
    for writer in writers.values():
        for temporary, final in writer.paths.items():
            temporary.replace(final)
    return {split: {**writer.counts, "sha256": writer.hash.hexdigest()} for split, writer in writers.items()}


def _put(path: Path, data: bytes) -> None:
    """Write a small file so that it is there whole or not at all, with its folder's entries safe on disk."""
    temporary = path.with_name(f".tmp-{path.name}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
