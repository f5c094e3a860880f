"""Several sources in fixed proportions: whose row comes next follows from the weights, not from luck."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch

from legollm.data.loader import Rows, check_same


class Turns:
    """An endless sequence of 0 to k - 1 in which every number comes as often as its weight says, all along.

    After any n turns a number with the share p has come n * p times, less than one more or fewer: the chairman
    assignment (Tijdeman 1980). Two numbers keep that between any two places, more of them less than two apart there.
    Whole numbers only, so that nothing drifts.
    """

    def __init__(self, weights: Sequence[Fraction]) -> None:
        whole = math.lcm(*(weight.denominator for weight in weights))
        self.weights = [int(weight * whole) for weight in weights]
        self.total = sum(self.weights)
        common = math.lcm(*self.weights)
        self.inverse = [common // weight for weight in self.weights]
        self.taken = [0] * len(weights)
        """How often each had its turn."""

    def take(self, n: int) -> list[int]:
        return [self._next() for _ in range(n)]

    def _next(self) -> int:
        """Of those that may come without being early, the one that would be late first."""
        n, parts = sum(self.taken) + 1, max(2 * len(self.taken) - 2, 1)
        owed = [n * weight - taken * self.total for weight, taken in zip(self.weights, self.taken, strict=True)]
        ready = [i for i, debt in enumerate(owed) if debt * parts >= self.total]
        turn = min(ready, key=lambda i: ((parts - 1) * self.total - parts * owed[i]) * self.inverse[i])
        self.taken[turn] += 1
        return turn


class Mixture:
    """The rows of several sources by turns, each in its own order and shuffled in every epoch of its own."""

    def __init__(self, sources: Mapping[str, Rows], weights: Sequence[Fraction]) -> None:
        """sources: by the names they have in the log, all with rows of one kind and length."""
        self.sources, self.weights = dict(sources), list(weights)
        self.turns = Turns(weights)

    def take(self, n: int) -> list[tuple[int, Any]]:
        """The next n rows, each with the number of its source."""
        turns = self.turns.take(n)
        rows = {i: iter(s.take(turns.count(i))) for i, s in enumerate(self.sources.values()) if i in turns}
        return [(turn, next(rows[turn])) for turn in turns]

    def build(self, rows: Sequence[tuple[int, Any]]) -> Any:
        """One batch: each source reads its own rows at once, and they are put in order."""
        parts, places = [], []
        for number, source in enumerate(self.sources.values()):
            mine = [place for place, (owner, _) in enumerate(rows) if owner == number]
            if mine:
                parts.append(source.build([rows[place][1] for place in mine]))
                places += mine
        order = torch.tensor(places).argsort()
        return type(parts[0])(*(torch.cat(field)[order] for field in zip(*parts, strict=True)))

    def let_go(self) -> None:
        for source in self.sources.values():
            source.let_go()

    def state_dict(self) -> dict[str, Any]:
        """Turns each source has had, and its own place."""
        return {
            "taken": list(self.turns.taken),
            "sources": [source.state_dict() for source in self.sources.values()],
            **self._identity(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Raises:
            DataError: the state is about other weights or other sources.
        """
        check_same(state, self._identity())
        self.turns.taken = list(state["taken"])
        for source, place in zip(self.sources.values(), state["sources"], strict=True):
            source.load_state_dict(place)

    def figures(self) -> dict[str, float]:
        return self._named([source.figures() for source in self.sources.values()])

    def figures_after(self, n_rows: int) -> dict[str, float]:
        shares = [weight / self.turns.total for weight in self.turns.weights]
        pairs = zip(self.sources.values(), shares, strict=True)
        return self._named([source.figures_after(round(n_rows * share)) for source, share in pairs])

    def _named(self, figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
        pairs = zip(self.sources, figures, strict=True)
        return {f"{key}_{name}": value for name, mine in pairs for key, value in mine.items()}

    def _identity(self) -> dict[str, Any]:
        return {"weights": [str(weight) for weight in self.weights]}
