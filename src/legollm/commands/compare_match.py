"""Variants made equal to their base in what they may cost: parameters, arithmetic or time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Literal

from legollm.commands.calibrate import Part, measured, seq_len_of
from legollm.commands.compare_sides import Side
from legollm.commands.plan import built
from legollm.commands.train import TrainRun
from legollm.device import pick_device, pick_precision, without_memory
from legollm.errors import ConfigError
from legollm.evaluation.cost import cost_of

Match = Literal["none", "params", "flops", "time"]
TURNS = 3
"""How often each side's steps are timed, in turns."""
SECONDS = 2.0
"""That each turn may take."""
WIDEST = 8
"""How many times its value the free width may become."""


@dataclass(frozen=True)
class Matched:
    """What is changed in a side to make it equal."""

    said: str = ""
    """In one line; empty where nothing was asked for."""
    key: str = ""
    """The width or the number of steps; empty where it is equal as it is."""
    value: int = 0

    def applied(self, run: TrainRun) -> TrainRun:
        room, _, field = self.key.partition(".")
        return replace(run, **{room: replace(getattr(run, room), **{field: self.value})}) if self.key else run


def n_parameters(run: TrainRun) -> float:
    with without_memory():
        return float(sum(parameter.numel() for parameter in built(run).parameters()))


def flops_per_token(run: TrainRun) -> float:
    """Of training, forward and backward."""
    return cost_of(partial(built, run), seq_len_of(run)).training_flops / seq_len_of(run)


def of_equal_cost(base: TrainRun, side: Side, match: Match, by: str) -> Matched:
    """Another width of the side, or another number of its steps, so that it costs what the base does.

    by: the free width, `model.d_ff`.

    Raises:
        ConfigError: the width is no number of the model, or the swap decides it.
    """
    if match == "none" or side.run is base:
        return Matched()
    if match == "time":
        return as_long(base, side)
    of, unit = (n_parameters, "parameters") if match == "params" else (flops_per_token, "FLOPs per token")
    goal, before = of(base), of(side.run)
    if before == goal:
        return Matched(f"{before:,.0f} {unit} as it is")
    room, _, field = by.partition(".")
    value = getattr(side.run.model, field, None) if room == "model" else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"match_by: {by} is no width of a {side.run.model.arch}; give one, such as model.d_ff")
    if by in side.swapped:
        raise ConfigError(f"match_by: {by} is what {side.name} swaps; give another width, or match=none")

    def cost(n: int) -> float:
        return of(Matched(key=by, value=n).applied(side.run))

    best = nearest(cost, goal, widths(side.run.model, field))
    off = cost(best) / goal - 1
    return Matched(f"{by} {value} -> {best}: {cost(best):,.0f} {unit}, {off:+.2%} of the base's", by, best)


def widths(model: Any, field: str) -> list[int]:
    """Those that the model can have: heads have to divide a width of theirs."""

    def can_be(n: int) -> bool:
        try:
            replace(model, **{field: n})
        except ConfigError:
            return False
        return True

    return [n for n in range(1, WIDEST * getattr(model, field) + 1) if can_be(n)]


def nearest(cost: Callable[[int], float], goal: float, choices: list[int]) -> int:
    """The choice whose cost is nearest to the goal; costs grow along the choices."""
    low, high = 0, len(choices) - 1
    while low < high:  # the first choice that costs at least the goal
        middle = (low + high) // 2
        low, high = (middle + 1, high) if cost(choices[middle]) < goal else (low, middle)
    return min(choices[max(0, low - 1) : low + 1], key=lambda n: abs(cost(n) - goal))


def as_long(base: TrainRun, side: Side) -> Matched:
    """As many steps as take the base's time on this machine now, measured in turns.

    Raises:
        ConfigError: adapters or frozen parts.
    """
    if any(run.lora.rank or run.freeze for run in (base, side.run)):
        raise ConfigError("match: time is measured of models whose weights all learn; give match=none")
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(TURNS):
        for is_base, run in ((True, base), (False, side.run)):
            precision = pick_precision(run.train.precision, pick_device(run.train.device))
            whole = Part(run.model, run.train.batch_size, run.train.grad_accum)
            times[is_base].append(measured(run, whole, precision, SECONDS)[0].step)
    ratio = median(times[False]) / median(times[True])
    steps = max(1, round(base.train.max_steps / ratio))
    said = f"a step takes {ratio:.2f} times as long here: {steps:,} steps for {base.train.max_steps:,}"
    return Matched(said, "train.max_steps", steps)
