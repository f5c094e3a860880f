"""One file -> its documents, in bounded pieces: plain text, JSON lines, Parquet.

A reader loses no text silently: what it cannot read it reports to `BadRows` with file and line, which stops or counts.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legollm.data.decoding import looks_like_text, opened, separated, text_blocks
from legollm.data.documents import BadRows, OnBadRow, Piece
from legollm.errors import ConfigError, DataError

MAX_ROW_BYTES = 64 << 20
MAX_LIST_BYTES = 1 << 30
_SPACE = re.compile(r"\s*")
MAX_NESTING = 64

SHAPES = {
    "messages": "a chat; `legollm sft` reads those, pre-training wants plain documents",
    "conversations": "a chat; `legollm sft` reads those, pre-training wants plain documents",
    "question": "a question with its answer; `legollm sft` reads those, pre-training wants plain documents",
    "instruction": "an instruction with its answer; `legollm sft` reads those, pre-training wants plain documents",
    "chosen": "a preference pair; `legollm dpo` reads those, pre-training wants plain documents",
}
"""Fields that tell what kind of row this is when the text field is missing."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a corpus is read."""

    field: str = "text"
    """The field (JSON lines) or column (Parquet) that holds the document."""
    id_field: str | None = "id"
    """The field of JSON lines whose values must differ; null: do not look."""
    separator: str | None = None
    """What stands between the documents of a text file; it is not part of them. Null: each file is one document."""
    text_suffixes: tuple[str, ...] = (".txt", ".md")
    """Endings of files that are read as plain text."""
    on_bad_row: OnBadRow = "stop"
    """What to do with a row, or a line of text, that cannot be read."""
    corpora: str = "corpora"
    """Folder in which fetched data sets lie."""
    world_seed: int = 0
    """Seed of the built-in corpus `world`."""
    world_bytes: int = 20_000_000
    """Size of the built-in corpus `world`, in bytes."""

    def __post_init__(self) -> None:
        if self.separator == "":
            raise ConfigError("separator: '' separates nothing; give the text between two documents, or null")
        if self.world_bytes < 1:
            raise ConfigError(f"world_bytes: {self.world_bytes} bytes are no corpus; give at least 1")


Reader = Callable[[Path, str, SourceOptions, BadRows], Iterator[Piece]]


def read_text(path: Path, name: str, options: SourceOptions, bad_rows: BadRows) -> Iterator[Piece]:
    """A text file as one document, or as those between the separators.

    Joined with the separator, the documents are the file again (without its byte order mark); only documents without
    a single character are left out. Line ends stay as they are.
    """
    blocks = text_blocks(path, name, bad_rows)
    if options.separator is not None:
        blocks = separated(blocks, options.separator)
    held: Piece | None = None  # one piece behind, because only the next one tells whether a document ends here
    for data, line, new_document in blocks:
        if held is not None:
            yield held._replace(ends=new_document)
        held = Piece(data, name, line, ends=False)
    if held is not None:
        yield held._replace(ends=True)


def read_jsonl(path: Path, name: str, options: SourceOptions, bad_rows: BadRows) -> Iterator[Piece]:
    """One document per line: the field `options.field` of a JSON object."""
    seen: dict[int, int] = {}  # hash of an id -> its line; the ids themselves would be most of the memory
    for line, row in read_rows(path, name, bad_rows):
        try:
            data = _text_field(row, options.field)
            _check_new(row, options.id_field, seen, line)
        except _BadRow as bad:
            bad_rows.found(name, line, str(bad))
            continue
        yield Piece(data, name, line, ends=True)


