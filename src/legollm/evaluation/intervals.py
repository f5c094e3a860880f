"""How sure a share is that was counted."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z = 1.959964  # of the normal distribution, 95 % lie within


class Share(NamedTuple):
    """So many of so many, with the interval that holds the true share in 95 of 100 cases."""

    n_right: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.n_right / self.n if self.n else 0.0

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.n_right} of {self.n}; 95 % interval {self.low:.1%} to {self.high:.1%})"


def share(n_right: int, n: int) -> Share:
    """Wilson's score interval (Wilson 1927), which is right also for few and for extreme shares."""
    if n == 0:
        return Share(0, 0, 0.0, 1.0)
    p = n_right / n
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return Share(n_right, n, max(0.0, middle - half), min(1.0, middle + half))


STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Of Student's t with 1, 2, ... degrees of freedom, 95 % lie within."""


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of a few repeated measurements, and half of its 95 % interval (Student 1908); of one, 0."""
    n = len(values)
    if n < 2:
        return statistics.fmean(values), 0.0
    return statistics.fmean(values), student(n - 1) * statistics.stdev(values) / math.sqrt(n)


def student(freedom: int) -> float:
    """Of Student's t with so many degrees of freedom, 95 % lie within."""
    return STUDENT[freedom - 1] if freedom <= len(STUDENT) else Z * (1 + 1.25 / (freedom - 0.8))  # within 0.2 %


def ratio_interval(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """The sum of all sums over the sum of all counts, and half of its 95 % interval.

    sums, counts: of each document or window. They are what is drawn at random, so they vary and not their tokens, which
    are alike within one (the ratio estimator of cluster samples, Cochran 1977). Of fewer than two, 0.
    """
    n, total = len(counts), sum(counts)
    ratio = math.fsum(sums) / max(1, total)
    if n < 2:
        return ratio, 0.0
    off = math.fsum((one - ratio * count) ** 2 for one, count in zip(sums, counts, strict=True))
    return ratio, Z * math.sqrt(off * n / (n - 1)) / total


def bootstrap_interval(values: Sequence[float], *, seed: int = 0, n_draws: int = 2000) -> tuple[float, float]:
    """Where the mean lies in 95 of 100 samples that are drawn from the values, with replacement (Efron 1979)."""
    rng, mine = np.random.default_rng(seed), np.asarray(values, np.float64)
    means = [mine[rng.integers(len(mine), size=len(mine))].mean() for _ in range(n_draws)]
    low, high = np.percentile(means, (2.5, 97.5)).tolist()
    return low, high


class Estimate(NamedTuple):
    """A mean with the interval that holds the true one in 95 of 100 cases."""

    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of some values from 0 to 1: Wilson's interval where all are 0 or 1, otherwise by bootstrap."""
    if all(value in (0, 1) for value in values):
        found = share(sum(value == 1 for value in values), len(values))
        return Estimate(found.n, found.value, found.low, found.high)
    return Estimate(len(values), statistics.fmean(values), *bootstrap_interval(values))


def auc(scores: list[float], is_right: list[bool]) -> float:
    """The chance that a right answer has a higher score than a wrong one, ties counting half; 0.5 if one is missing."""
    ranked = sorted(zip(scores, is_right, strict=True))
    n_right = sum(is_right)
    n_wrong = len(is_right) - n_right
    if not n_right or not n_wrong:
        return 0.5
    wins, below, i = 0.0, 0, 0
    while i < len(ranked):
        j = i
        while j < len(ranked) and ranked[j][0] == ranked[i][0]:
            j += 1
        right = sum(one for _, one in ranked[i:j])
        wins += right * (below + (j - i - right) / 2)
        below += j - i - right
        i = j
    return wins / (n_right * n_wrong)
