"""The learning rate at every step against a closed form written down a second time."""

import math
from itertools import pairwise
from typing import get_args

import pytest

from legollm.errors import ConfigError
from legollm.training.schedule import Schedule, learning_rate

PEAK, MAX_STEPS = 3e-3, 57
SCHEDULES = get_args(Schedule)


def rate(step: int, schedule: Schedule, *, warmup: int = 0, floor: float = 0.0, decay: float = 0.2) -> float:
    return learning_rate(
        step,
        peak=PEAK,
        max_steps=MAX_STEPS,
        schedule=schedule,
        warmup_steps=warmup,
        min_ratio=floor,
        decay_fraction=decay,
    )


def closed_form(step: int, schedule: Schedule, warmup: int, floor: float, decay: float) -> float:
    """The curves as one would draw them: corners first, then what lies between."""
    low = floor * PEAK
    if step < warmup:
        return (step + 1) * PEAK / (warmup + 1)
    if schedule == "constant":
        return PEAK
    if schedule == "cosine":
        angle = math.pi * (step - warmup) / (MAX_STEPS - warmup)
        return low + (PEAK - low) * (1 + math.cos(angle)) / 2
    corner = warmup if schedule == "linear" else max(warmup, MAX_STEPS - math.ceil(decay * MAX_STEPS))
    if step <= corner:
        return PEAK
    return PEAK + (low - PEAK) * (step - corner) / (MAX_STEPS - corner)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, 10, MAX_STEPS - 1])
@pytest.mark.parametrize(("floor", "decay"), [(0.0, 0.2), (0.1, 0.5), (1.0, 1.0), (0.25, 0.0)])
def test_every_step_has_the_closed_form(schedule: Schedule, warmup: int, floor: float, decay: float) -> None:
    for step in range(MAX_STEPS):
        expected = closed_form(step, schedule, warmup, floor, decay)
        assert rate(step, schedule, warmup=warmup, floor=floor, decay=decay) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_starts_above_zero_and_meets_the_peak(schedule: Schedule) -> None:
    rates = [rate(step, schedule, warmup=10) for step in range(11)]
    assert rates[0] > 0
    assert rates[10] == PEAK
    assert all(b - a == pytest.approx(PEAK / 11) for a, b in pairwise(rates))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_the_floor_is_reached_after_the_last_step_and_never_undercut(schedule: Schedule) -> None:
    rates = [rate(step, schedule, warmup=5, floor=0.1) for step in range(MAX_STEPS)]
    assert min(rates) > 0.1 * PEAK
    for after in (MAX_STEPS, MAX_STEPS + 100):
        assert rate(after, schedule, warmup=5, floor=0.1) == pytest.approx(0.1 * PEAK, rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_jumps(schedule: Schedule) -> None:
    """One step changes the rate by no more than the steepest of its slopes."""
    steepest = max(PEAK / 11, math.pi / 2 * PEAK / (MAX_STEPS - 10), PEAK / math.ceil(0.2 * MAX_STEPS))
    rates = [rate(step, schedule, warmup=10) for step in range(MAX_STEPS + 1)]
    assert max(abs(b - a) for a, b in pairwise(rates)) <= steepest * (1 + 1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_longer_than_the_run(schedule: Schedule) -> None:
    assert rate(MAX_STEPS - 1, schedule, warmup=2 * MAX_STEPS) == pytest.approx(PEAK * MAX_STEPS / (2 * MAX_STEPS + 1))


def test_an_unknown_schedule_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'cosin' is none of cosine, linear, constant, wsd"):
        rate(0, "cosin")  # type: ignore[arg-type]
