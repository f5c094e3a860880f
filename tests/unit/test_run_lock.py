"""One process at a time in a run's folder; a dead one is never in the way."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from legollm.cli import main
from legollm.commands import run_lock
from legollm.commands.run_lock import LOCK, locked
from legollm.errors import ConfigError
from tiny_run import go

HOLD = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(file, fcntl.LOCK_EX)
os.pwrite(file, f"{os.getpid()}\\n".encode(), 0)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in tmp_path / "run"."""
    (tmp_path / "run").mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run" / LOCK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    yield other
    other.kill()
    other.communicate()


def test_a_second_process_is_refused_in_one_line_that_names_the_first(
    tmp_path: Path, held: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=rf"^run: .*run is in use by process {held.pid}; wait for its end or stop it"):
        go(tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == before
    text = tmp_path / "text.txt"
    text.write_text("One and two. " * 100)
    assert main(["train", f"run={tmp_path / 'run'}", f"data.source={text}", "tokenizer=char", "preset=tiny"]) == 2
    assert capsys.readouterr().err.startswith(f"legollm: run: {tmp_path / 'run'} is in use by process {held.pid};")
    assert sorted(path for path in tmp_path.rglob("*") if path != text) == before


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, held: Any) -> None:
    held.kill()
    held.wait()
    assert (tmp_path / "run" / LOCK).read_text() == f"{held.pid}\n"  # what it left
    assert go(tmp_path / "run").step == 12
    assert (tmp_path / "run" / LOCK).read_text() == f"{os.getpid()}\n"


def test_a_file_system_without_locks_is_only_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_lock.fcntl, "lockf", refuse)
    with locked(tmp_path):
        pass
    assert "cannot be locked (No locks available); start no second process in this folder" in caplog.text


def test_no_locks_on_this_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "fcntl", None)
    with locked(tmp_path):
        assert not list(tmp_path.iterdir())
