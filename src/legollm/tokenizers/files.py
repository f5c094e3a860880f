"""Tokenizer files: versioned JSON that carries its own hash, written whole or not at all."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from legollm.errors import TokenizerError
from legollm.whole_file import write_whole

FORMAT = "legollm-tokenizer"
VERSION = 1


def fingerprint(state: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of `state`: keys sorted, no white space, ASCII only."""
    canonical = json.dumps(state, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def write_state(path: Path | str, state: Mapping[str, Any]) -> None:
    """Save what defines a tokenizer, with format, version and hash."""
    document = {"format": FORMAT, "version": VERSION, "sha256": fingerprint(state), **state}
    # A line for each field: with indent=1, json would write the lists of a vocabulary in Python, ten times as slowly.
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    write_whole(Path(path), "{\n" + ",\n".join(lines) + "\n}\n")


def read_state(path: Path | str, *, kind: str) -> dict[str, Any]:
    """The state that write_state saved.

    Raises:
        TokenizerError: no such file, not this format, another version or kind, or content that does not fit its hash.
    """
    document = read_json(path)
    if document.get("format") != FORMAT:
        raise TokenizerError(f"{path}: no {FORMAT} file (format is {document.get('format')!r}); use load_tokenizer")
    if document.get("version") != VERSION:
        raise TokenizerError(
            f"{path}: version {document.get('version')!r} of the format; this program reads {VERSION}, use a newer one"
        )
    if document.get("kind") != kind:
        raise TokenizerError(f"{path}: holds a {document.get('kind')!r} tokenizer, not {kind!r}; use load_tokenizer")
    state = {key: value for key, value in document.items() if key not in ("format", "version", "sha256")}
    if document.get("sha256") != fingerprint(state):
        raise TokenizerError(
            f"{path}: the content does not fit its sha256, the file was changed or damaged; restore it"
        )
    return state


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Around code that takes a document apart: what it stumbles over becomes a TokenizerError with the file's name."""
    try:
        yield
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise TokenizerError(
            f"{path}: a field is missing or wrong ({error!r}); save or fetch the file again"
        ) from error


def read_json(path: Path | str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        TokenizerError: unreadable, truncated, or another kind of value.
    """
    content = read_bytes(path)
    try:
        document = json.loads(content, object_pairs_hook=_object)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError alike
        raise TokenizerError(f"{path}: no valid JSON ({error}); the file is damaged or something else") from error
    except RecursionError as error:
        raise TokenizerError(f"{path}: JSON nested too deeply for a tokenizer file") from error
    if not isinstance(document, dict):
        raise TokenizerError(f"{path}: a JSON {type(document).__name__} where a tokenizer file has an object")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python would let the last of two equal keys win, and a token would have lost its id."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def read_bytes(path: Path | str) -> bytes:
    """The content of a file.

    Raises:
        TokenizerError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read ({error.strerror}); give a tokenizer file or folder") from error
