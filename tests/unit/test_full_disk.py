"""A disk that refuses at any moment of a save: the last checkpoint is whole; the message says what was missing."""

import builtins
import errno
import io
import logging
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from legollm.architectures import ARCHITECTURES
from legollm.architectures.gpt2 import GPT2Config
from legollm.checkpoints import manifest
from legollm.checkpoints import state as state_module
from legollm.checkpoints.manifest import latest, steps, verify
from legollm.checkpoints.state import TrainingState, prepare_root, save_checkpoint
from legollm.commands import fit as fit_module
from legollm.errors import CheckpointError
from legollm.tokenizers import ByteTokenizer
from legollm.training.metrics import JsonLines, read_rows
from tiny_run import go

CONFIG = GPT2Config(vocab_size=257, max_seq_len=8, n_layers=1, n_heads=2, d_model=8)
MODEL = ARCHITECTURES["gpt2"].build(CONFIG, seed=1)
STATE = TrainingState({}, {"mean.x": torch.zeros(5_000)})
SAYS = (
    r": could not be written \(.*No space left on device.*\) after [\d,]+ bytes; "
    r"it needs [\d,]+ bytes, [\d,]+ bytes free; "
)


def save(root: Path, step: int) -> Path:
    tokenizer = ByteTokenizer()
    return save_checkpoint(root, step, model=MODEL, arch="gpt2", config=CONFIG, tokenizer=tokenizer, state=STATE)


class FullDisk:
    """A disk that takes n more operations and none after that; removing and reading still work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for owner, name in [(os, "mkdir"), (os, "rename"), (os, "symlink"), (os, "fsync"), (state_module, "save_file")]:
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))
        opened = self.open_with(io.open)
        for owner in (io, builtins):
            monkeypatch.setattr(owner, "open", opened)

    def counted(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **kwargs: Any) -> Any:
            self.take()
            return action(*args, **kwargs)

        return act

    def open_with(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def open_counted(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wax+"):
                return original(file, mode, *args, **kwargs)
            self.take()
            found = original(file, mode, *args, **kwargs)
            write = found.write
            found = Written(found)
            found.write = self.counted(write)
            return found

        return open_counted

    def take(self) -> None:
        if self.left is None:
            return
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= 1


class Written:
    """A file whose `write` can be replaced."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "run" / "checkpoints"
    prepare_root(root)
    save(root, 5)
    return root


def assert_sound(root: Path) -> None:
    for path in steps(root).values():
        verify(path)
    assert latest(root) is not None
    assert not list(root.glob(".tmp-*"))


def assert_all_say_what_is_missing(complaints: list[str], root: Path) -> None:
    for complaint in complaints:
        assert re.match(re.escape(str(root / "step-00000010")) + SAYS, complaint), complaint


def test_full_at_every_single_operation_of_a_save(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    disk = FullDisk(monkeypatch)
    complaints = list[str]()
    for n in range(1000):
        disk.left = n
        try:
            save(root, 10)
        except CheckpointError as error:
            complaints.append(str(error))
            disk.left = None
            assert_sound(root)
        else:
            if disk.left:
                break
        disk.left = None
        for path in steps(root).values():
            if path.name != "step-00000005":
                os.rename(path, root.parent / f"removed-{n}")
    assert len(complaints) > 40  # each write of each file, each folder, each rename
    assert_all_say_what_is_missing(complaints, root)
    assert list(steps(root)) == [10, 5]


def test_an_old_checkpoint_that_cannot_be_removed_is_only_mentioned(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    save(root, 10)
    monkeypatch.setattr(state_module, "discard", refuse)
    save(root, 15)
    assert list(steps(root)) == [15, 10, 5]
    assert "step-00000005: could not be removed (Read-only file system)" in caplog.text


def test_a_disk_that_cannot_be_read_is_damage_and_the_one_before_is_used(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(root, 10)
    digest = manifest.sha256

    def unreadable(path: Path) -> str:
        if "step-00000010" in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return digest(path)

    monkeypatch.setattr(manifest, "sha256", unreadable)
    assert latest(root) == root / "step-00000005"
    assert "step-00000010/config.json: cannot be read (Input/output error); using" in caplog.text.replace(os.sep, "/")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a quarter of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no disk can be made here: {error}")
    if done.returncode:
        pytest.skip(f"no disk can be made here, that takes an administrator: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_really_is_full_with_any_number_of_pages_left(small_disk: Path) -> None:
    """Every length from no page to enough: whoever writes, in whatever language, meets the end somewhere."""
    root = small_disk / "run" / "checkpoints"
    prepare_root(root)
    save(root, 5)
    complaints = list[str]()
    for n_pages in range(1000):
        filler = small_disk / "filler"
        free = os.statvfs(small_disk).f_bavail
        filler.write_bytes(bytes(4096 * (free - n_pages)))
        try:
            save(root, 10)
        except CheckpointError as error:
            complaints.append(str(error))
            assert [path.name for path in root.iterdir()] == ["step-00000005"]
            assert_sound(root)
        else:
            break
        finally:
            filler.unlink()
    assert len(complaints) > 10
    assert_all_say_what_is_missing(complaints, root)
    assert_sound(root)
    assert list(steps(root)) == [10, 5]


# a run on such a disk


def refuse_step(monkeypatch: pytest.MonkeyPatch, *refused: int) -> None:
    original = state_module.save_checkpoint

    def save_checkpoint(root: Path, step: int, **parts: Any) -> Path:
        if step in refused:
            raise CheckpointError(f"{root}: could not be written (No space left on device)")
        return original(root, step, **parts)

    monkeypatch.setattr(fit_module, "save_checkpoint", save_checkpoint)


def test_a_failed_save_stops_the_run_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_step(monkeypatch, 10)
    with pytest.raises(CheckpointError, match="No space left"):
        go(tmp_path)
    assert list(steps(tmp_path / "checkpoints")) == [5]


def test_a_failed_save_is_only_warned_of_if_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go(tmp_path / "whole")
    refuse_step(monkeypatch, 5)
    with caplog.at_level(logging.WARNING):
        assert go(tmp_path / "run", on_save_failure="warn").step == 12
    assert "step 5: " in caplog.text
    assert "training goes on, as train.on_save_failure=warn says" in caplog.text
    assert list(steps(tmp_path / "run" / "checkpoints")) == [12, 10]
    a, b = (tmp_path / name / "checkpoint" / "model.safetensors" for name in ("whole", "run"))
    assert a.read_bytes() == b.read_bytes()


def test_the_last_save_must_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_step(monkeypatch, 12)
    with pytest.raises(CheckpointError, match="No space left"):
        go(tmp_path, on_save_failure="warn")


def test_a_row_of_metrics_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = JsonLines(tmp_path / "metrics.jsonl")
    numbers(1, loss=2.0)
    original = io.open

    def opened(*args: Any, **kwargs: Any) -> Any:
        found = Written(original(*args, **kwargs))

        def write_half(text: str) -> None:
            found.file.write(text[: len(text) // 2])
            found.file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        found.write = write_half  # type: ignore[attr-defined]
        return found

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", opened)
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl: could not be written \(No space left on device\)"):
            numbers(2, loss=1.0)
    numbers(3, loss=0.5)
    assert [row["step"] for row in read_rows(numbers.path)] == [1, 3]
