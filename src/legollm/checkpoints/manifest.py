"""A folder that is complete or not there at all, and knows the SHA-256 of each of its files.

Written under a temporary name, every file synced, the manifest last, then renamed and the parent synced: a process
killed at any moment leaves either the whole folder or an orphan that the next start removes.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from legollm.errors import CheckpointError, IntegrityError, LegoLLMError
from legollm.whole_file import sync

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 1
STEP = re.compile(r"step-(\d{8,})")


@contextmanager
def atomic_folder(final: Path, *, replace: bool = False, n_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary folder to write into; it becomes `final` when the block ends, and vanishes when it fails.

    replace: whether an older `final` gives way, once the new one is whole. n_bytes: about how large it will be.

    Raises:
        CheckpointError: `final` is there and may not be replaced, or the disk refused (says what was asked of it and
            how much is free). `final` is untouched.
    """
    if final.exists() and not replace:
        raise CheckpointError(f"{final}: exists already; remove it, or choose another folder")
    temporary = final.with_name(f".tmp-{final.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        write_manifest(temporary)
        discard(final)
        temporary.rename(final)
        sync(final.parent)
    except CheckpointError:
        raise
    except (OSError, SafetensorError) as error:  # safetensors wraps what the disk said
        size = sum(file.stat().st_size for file in temporary.rglob("*") if file.is_file()) if temporary.exists() else 0
        free = shutil.disk_usage(final.parent if final.parent.exists() else Path.cwd()).free
        why = getattr(error, "strerror", None) or error
        needed = f"; it needs {n_bytes:,} bytes" if n_bytes else ""
        raise CheckpointError(
            f"{final}: could not be written ({why}) after {size:,} bytes{needed}, {free:,} bytes free; "
            "earlier checkpoints are untouched; make room or choose another run=FOLDER"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    for path in files:
        path.chmod(0o644)  # safetensors makes files that only their owner can read
        sync(path)
    entries = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files}
    (folder / MANIFEST).write_text(canonical({"version": FORMAT, "files": entries}), encoding="utf-8")
    sync(folder / MANIFEST)
    sync(folder)


def verify(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: there is no manifest.
        IntegrityError: a file is missing or differs; names it, and the hashes. Or the disk does not read it.
    """
    try:
        compare(folder)
    except LegoLLMError:
        raise
    except OSError as error:
        raise IntegrityError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error


def compare(folder: Path) -> None:
    """What `verify` does on a disk that works."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: has no {MANIFEST}; not a checkpoint, or one that was never finished"
        ) from None
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{folder / MANIFEST}: damaged: {error}") from error
    try:
        manifest = json.loads(text)
        entries = manifest["files"]
        if manifest["version"] != FORMAT:
            raise ValueError(f"format {manifest['version']!r}, and this version of legollm reads {FORMAT}")
        if text != canonical({"version": FORMAT, "files": entries}):  # any flipped bit shows here or below
            raise ValueError("not as it was written")
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(f"{folder / MANIFEST}: damaged: {error}") from error
    for name, (size, digest) in expected.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise IntegrityError(f"{path}: missing; {MANIFEST} lists it with {size} bytes")
        found, n_bytes = sha256(path), path.stat().st_size
        if (n_bytes, found) != (size, digest):
            raise IntegrityError(
                f"{path}: damaged: {n_bytes} bytes with SHA-256 {found}, {MANIFEST} says {size} with {digest}"
            )


def steps(root: Path) -> dict[int, Path]:
    """The checkpoints of a run, finished or damaged, by step, newest first."""
    found = {}
    for path in root.iterdir() if root.is_dir() else []:
        if match := STEP.fullmatch(path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items(), reverse=True))


def latest(root: Path) -> Path | None:
    """The newest checkpoint whose files all verify; damaged ones are named in a warning and passed over."""
    damage: list[CheckpointError] = []
    whole: Path | None = None
    for path in steps(root).values():
        try:
            verify(path)
        except CheckpointError as error:
            damage.append(error)
        else:
            whole = path
            break
    for found in damage:
        log.warning("%s; %s", found, f"using {whole} instead" if whole else "no other checkpoint is whole")
    return whole


def discard(folder: Path) -> None:
    """Remove a folder so that no one ever finds half of it: renamed first, an orphan from then on."""
    if folder.exists():
        doomed = folder.with_name(f".tmp-{folder.name}-{os.getpid()}-discarded")
        folder.rename(doomed)
        shutil.rmtree(doomed)


def remove_orphans(root: Path) -> None:
    """Remove what killed processes left half written."""
    for path in root.glob(".tmp-*") if root.is_dir() else []:
        shutil.rmtree(path, ignore_errors=True)


def canonical(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
