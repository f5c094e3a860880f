"""Corpus + tokenizer -> a folder of token files that training maps into memory.

    data/NAME/train.bin, val.bin   the ids, one after the other: uint16, or uint32 above 65,536 of them; little endian;
                                   above shard_bytes in train-00000.bin, train-00001.bin, ... instead
              train.idx, val.idx   where each document begins, in tokens: uint64, little endian
              tokenizer.json       what wrote them
              meta.json            counts, hashes and the rules by which it was done

The text flows in pieces of bounded size, so that memory does not grow with the corpus; the bytes are the same however
many processes work on them; a folder without meta.json is unfinished.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from legollm.data.cutting import cut_pieces, cut_rule
from legollm.data.documents import BadRows
from legollm.data.loader import FORMAT, FORMAT_VERSION, files_of
from legollm.data.shards import Ids
from legollm.data.sources import Source, Split
from legollm.data.split import SplitPlan, SplitRule, plan_split, split_pieces
from legollm.data.tokenising import Encoded, Task, id_type, tasks, tokenised
from legollm.errors import ConfigError
from legollm.interfaces import Tokenizer
from legollm.whole_file import write_whole

SPLITS: tuple[Split, ...] = ("train", "val")
END_OF_TEXT = "<|endoftext|>"

SYNC_BYTES = 64 << 20
"""So much is written before the disk is asked to have it."""
WRITES_AHEAD = 4
"""Tasks that may wait to be written."""


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
    shard_bytes: int = 2_000_000_000
    """A split larger than this lies in several files of this size; a folder that is finished stays as it lies."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(
                f"val_fraction: {self.val_fraction} is no share of a corpus; give 0 (no validation) up to below 1"
            )
        if self.n_workers < 1:
            raise ConfigError(f"n_workers: {self.n_workers} processes cannot work; give 1 or more")
        if self.shard_bytes < 4:
            raise ConfigError(f"shard_bytes: {self.shard_bytes} bytes hold no id; give 4 or more")


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
    counts = _write_splits(source, tokenizer, folder, plan, bad_rows, options, progress)
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
    write_whole(folder / "meta.json", json.dumps(meta, indent=2, ensure_ascii=False) + "\n")
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
    """All that decides the ids; the number of workers does not, nor into how many files they are divided."""
    choices = asdict(options)
    del choices["n_workers"], choices["shard_bytes"]
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
        sizes = {name: n_tokens * width for name, n_tokens in files_of(split, counts).items()}
        for path, size in {**sizes, f"{split}.idx": counts["n_documents"] * 8}.items():
            if not (folder / path).is_file() or (folder / path).stat().st_size != size:
                return None
    return meta


class _ShardWriter:
    """The ids of one split on their way to disk, in files of at most so many ids."""

    def __init__(self, folder: Path, split: Split, max_ids: int, files: ExitStack) -> None:
        self.folder, self.split, self.max_ids, self.files = folder, split, max_ids, files
        self.paths: list[Path] = []
        self.lengths: list[int] = []
        self.n_unsynced = 0
        self.hash = hashlib.sha256()
        self._open_next()

    def _open_next(self) -> None:
        path = self.folder / f".tmp-{self.split}-{len(self.paths):05}.bin"
        self.file = self.files.enter_context(path.open("wb"))
        self.paths.append(path)
        self.lengths.append(0)

    def write(self, ids: Ids) -> None:
        """Append; what is written goes to the disk now and then, so that little is left to wait for at the end."""
        self.hash.update(ids.data)
        while len(ids):
            if self.lengths[-1] == self.max_ids:
                self.sync()
                self._open_next()
            part, ids = np.split(ids, [self.max_ids - self.lengths[-1]])
            self.file.write(part.data)
            self.lengths[-1] += len(part)
            self.n_unsynced += part.nbytes
            if self.n_unsynced > SYNC_BYTES:
                self.sync()

    def sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.n_unsynced = 0

    def put_in_place(self) -> dict[str, Any]:
        """Give the files their names, remove those of an earlier call, and tell what meta.json says of them."""
        names = [f"{self.split}-{number:05}.bin" for number in range(len(self.paths))]
        if len(names) == 1:
            names = [f"{self.split}.bin"]
        for path, name in zip(self.paths, names, strict=True):
            path.replace(self.folder / name)
        for pattern in (f"{self.split}.bin", f"{self.split}-?????.bin", f".tmp-{self.split}-?????.bin"):
            for path in self.folder.glob(pattern):
                if path.name not in names:
                    path.unlink()
        said: dict[str, Any] = {"sha256": self.hash.hexdigest()}
        if len(names) > 1:
            shards = zip(names, self.lengths, strict=True)
            said["shards"] = [{"file": name, "n_tokens": n_tokens} for name, n_tokens in shards]
        return said


