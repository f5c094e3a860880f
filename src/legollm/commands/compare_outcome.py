"""What a comparison came to: figures of every run, what can be said of their differences, and what each side costs."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from legollm.commands.compare_sides import BASE, Side
from legollm.evaluation.paired import Difference, paired

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class RunFigures:
    """Of one run."""

    figures: Mapping[str, float]
    """By name, the most important first; the less the better."""
    steps: int = 0
    """Done; fewer than asked for where the run ended early."""
    seconds_per_step: float = 0.0
    curve: Points = ()
    """Million tokens read -> validation loss."""
    by_place: Points = ()
    """Place in the row -> loss, where that was asked for."""


@dataclass(frozen=True)
class SideOutcome:
    """Of all runs of one side."""

    name: str
    swapped: Mapping[str, str]
    """Key -> value, where it differs from the base."""
    matched: str
    """What was done to make its cost equal, in words."""
    steps: int
    """Of its longest run."""
    parameters: int
    active: int
    """Parameters that one token meets."""
    trained: int
    """Parameters that learn."""
    flops_per_token: float
    """Of training."""
    peak_bytes: int
    """Of tensors in a training step."""
    runs: Sequence[RunFigures] = field(default_factory=list)
    """In the order of the seeds."""


@dataclass(frozen=True)
class Outcome:
    """Of the whole comparison; the first side is the base."""

    match: str
    y_label: str
    """Of the curves."""
    seeds: Sequence[int]
    sides: Sequence[SideOutcome]

    @property
    def base(self) -> SideOutcome:
        return self.sides[0]

    def differences(self) -> list[tuple[str, str, Difference | None]]:
        """(variant, figure, difference to the base), None where only one of the two can be measured so."""
        found = []
        for side in self.sides[1:]:
            for name in dict.fromkeys(name for one in (self.base, side) for run in one.runs for name in run.figures):
                pair = [[run.figures[name] for run in one.runs if name in run.figures] for one in (self.base, side)]
                both = all(len(values) == len(self.seeds) for values in pair)
                found.append((side.name, name, paired(*pair) if both else None))
        return found

    def time_ratio(self, side: SideOutcome) -> float:
        """How long its steps take, those of the base being 1: the median over the seeds."""
        ratios = [
            there.seconds_per_step / here.seconds_per_step
            for here, there in zip(self.base.runs, side.runs, strict=True)
            if here.seconds_per_step
        ]
        return statistics.median(ratios) if ratios else 1.0

    def as_dict(self) -> dict[str, Any]:
        said = [
            {"variant": side, "figure": name} | (found.as_dict() if found else {})
            for side, name, found in self.differences()
        ]
        times = {side.name: self.time_ratio(side) for side in self.sides}
        return asdict(self) | {"step_time": times, "differences": said}


def in_turns(
    sides: Sequence[Side], seeds: Sequence[int], trained: Callable[[Side, int], RunFigures], tell: Callable[[str], None]
) -> dict[str, list[RunFigures]]:
    """Seed by seed, every side once: what is there when a comparison stops is pairs.

    trained: a side and a seed -> the figures of that run. tell: gets a line for each run.
    """
    found: dict[str, list[RunFigures]] = {side.name: [] for side in sides}
    for seed in seeds:
        for side in sides:
            run = trained(side, seed)
            name, value = next(iter(run.figures.items()))
            more = "" if side.name == BASE else f"{value - found[BASE][-1].figures[name]:+.4f}"
            tell(f"seed {seed}  {side.name:<24} {name} {value:.4f}  {more}".rstrip())
            found[side.name].append(run)
    return found
