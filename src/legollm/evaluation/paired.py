"""Whether two ways of training differ: figures of runs that shared their seeds, and what can be said of the difference.

Two runs with the same seed read the same rows in the same order. Much of what chance does to one, it does to the other,
and it is gone from their difference. The interval is that of Student's t over the differences (Student 1908).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from legollm.evaluation.intervals import mean_interval, student


@dataclass(frozen=True)
class Difference:
    """What a variant has more than its base, seed by seed; less is better for losses."""

    mean: float
    half: float
    """Half of the 95 % interval; 0 of a single seed."""
    n: int
    """Seeds."""
    half_unpaired: float
    """Half of the interval if the runs had not shared their seeds: what pairing has won is the ratio of the two."""

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    @property
    def is_seen(self) -> bool:
        """Whether the interval leaves zero out. Of comparisons without any difference, one in twenty does so."""
        return self.n > 1 and not self.low <= 0 <= self.high

    def as_dict(self) -> dict[str, Any]:
        """All figures by name, and the verdict."""
        return asdict(self) | {"low": self.low, "high": self.high, "is_seen": self.is_seen, "verdict": str(self)}

    def __str__(self) -> str:
        """The verdict in words."""
        if self.n == 1:
            return f"{self.mean:+.4f} with one seed: nothing can be said; give more seeds"
        between = f"between {self.low:+.4f} and {self.high:+.4f}"
        if not self.is_seen:
            same = ": the same to the last bit" if self.low == self.high == 0 else ""
            return f"{between}: no difference seen with {self.n} seeds{same}"
        return f"{between}: {'lower' if self.mean < 0 else 'higher'} by {abs(self.mean):.4f}, seen with {self.n} seeds"


def paired(base: Sequence[float], variant: Sequence[float]) -> Difference:
    """The mean difference of runs that stand in the same order of seeds, at least one of each."""
    differences = [there - here for here, there in zip(base, variant, strict=True)]
    mean, half = mean_interval(differences)
    return Difference(mean, half, len(differences), _half_unpaired(base, variant))


def _half_unpaired(base: Sequence[float], variant: Sequence[float]) -> float:
    """Half of the interval for the difference of two means of as many runs each, of about equal spread."""
    n = len(base)
    if n < 2:
        return 0.0
    spread = math.sqrt((statistics.variance(base) + statistics.variance(variant)) / 2)
    return student(2 * n - 2) * spread * math.sqrt(2 / n)
