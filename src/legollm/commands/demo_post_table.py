"""What the stages of `legollm demo post` came to, over its seeds: a row, the table, the page."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

from legollm.evaluation.intervals import mean_interval
from legollm.evaluation.report import Chart, Curve, Section
from legollm.training.metrics import read_rows


@dataclass(frozen=True)
class Row:
    """What one stage came to, of one seed."""

    stage: str
    right: float | None = None
    """The share of held-out questions, 0 to 1."""
    seconds: float = 0.0
    more: str = ""
    """Figures of this stage alone."""


def show(table: Sequence[Sequence[Row]]) -> None:
    """The table so far: mean and half of the interval over the seeds."""
    print(f"\n  {'held-out questions':36}{'right':>15}{'minutes':>9}")
    for name, right, minutes, more in summary(table):
        print(f"  {name:36}{right:>15}{minutes:>9}  {more}", flush=True)


def summary(table: Sequence[Sequence[Row]]) -> list[tuple[str, str, str, str]]:
    rows = []
    for same in zip(*table, strict=True):
        right = spelled([row.right for row in same if row.right is not None])
        minutes = statistics.mean(row.seconds for row in same) / 60
        rows.append((same[0].stage, right, f"{minutes:.1f}" if minutes else "", same[-1].more))
    return rows


def spelled(shares: Sequence[float]) -> str:
    """Mean and half of the 95 % interval over seeds."""
    if not shares:
        return ""
    mean, half = mean_interval(shares)
    return f"{mean:.1%}" + (f" +- {100 * half:.1f}" if len(shares) > 1 else "")


def sections(run: Path, first_seed: int, n_questions: int, table: Sequence[Sequence[Row]]) -> list[Section]:
    """The page: the table, and how held-out accuracy went. first_seed: that of the first rows of the table."""
    found = [
        Section(
            "What each stage came to",
            f"The share of {n_questions} held-out questions about stories, of as many additions, and of as many "
            f"about numbers, that is answered right: mean over {len(table)} seeds, with its 95 % interval.",
            header=("stage", "right", "minutes", "the last seed"),
            rows=summary(table),
        )
    ]
    found += [
        Section(
            name, chart=Chart("held-out sums answered right", "step", "share", list(starmap(Curve, curves.items())))
        )
        for name, curves in accuracy_curves(run, first_seed, len(table)).items()
    ]
    return found


def accuracy_curves(run: Path, first_seed: int, n_seeds: int) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Of each stage that learns from rewards, of each seed: held-out accuracy by step."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name in ("sums-grpo", "sums-ppo"):
        for seed in range(first_seed, first_seed + n_seeds):
            rows = read_rows(run / str(seed) / name / "metrics.jsonl")
            points = [(float(row["step"]), float(row["val_accuracy"])) for row in rows if "val_accuracy" in row]
            found.setdefault(name, {})[f"seed {seed}"] = points
    return found
