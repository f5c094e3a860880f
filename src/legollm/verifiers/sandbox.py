"""Code that a model wrote, run behind a fence: what it printed, what each case gave, and why it was stopped if it was.

The fence itself is fence.py, in a fresh interpreter. This side starts it, counts what comes back and ends it: wall
time, 64 KiB of output, one JSON reply. Nothing is unpickled, and where the kernel lacks what the fence is made of, the
code is not run.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from legollm.errors import ConfigError, SandboxError

FENCE = Path(__file__).with_name("fence.py")
RINGS = ("namespaces", "landlock", "seccomp")
NEEDED = ("landlock", "seccomp")
"""Without namespaces these two still close network, files and processes, and nothing at all can be written then."""
MAX_OUTPUT = 64 << 10
MAX_REPLY = 1 << 20
MAX_CODE = 100_000
START_SECONDS = 30.0
"""For the interpreter and the fence, on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """What code from a model may use."""

    seconds: float = 5.0
    """Of wall time, for one answer with all its tests."""
    memory_mb: int = 512
    """Of address space."""
    files_mb: int = 8
    """What it may write in all; it is kept in memory and thrown away."""
    allow_unsandboxed_code: bool = False
    """Run code also where the kernel lacks Landlock or seccomp: then it can do whatever you can do. For machines that
    are thrown away afterwards."""

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_mb", "files_mb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: must be more than 0, found {getattr(self, name)}")


class Outcome(NamedTuple):
    """What became of one run."""

    results: list[dict[str, str]]
    """For each case its `value`, as Python writes it, or its `error`; empty if the run was stopped."""
    output: str
    """What was printed, MAX_OUTPUT bytes at most."""
    stopped: str
    """Why the run was ended from outside; empty if it was not."""


def run_code(code: str, cases: Sequence[str], cfg: SandboxConfig | None = None, without: Sequence[str] = ()) -> Outcome:
    """Run `code`, then each of `cases`, expressions in its names.

    without: rings to leave out, to see what a machine without them does.

    Raises:
        SandboxError: this machine cannot fence the code in, and the configuration does not allow to do without.
    """
    cfg = cfg or SandboxConfig()
    if len(code) > MAX_CODE:
        return Outcome([], "", f"more than {MAX_CODE:,} characters of code")
    program = "".join(f"\n\ndef case_{i}():\n    return ({case}\n    )\n" for i, case in enumerate(cases))
    missing, results, output, stopped = started(code + program, len(cases), cfg, without)
    if lacking := {name: missing[name] for name in needed(cfg) if name in missing}:
        raise SandboxError(refusal(lacking))
    return Outcome([] if stopped else results, output, stopped)


def needed(cfg: SandboxConfig) -> tuple[str, ...]:
    return () if cfg.allow_unsandboxed_code else NEEDED


def refusal(missing: Mapping[str, str]) -> str:
    found = "; ".join(dict.fromkeys(missing.values()))
    return (
        f"this machine cannot fence in code that a model wrote ({found}), so it is not run; use Linux 5.13 or newer on "
        "x86-64, or where it is Linux and thrown away afterwards, set sandbox.allow_unsandboxed_code=true"
    )


@lru_cache(maxsize=8)
def missing_rings(without: tuple[str, ...] = ()) -> dict[str, str]:
    """What the fence lacks on this machine, with the reason: found by building one."""
    if not sys.platform.startswith("linux"):
        return dict.fromkeys(RINGS, f"the fence is for Linux, this is {sys.platform}")
    return started("", 0, SandboxConfig(), without)[0]


def level(without: tuple[str, ...] = ()) -> str:
    """full; fenced, where namespaces are missing and so nothing can be written; or none."""
    missing = missing_rings(without).keys()
    return "none" if missing & set(NEEDED) else "fenced" if missing else "full"


class Run(NamedTuple):
    """All that came out of a fence."""

    missing: dict[str, str]
    results: list[dict[str, str]]
    output: str
    stopped: str


def started(program: str, n_cases: int, cfg: SandboxConfig, without: Sequence[str]) -> Run:
    """Start the fence with a program and follow it to its end."""
    if not sys.platform.startswith("linux"):
        raise SandboxError(refusal(missing_rings()))
    with TemporaryDirectory(prefix="legollm-") as name:
        folder = Path(name)
        (folder / "work").mkdir()
        (folder / "answer.py").write_text(program, encoding="utf-8", errors="replace")
        reply_read, reply_write = os.pipe()
        settings = {
            "memory_mb": cfg.memory_mb,
            "files_mb": cfg.files_mb,
            "cpu_seconds": int(cfg.seconds) + 1,
            "n_cases": n_cases,
            "without": list(without),
            "needed": needed(cfg),
            "reply": reply_write,
        }
        interpreter = os.path.realpath(sys.executable)  # not the link of a virtual environment, which leads to ours
        try:
            child = subprocess.Popen(
                [interpreter, "-I", "-S", "-X", "utf8", str(FENCE), str(folder), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[reply_write],
                env={},
                cwd=folder,
                start_new_session=True,
            )
        finally:
            os.close(reply_write)
        try:
            assert child.stdout is not None
            caps = {child.stdout.fileno(): MAX_OUTPUT, reply_read: MAX_REPLY}
            parts, stopped = collected(caps, cfg.seconds, starts=reply_read)
            output = parts[child.stdout.fileno()][:MAX_OUTPUT].decode("utf-8", "replace")
            first, _, rest = parts[reply_read].partition(b"\n")
            if not first:
                return Run(dict.fromkeys(RINGS, f"the fence does not start: {output[-300:]}"), [], output, stopped)
            results = parsed(rest, n_cases)
            if results is None and not stopped:
                stopped = "the code ended the interpreter"
            return Run(json.loads(first), results or [], output, stopped)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            assert child.stdout is not None
            child.stdout.close()
            os.close(reply_read)


def collected(caps: Mapping[int, int], seconds: float, *, starts: int) -> tuple[dict[int, bytes], str]:
    """What is written into some pipes until all are closed, and why reading stopped before that, if it did.

    The time runs from the first bytes in the pipe `starts`: building the fence is not the code's.
    """
    parts = dict.fromkeys(caps, b"")
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as waiting:
        for descriptor in caps:
            waiting.register(descriptor, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(0.0, deadline - time.monotonic()))
            if not ready or time.monotonic() > deadline:
                return parts, f"it took more than {seconds:g} s"
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if key.fd == starts and not parts[starts]:
                    deadline = time.monotonic() + seconds
                parts[key.fd] += data
                if not data:
                    waiting.unregister(key.fd)
                elif len(parts[key.fd]) > caps[key.fd]:
                    return parts, f"it wrote more than {caps[key.fd] >> 10} KiB"
    return parts, ""


def parsed(data: bytes, n_cases: int) -> list[dict[str, str]] | None:
    """The results, if these are some: what comes out of the fence is not trusted to have a shape."""
    try:
        results = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(results, list) or len(results) != n_cases:
        return None
    for one in results:
        if not isinstance(one, dict) or one.keys() not in ({"value"}, {"error"}):
            return None
        if not all(isinstance(text, str) for text in one.values()):
            return None
    return results
