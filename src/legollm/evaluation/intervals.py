"""How sure a share is that was counted."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

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
    t = STUDENT[n - 2] if n - 2 < len(STUDENT) else Z * (1 + 1.25 / (n - 1.8))  # within 0.2 %
    return statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(n)


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
