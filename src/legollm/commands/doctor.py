"""`legollm doctor sandbox`: what this machine can fence in code with that a model wrote, and what a run costs."""

import json
import statistics
import time
from dataclasses import dataclass

from legollm.config import Resolved
from legollm.errors import ConfigError
from legollm.verifiers.sandbox import NEEDED, RINGS, level, missing_rings, run_code

LEVELS = {
    "full": "all rings: code is run, and may write into a small file system of its own",
    "fenced": "no namespaces: code is run, and nothing can be written",
    "none": "code is not run, unless sandbox.allow_unsandboxed_code=true says so",
}


@dataclass(frozen=True, kw_only=True)
class SandboxReport:
    """How to look."""

    runs: int = 20
    """Runs to take the time of; 0 takes none."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if self.runs < 0:
            raise ConfigError(f"runs: must be at least 0, found {self.runs}")


def sandbox(run: Resolved[SandboxReport]) -> None:
    """Which rings of the sandbox the kernel gives, and how long the shortest code takes in it.

    legollm doctor sandbox
    """
    cfg = run.value
    missing, found = missing_rings(), level()
    times = [timed() for _ in range(cfg.runs)] if found != "none" else []
    ms = {"median": statistics.median(times), "max": max(times)} if times else None
    if cfg.json:
        print(json.dumps({"level": found, "missing": missing, "ms": ms}, indent=1))
        return
    print(f"level       {found}: {LEVELS[found]}")
    for ring in RINGS:
        needed = ", which is needed" if ring in NEEDED else ""
        print(f"{ring:<12}{f'missing{needed}: {missing[ring]}' if ring in missing else 'yes'}")
    if ms:
        print(f"one run     {ms['median']:.0f} ms (median of {cfg.runs}, at most {ms['max']:.0f} ms)")


def timed() -> float:
    """Milliseconds for code that does nothing, from the call to its result."""
    start = time.perf_counter()
    run_code("", ["1"])
    return 1000 * (time.perf_counter() - start)
