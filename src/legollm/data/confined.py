"""Templates of strangers, filled in by a process of its own that has little memory and little time."""

import json
import os
import select
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping
from functools import lru_cache
from threading import Lock
from typing import Any

from legollm.data import rendering
from legollm.errors import DataError

PATIENCE = 30.0
"""Seconds to wait for a process that does not even compute; it is limited by its own clock."""
FEW = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""Environment variables that Python may need to start."""
lock = Lock()


def fill_confined(template: str, variables: Mapping[str, Any]) -> str:
    """As `rendering.fill`, under limits; the process is started once and kept.

    Raises:
        DataError: what the template does wrong, or which limit it met.
    """
    with lock:
        worker = worker_of(os.getpid())  # a forked process must not talk into its parent's pipe
        answer = worker.ask({"template": template, "variables": dict(variables)})
        if answer is None:
            worker_of.cache_clear()
            raise DataError(f"the chat template fails: {worker.end()}")
    if "error" in answer:
        raise DataError(f"the chat template fails: {answer['error']}")
    text: str = answer["text"]
    return text


class Worker:
    """The process, and a line out and a line back."""

    def __init__(self) -> None:
        """
        Raises:
            DataError: it does not start.
        """
        self.process = subprocess.Popen(
            [sys.executable, "-I", rendering.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in FEW if name in os.environ},
        )
        self.close = weakref.finalize(self, close, self.process, os.getpid())
        if self.line() != b"ready\n":
            raise DataError(f"the process that renders chat templates did not start: {self.end()}")

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """What it answers; None if it ended or is to be ended."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self.line()
        return json.loads(line) if line.endswith(b"\n") else None

    def line(self) -> bytes:
        """The next line, or what there is of it where the process ends or does nothing."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        return self.process.stdout.readline() if ready else b""

    def end(self) -> str:
        """Stop it, and say why it had to end."""
        self.close()
        status = self.process.returncode
        if status == -signal.SIGPROF:
            return f"it takes more than {rendering.SECONDS:g} s"
        return f"the process that ran it ended with status {status}"


@lru_cache(maxsize=1)
def worker_of(process_id: int) -> Worker:
    return Worker()


def close(process: subprocess.Popen[bytes], owner: int) -> None:
    """By the process that started it, and no copy of that one."""
    if os.getpid() != owner:
        return
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        try:
            pipe.close()
        except BrokenPipeError:  # what was not yet written has no reader any more
            continue
    try:
        process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
