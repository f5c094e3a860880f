"""What is said of a difference: right as often as it claims, with a fake trainer whose truth is known."""

import math
import random
import statistics
from collections.abc import Callable

import pytest

from legollm.commands.compare_outcome import Outcome, RunFigures, SideOutcome, in_turns
from legollm.commands.compare_sides import Side
from legollm.commands.train import TrainRun
from legollm.evaluation.intervals import student
from legollm.evaluation.paired import Difference, paired

N_COMPARISONS = 1000
SIDES = [Side("base", TrainRun()), Side("variant", TrainRun(), {"a": "b"})]


def comparison(effect: float, rng: random.Random, n_seeds: int = 5) -> Difference:
    """A whole comparison by a trainer that draws: what a seed does to both sides, what each run has of its own."""
    luck: Callable[[float], float] = lambda size: rng.gauss(0, size)  # noqa: E731
    shared = {seed: luck(0.05) for seed in range(n_seeds)}

    def trained(side: Side, seed: int) -> RunFigures:
        return RunFigures({"loss": 2.0 + shared[seed] + luck(0.01) + effect * (side.name == "variant")})

    found = in_turns(SIDES, range(n_seeds), trained, lambda line: None)
    costs = {"swapped": {}, "matched": "", "steps": 1, "parameters": 1, "active": 1, "trained": 1}
    sides = [SideOutcome(s.name, **costs, flops_per_token=1.0, peak_bytes=1, runs=found[s.name]) for s in SIDES]
    ((name, figure, difference),) = Outcome("none", "", range(n_seeds), sides).differences()
    assert (name, figure) == ("variant", "loss")
    assert difference
    return difference


@pytest.mark.parametrize("n_seeds", [2, 5])
def test_of_comparisons_without_a_difference_one_in_twenty_shows_one(n_seeds: int) -> None:
    rng = random.Random(n_seeds)
    seen = sum(comparison(0.0, rng, n_seeds).is_seen for _ in range(N_COMPARISONS))
    chance = math.sqrt(0.05 * 0.95 * N_COMPARISONS)
    assert abs(seen - 0.05 * N_COMPARISONS) < 3.5 * chance


def test_a_planted_difference_is_found_and_lies_within_its_interval() -> None:
    rng = random.Random(1)
    found = [comparison(-0.05, rng) for _ in range(N_COMPARISONS)]
    assert sum(one.is_seen and one.mean < 0 for one in found) > 0.99 * N_COMPARISONS
    held = sum(one.low <= -0.05 <= one.high for one in found)
    assert abs(held - 0.95 * N_COMPARISONS) < 3.5 * math.sqrt(0.05 * 0.95 * N_COMPARISONS)


def test_seeds_that_are_shared_make_intervals_narrow() -> None:
    rng = random.Random(2)
    found = [comparison(0.0, rng) for _ in range(300)]
    assert statistics.median(one.half_unpaired / one.half for one in found) > 3


def test_the_interval_is_the_one_of_the_textbook() -> None:
    """Student's sleep data, 1908: ten patients, two drugs; the mean difference is 1.58, its interval 0.70 to 2.46."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired(first, second)
    assert (found.low, found.mean, found.high) == pytest.approx((0.7001, 1.58, 2.4599), abs=1e-4)
    spread = math.sqrt((statistics.variance(first) + statistics.variance(second)) / 2)
    assert found.half_unpaired == pytest.approx(2.1009 * spread * math.sqrt(2 / 10), rel=2e-3)  # t of 18 degrees


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.706), (4, 2.776), (8, 2.306), (18, 2.101), (30, 2.042), (98, 1.984)]
)
def test_students_t_is_that_of_the_tables(freedom: int, value: float) -> None:
    assert student(freedom) == pytest.approx(value, rel=2e-3)


def test_what_is_said_names_what_is_known() -> None:
    assert str(paired([1.0], [1.5])) == "+0.5000 with one seed: nothing can be said; give more seeds"
    assert not paired([1.0], [1.5]).is_seen
    assert str(paired([1.0, 2.0], [1.5, 2.0])) == "between -2.9265 and +3.4265: no difference seen with 2 seeds"
    assert str(paired([1.0, 2.0], [1.0, 2.0])).endswith("no difference seen with 2 seeds: the same to the last bit")
    assert str(paired([1.0, 2.0, 3.0], [0.5, 1.5, 2.49])).endswith("lower by 0.5033, seen with 3 seeds")
    assert str(paired([1.0, 2.0, 3.0], [1.5, 2.5, 3.51])).endswith("higher by 0.5033, seen with 3 seeds")