class _SplitWriter:
    """One split: what of each task belongs to it, where its documents begin, and the counts."""

    def __init__(self, folder: Path, split: Split, separator: Sequence[int], shards: _ShardWriter) -> None:
        self.temporary, self.final = folder / f".tmp-{split}.idx", folder / f"{split}.idx"
        self.idx = shards.files.enter_context(self.temporary.open("wb"))
        self.split = split
        self.separator = separator
        self.shards = shards
        self.in_document = False
        self.counts = {"n_tokens": 0, "n_bytes": 0, "n_chars": 0, "n_documents": 0}

    def write(self, task: Task, encoded: Encoded) -> None:
        """Those pieces of a task that are of this split."""
        mine = np.array([split == self.split for split, _ in task])
        if not mine.any():
            return
        pieces = [piece for split, piece in task if split == self.split]
        lengths = np.diff(encoded.offsets)
        ids = encoded.ids if mine.all() else encoded.ids[np.repeat(mine, lengths)]
        ends = np.array([piece.ends for piece in pieces])
        begins = np.append(not self.in_document, ends[:-1])
        offsets = np.cumsum(np.append(0, lengths[mine]))
        if self.separator and ends.any():
            ids = np.insert(ids, np.repeat(offsets[1:][ends], len(self.separator)), np.tile(self.separator, ends.sum()))
            offsets += len(self.separator) * np.cumsum(np.append(0, ends))
        self.idx.write((self.counts["n_tokens"] + offsets[:-1][begins]).astype("<u8").tobytes())
        self.shards.write(ids)
        self.in_document = not pieces[-1].ends
        self.counts["n_tokens"] += len(ids)
        self.counts["n_bytes"] += sum(len(piece.data) for piece in pieces)
        self.counts["n_chars"] += int(encoded.n_chars[mine].sum())
        self.counts["n_documents"] += int(begins.sum())

    def sync(self) -> None:
        self.idx.flush()
        os.fsync(self.idx.fileno())
        self.shards.sync()

    def put_in_place(self) -> dict[str, Any]:
        self.temporary.replace(self.final)
        return {**self.counts, **self.shards.put_in_place()}


def _write_splits(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    plan: SplitPlan,
    bad_rows: BadRows,
    options: PrepareOptions,
    progress: Progress | None,
) -> dict[str, dict[str, Any]]:
    special = tokenizer.special_tokens.get(END_OF_TEXT)
    separator = () if special is None else (special,)
    parts = cut_pieces(split_pieces(source, plan, bad_rows), cut_rule(tokenizer, folder / "tokenizer.json"))
    max_ids = options.shard_bytes // id_type(tokenizer).itemsize
    with ExitStack() as files:
        writers = [
            _SplitWriter(folder, split, separator, _ShardWriter(folder, split, max_ids, files)) for split in SPLITS
        ]

        def write(task: Task, encoded: Encoded) -> None:
            for writer in writers:
                writer.write(task, encoded)
            if progress is not None:
                progress("tokenising", sum(writer.counts["n_bytes"] for writer in writers), plan.n_bytes)

        # hashing, writing and waiting for the disk leave Python to others: one thread does it beside those that encode
        with ThreadPoolExecutor(1) as beside:
            writing: deque[Future[None]] = deque()
            for task, encoded in tokenised(tasks(parts), tokenizer, folder / "tokenizer.json", options.n_workers):
                writing.append(beside.submit(write, task, encoded))
                if len(writing) > WRITES_AHEAD:
                    writing.popleft().result()
            for future in writing:
                future.result()
        for writer in writers:
            writer.sync()
    return {writer.split: writer.put_in_place() for writer in writers}
