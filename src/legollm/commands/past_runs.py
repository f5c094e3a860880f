"""What the folder of a run says about it, without loading its model."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from legollm.architectures import ARCHITECTURES, architecture
from legollm.checkpoints.adapter import base_of, is_adapter
from legollm.checkpoints.huggingface import config_from_hf
from legollm.checkpoints.manifest import steps
from legollm.checkpoints.reader import read_json
from legollm.commands.run_folder import saved_config
from legollm.commands.run_lock import is_locked
from legollm.device import without_memory
from legollm.errors import CheckpointError, ConfigError
from legollm.training.metrics import read_rows

log = logging.getLogger(__name__)

State = Literal["running", "done", "stopped", "diverged"]
NOT_RUNS = ("checkpoints", "data")
"""Folders within a run that hold no other runs."""
NO_SETTINGS = ("run", "resume")
"""Keys of a configuration that change nothing about what is trained."""


@dataclass(frozen=True)
class PastRun:
    """A run as its folder tells it. None is what the folder does not say."""

    folder: Path
    state: State
    """running: a process is at work in the folder; diverged: `diverged.json` is there; stopped: there is more to do."""
    config: Mapping[str, Any]
    """Every setting, by its dotted key."""
    rows: Sequence[Mapping[str, Any]]
    """metrics.jsonl."""
    arch: str | None
    n_parameters: int | None

    @property
    def step(self) -> int:
        return max((int(row["step"]) for row in self.rows), default=0)

    @property
    def n_tokens(self) -> int:
        return int(max((row["tokens"] for row in self.rows if "tokens" in row), default=0))

    @property
    def seconds(self) -> float:
        """Of training, evaluation and saving left out: what the logged speeds amount to."""
        total, before = 0.0, 0.0
        for row in self.rows:
            if row.get("tokens_per_s") and "tokens" in row:
                total += (row["tokens"] - before) / row["tokens_per_s"]
                before = row["tokens"]
        return total

    @property
    def best(self) -> Mapping[str, Any]:
        """The row with the lowest validation loss, empty if there is none."""
        looks = [row for row in self.rows if is_number(row.get("val_loss"))]
        return min(looks, key=lambda row: float(row["val_loss"]), default={})

    def figures(self) -> dict[str, Any]:
        """A row of the table."""
        seconds = self.seconds
        return {
            "run": str(self.folder),
            "state": self.state,
            "arch": self.arch,
            "parameters": self.n_parameters,
            "steps": self.step,
            "max_steps": self.config.get("train.max_steps"),
            "tokens": self.n_tokens,
            "val_loss": self.best.get("val_loss"),
            "val_bpb": self.best.get("val_bpb"),
            "seconds": round(seconds, 3),
            "tokens_per_s": self.n_tokens / seconds if seconds else None,
        }

    def curve(self, key: str) -> list[tuple[float, float]]:
        """Millions of tokens read -> the figure of that name, wherever it was logged and is a number."""
        known = (row["tokens"] / max(row["step"], 1) for row in self.rows if "tokens" in row)
        points, per_step = [], next(known, 0.0)  # a look may come before the first row that tells
        for row in self.rows:
            if "tokens" in row:
                per_step = row["tokens"] / max(row["step"], 1)
            if is_number(row.get(key)):  # a look at the validation set does not say how many tokens were read
                points.append((per_step * row["step"] / 1e6, float(row[key])))
        return points


def is_number(value: Any) -> bool:
    """What is not finite stands as text in the file."""
    return isinstance(value, int | float) and math.isfinite(value)


def is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and any(
        (folder / name).exists() for name in ("metrics.jsonl", "checkpoints")
    )


def runs_below(folder: Path) -> Iterator[Path]:
    """The folder if it is a run, and all runs within, by name."""
    if is_run(folder):
        yield folder
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink() and child.name not in NOT_RUNS and child.name[0] != ".":
            yield from runs_below(child)


def read_run(folder: Path) -> PastRun:
    """
    Raises:
        ConfigError: its config.yaml is no configuration any more.
    """
    config = saved_config(folder / "config.yaml")
    rows = [row for row in read_rows(folder / "metrics.jsonl") if isinstance(row, dict) and "step" in row]
    arch, n_parameters = model_of(folder)
    arch = arch or config.get("model.arch")
    return PastRun(folder, state_of(folder, config, rows, arch), config, rows, arch, n_parameters)


def state_of(folder: Path, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], arch: str | None) -> State:
    if is_locked(folder):
        return "running"
    if (folder / "diverged.json").exists():
        return "diverged"
    step = max([*steps(folder / "checkpoints"), *(row["step"] for row in rows), 0])
    row = ARCHITECTURES.get(arch or "")
    return (
        "done"
        if step >= (1 if row and row.learns == "counts" else config.get("train.max_steps", math.inf))
        else "stopped"
    )


def model_of(folder: Path) -> tuple[str | None, int | None]:
    """The architecture and the number of parameters that a run's newest checkpoint names, built without memory.

    Of adapters, those of their base.
    """
    try:
        newest = folder / "checkpoint"
        arch, cfg = config_from_hf(read_json((base_of(newest) if is_adapter(newest) else newest) / "config.json"))
        with without_memory():
            model = architecture(arch).build(cfg)
    except (CheckpointError, ConfigError) as error:  # no checkpoint yet, or bricks that are not imported unasked
        log.debug("%s: %s", folder, error)
        return None, None
    return arch, sum(parameter.numel() for parameter in model.parameters())


def differences(runs: Sequence[PastRun]) -> dict[str, list[str]]:
    """The settings in which runs differ: dotted key -> its value in each run, as JSON; - for a run without that key."""
    keys = dict.fromkeys(key for run in runs for key in run.config if key not in NO_SETTINGS)
    table = {key: [json.dumps(run.config[key]) if key in run.config else "-" for run in runs] for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}