def read_rows(path: Path, name: str, bad_rows: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON lines file, each with the number of its line; lines of white space are no rows."""
    with opened(path, name) as file:
        if not looks_like_text(file, name, bad_rows):
            return
        line = 0
        while data := file.readline(MAX_ROW_BYTES):
            line += 1
            if len(data) == MAX_ROW_BYTES and not data.endswith(b"\n"):
                while data and not data.endswith(b"\n"):
                    data = file.readline(MAX_ROW_BYTES)
                bad_rows.found(name, line, f"the row is longer than {MAX_ROW_BYTES >> 20} MiB; one row is one document")
            elif data.strip():
                try:
                    row = _json_object(data)
                except _BadRow as bad:
                    bad_rows.found(name, line, str(bad))
                    continue
                yield line, row


def read_items(path: Path, name: str, bad_rows: BadRows) -> Iterator[tuple[int, Any]]:
    """What a JSON file that is one list holds, each with its number, from 1."""
    with opened(path, name) as file:
        if not looks_like_text(file, name, bad_rows):
            return
        data = file.read(MAX_LIST_BYTES + 1)
    number = line = 0
    try:
        if len(data) > MAX_LIST_BYTES:
            raise _BadRow(f"the list is longer than {MAX_LIST_BYTES >> 20} MiB; write one object a line, as .jsonl")
        _check_nesting(data)
        text = data.decode("utf-8")
        at = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches everywhere
        if text[at : at + 1] != "[":
            raise _BadRow("a .json file is one list of objects; name it .jsonl if it is one object a line")
        decoder, stop = json.JSONDecoder(object_pairs_hook=_unique), ","
        while stop == ",":
            at = _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]
            if number == 0 and text[at : at + 1] == "]":
                return
            number += 1
            item, at = decoder.raw_decode(text, at)
            yield number, item
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
            stop = text[at : at + 1]
        if stop != "]":
            raise _BadRow(f"after it a comma or the end of the list is due, found {stop or 'the end of the file'!r}")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        bad_rows.found(name, line, f"byte 0x{data[error.start]:02x} is not UTF-8; convert the file")
    except json.JSONDecodeError as error:
        bad_rows.found(name, error.lineno, f"item {number} is not JSON: {error.msg} at column {error.colno}")
    except (ValueError, _BadRow) as error:  # an integer of more digits than Python converts
        bad_rows.found(name, 1, f"item {number}: {error}" if number else str(error))


class _BadRow(Exception):
    """Why one row cannot be used."""


def _json_object(data: bytes) -> dict[str, Any]:
    _check_nesting(data)
    try:
        row = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise _BadRow(f"byte 0x{data[error.start]:02x} at column {error.start + 1} is not UTF-8; convert it") from error
    except json.JSONDecodeError as error:
        raise _BadRow(f"not JSON: {error.msg} at column {error.colno}; each line is one JSON object") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise _BadRow(f"not usable JSON: {error}") from error
    if not isinstance(row, dict):
        raise _BadRow(f'a JSON {type(row).__name__} where an object is needed; write {{"text": "..."}} on each line')
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of two values for one key Python would drop the first."""
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _BadRow(f"field '{twice}' occurs twice in one object; keep one")
    return row


def _check_nesting(data: bytes) -> None:
    """Refuse a row of many levels before the parser recurses into them."""
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return
    depth = 0
    for token in re.finditer(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', data, re.DOTALL):
        if token[0] in b"[{":
            depth += 1
            if depth > MAX_NESTING:
                raise _BadRow(f"JSON nested deeper than {MAX_NESTING} levels; a row is a flat object with its text")
        elif token[0] in b"]}":
            depth -= 1


def _text_field(row: dict[str, Any], field: str) -> bytes:
    if field not in row:
        hint = next((f"this is {what}" for key, what in SHAPES.items() if key in row), "name another with field=...")
        raise _BadRow(f"no field '{field}'; the row has {', '.join(map(repr, row)) or 'none'}: {hint}")
    return _checked_text(row[field], field)


def _checked_text(value: object, field: str) -> bytes:
    if not isinstance(value, str):
        raise _BadRow(f"field '{field}' holds {type(value).__name__}, not text; name another with field=...")
    if not value:
        raise _BadRow(f"field '{field}' is empty; leave such rows out")
    if "\0" in value:
        raise _BadRow(f"NUL character in field '{field}'; text has none")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _BadRow(f"field '{field}' holds half a surrogate pair at character {error.start + 1}") from error


def _check_new(row: dict[str, Any], id_field: str | None, seen: dict[int, int], line: int) -> None:
    if id_field is None or id_field not in row:
        return
    value = row[id_field]
    if not isinstance(value, str | int):
        raise _BadRow(f"field '{id_field}' holds {type(value).__name__}; an id is text or a whole number")
    first = seen.setdefault(hash((type(value), value)), line)
    if first != line:
        raise _BadRow(f"id {value!r} is already in line {first}; remove one, or set id_field=null to keep both")


def read_parquet(path: Path, name: str, options: SourceOptions, bad_rows: BadRows) -> Iterator[Piece]:
    """One document per row of a Parquet table, from the column `options.field`."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(f"{name}: reading Parquet needs pyarrow; install the extra: legollm[parquet]") from error
    try:
        table = parquet.ParquetFile(path)
    except (OSError, arrow.ArrowInvalid) as error:
        bad_rows.found(name, 1, f"not a readable Parquet table ({error}); fetch or write it again")
        return
    with table:
        columns = table.schema_arrow.names
        if options.field not in columns:
            raise DataError(f"{name}: no column '{options.field}'; it has {', '.join(columns)}: choose with field=...")
        row = 0
        for batch in table.iter_batches(batch_size=1024, columns=[options.field]):
            for value in batch.column(0).to_pylist():
                row += 1
                try:
                    data = _checked_text(value, options.field)
                except _BadRow as bad:
                    bad_rows.found(name, row, str(bad))
                    continue
                yield Piece(data, name, row, ends=True)


TABLE_READERS: dict[str, Reader] = {".jsonl": read_jsonl, ".parquet": read_parquet}
"""Reader of each ending that is not plain text."""
