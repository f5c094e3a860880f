"""Numbers of a run for a program that draws them: TensorBoard, Weights & Biases, trackio.

These are other people's programs, some with a network behind them. They work in a thread of their own and may fail or
hang as they like: the run goes on, and the same numbers are in metrics.jsonl.
"""

import contextlib
import importlib
import importlib.util
import logging
import math
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from legollm.errors import ConfigError

log = logging.getLogger(__name__)

TrackerName = Literal["tensorboard", "wandb", "trackio"]
Values = Mapping[str, float | str]
CLOSING_S = 20.0
"""How long the end of a run waits for a tracker to send what is left."""
MAX_WAITING = 10_000
"""Rows that wait for a tracker; what comes beyond that is left out."""
PROJECT = "legollm"


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a run at its start."""

    folder: Path
    config: Mapping[str, Any]
    """The run's settings by dotted key."""
    step: int
    """The one the run continues from, 0 at its start."""
    run_id: str
    """What tells this run from others of its name, the same when it goes on."""


class Tracker(Protocol):
    """Another program's run."""

    def write(self, step: int, values: Values) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, run: Tracked) -> None:
        module: Any = importlib.import_module("torch.utils.tensorboard")
        self.writer = module.SummaryWriter(run.folder / "tensorboard", purge_step=run.step + 1 if run.step else None)
        if not run.step:
            self.writer.add_text("config", "".join(f"    {key}: {value}\n" for key, value in run.config.items()), 0)

    def write(self, step: int, values: Values) -> None:
        for key, value in values.items():
            (self.writer.add_text if isinstance(value, str) else self.writer.add_scalar)(key, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class OneRun:
    """A run of wandb or trackio, which are spoken to alike."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def write(self, step: int, values: Values) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


def wandb(run: Tracked) -> Tracker:
    """Of Weights & Biases; WANDB_MODE=offline keeps it in the run's folder."""
    module: Any = importlib.import_module("wandb")
    quiet = module.Settings(silent=True, console="off")
    same = {"project": PROJECT, "name": run.folder.name, "config": dict(run.config), "resume": "allow"}
    return OneRun(module.init(**same, id=run.run_id, dir=run.folder, settings=quiet))


def trackio(run: Tracked) -> Tracker:
    """Of trackio, whose database is on this machine; it knows runs by their names."""
    module: Any = importlib.import_module("trackio")
    name = f"{run.folder.name}-{run.run_id}"
    return OneRun(module.init(project=PROJECT, name=name, config=dict(run.config), resume="allow", embed=False))


TRACKERS: dict[str, Callable[[Tracked], Tracker]] = {"tensorboard": TensorBoard, "wandb": wandb, "trackio": trackio}
"""Each also is the name of the package it needs."""


def own_id(folder: Path, step: int) -> str:
    """The run_id of the run in a folder: a new one at its start."""
    path = folder / "track-id"
    if step and path.exists():
        return path.read_text(encoding="utf-8")
    new = secrets.token_hex(4)
    with contextlib.suppress(OSError):  # a full disk: the continuation will be a run of its own
        path.write_text(new, encoding="utf-8")
    return new


def check_installed(names: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: a tracker whose package is not there.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"train.track: {name} is not installed; pip install {name}, or leave it out")


class Aside:
    """A tracker in a thread of its own: what goes wrong there is one warning, and then it is silent."""

    def __init__(self, name: str, open_tracker: Callable[[], Tracker]) -> None:
        self.name, self.open_tracker = name, open_tracker
        self.rows: queue.Queue[tuple[int, Values] | None] = queue.Queue(MAX_WAITING)
        self.is_silent = False
        self.thread = threading.Thread(target=self.work, name=f"track-{name}", daemon=True)  # may hang: not waited for
        self.thread.start()

    def work(self) -> None:
        try:
            tracker = self.open_tracker()
            while (row := self.rows.get()) is not None:
                tracker.write(*row)
            tracker.close()
        except Exception as error:  # whatever another program raises, no run ends of it
            self.give_up(f"{type(error).__name__}: {error}")

    def give_up(self, why: str) -> None:
        if not self.is_silent:
            log.warning("train.track: %s gets no more numbers (%s); training goes on", self.name, " ".join(why.split()))
        self.is_silent = True

    def put(self, row: tuple[int, Values] | None) -> None:
        if self.is_silent:
            return
        try:
            self.rows.put_nowait(row)
        except queue.Full:
            self.give_up(f"{MAX_WAITING:,} rows wait for it")

    def close(self) -> None:
        self.put(None)
        if not self.is_silent:
            self.thread.join(CLOSING_S)
        if self.thread.is_alive():
            self.give_up(f"not done {CLOSING_S:.0f} s after the end of the run")


@contextlib.contextmanager
def tracking(
    names: Sequence[str], folder: Path, config: Mapping[str, Any], step: int
) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
    """A function that takes each row of metrics for the trackers of these names; the others are those of `Tracked`."""
    told = Tracked(folder, config, step, own_id(folder, step) if names else "")
    sides = [Aside(name, partial(TRACKERS[name], told)) for name in names]

    def track(at: int, values: Mapping[str, Any]) -> None:
        row = dict(plain(values))
        for side in sides:
            side.put((at, row))

    try:
        yield track
    finally:
        for side in sides:
            side.close()


def plain(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | str]]:
    """Names and values without nesting, `layers/blocks.0/grad_norm`; numbers that are not finite are left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from plain(value, f"{prefix}{key}/")
        elif isinstance(value, str) or math.isfinite(value):
            yield prefix + key, value
