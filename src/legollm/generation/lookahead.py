"""How many tokens to guess at once: as many as pay, by what guesses and checks cost here and how many are right."""

import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import Any

from legollm.errors import ConfigError

N_PLAIN = 2
"""Steps without guesses at the start of a batch, which tell what such a step costs."""
REFRESH_EVERY = 32
"""Rounds of guesses after which one is left out, to see again what a step costs without."""
MEMORY = 0.9
"""What an earlier round counts for, compared to the one after it, in the share of guesses that are right."""
SLOPE = 0.05
"""What one more token adds to a pass, as a part of a pass over one token, until it was measured."""
MAY_LOSE, MAY_LOSE_STEPS = 0.02, 1.5
"""Guesses may cost this part of the time, and this many steps, more than they save."""


class Lookahead:
    """Decides how many tokens are guessed in each round, and keeps count of what came of it.

    With acceptance a, a round of n guesses gives 1 + a + ... + a^n tokens (Leviathan et al. 2022, equation 1) and costs
    n guesses and a pass over n + 1 tokens. Both costs are measured as it writes, and the n is taken that gives most
    tokens per second. Where that is none, guesses are tried again as seldom as MAY_LOSE says, so that writing is not
    slower than without, but for a few percent.
    """

    def __init__(self, most: int = 4, *, adapt: bool = True) -> None:
        """most: guesses at once; without `adapt` always so many.

        Raises:
            ConfigError: not even one.
        """
        if most < 1:
            raise ConfigError(f"lookahead: found {most}; possible: 1 or more tokens")
        self.most, self.adapt = most, adapt
        self.n_right, self.n_judged = 1.5, 2.0  # before anything is known guesses are worth a try
        self.n_rows = self.n_rounds = self.n_since_plain = 0
        self.passes: dict[int, deque[float]] = {}
        self.guess_seconds: deque[float] = deque(maxlen=9)
        self.lost = self.seconds = self.worth = 0.0
        self.n_guessed = self.n_accepted = 0
        self.lengths: Counter[int] = Counter()
        self.open()

    def open(self) -> None:
        """Another batch begins: its prompt is read first, then some steps are plain."""
        self.n_rounds, self.n_rows = 0, 0
        self.passes = defaultdict(lambda: deque(maxlen=9))

    # ---- deciding -------------------------------------------------------------------------------------------------

    def n_guesses(self, n_rows: int) -> int:
        """How many tokens to guess in the round that follows, of so many rows."""
        if self.n_rounds == 0:
            return 0
        if not self.adapt:
            return self.most
        if self.n_rounds <= N_PLAIN:
            return 0
        if n_rows != self.n_rows or self.n_since_plain >= REFRESH_EVERY:
            return 0
        best = max(range(self.most + 1), key=self.tokens_per_second)
        trial = best or min(2, self.most)
        worst = trial * self.guess_cost + self.pass_cost(trial) - self.pass_cost(0)
        may_lose = MAY_LOSE * self.seconds + MAY_LOSE_STEPS * self.pass_cost(0)
        return trial if self.lost + (worst if best == 0 else 0) <= may_lose else 0

    @property
    def acceptance(self) -> float:
        """The share of judged guesses that are right, of late."""
        return self.n_right / self.n_judged

    def tokens_per_second(self, n: int) -> float:
        """Expected, of a row, with n guesses."""
        n_tokens = sum(self.acceptance**i for i in range(n + 1))
        return n_tokens / (n * self.guess_cost + self.pass_cost(n))

    @property
    def guess_cost(self) -> float:
        """Seconds for one guess; nothing, until it was measured."""
        return statistics.median(self.guess_seconds) if self.guess_seconds else 0.0

    def pass_cost(self, n: int) -> float:
        """Seconds for a pass that checks n guesses, from measured ones with as many, or else with fewer or more."""
        if self.passes[n]:
            return statistics.median(self.passes[n])
        plain = statistics.median(self.passes[0])
        known = [m for m, seen in self.passes.items() if m and seen]
        if not known:
            return plain * (1 + SLOPE * n)
        near = min(known, key=lambda m: abs(m - n))
        return plain + max(0.0, statistics.median(self.passes[near]) - plain) * n / near

    # ---- what happened --------------------------------------------------------------------------------------------

    def saw(
        self,
        guesses: Sequence[Sequence[int]],
        n_right: Sequence[int],
        guess_seconds: float,
        pass_seconds: float,
    ) -> None:
        """A round is over: the guesses for each row, how many of them were right, and the time that both took."""
        self.n_rounds += 1
        n_rows, n = len(guesses), max(map(len, guesses))
        if self.n_rounds == 1:  # it read the prompt
            return
        if n_rows != self.n_rows:
            self.passes.clear()
            self.n_rows = n_rows
        self.passes[n].append(pass_seconds)
        self.n_since_plain = self.n_since_plain + 1 if n else 0
        if n:
            self.guess_seconds.append(guess_seconds / n)
            self.judge(guesses, n_right)
        if not self.passes[0]:
            return
        plain = statistics.median(self.passes[0])
        gained = plain * (1 + sum(n_right) / n_rows)
        self.seconds += guess_seconds + pass_seconds
        self.worth += gained if n else pass_seconds
        if n or guess_seconds:
            self.lost = max(0.0, self.lost + guess_seconds + pass_seconds - gained)

    def judge(self, guesses: Sequence[Sequence[int]], n_right: Sequence[int]) -> None:
        """Count: a guess is judged where all before it were right."""
        self.n_right *= MEMORY
        self.n_judged *= MEMORY
        for ids, right in zip(guesses, n_right, strict=True):
            if ids:
                self.n_right += right
                self.n_judged += min(right + 1, len(ids))
                self.n_guessed += len(ids)
                self.n_accepted += right
                self.lengths[right] += 1

    def report(self) -> dict[str, Any]:
        """Figures of all rounds: how many guesses were accepted, in how many checks 0, 1, ... were, and the speed-up.

        speed_up: against the plain steps among them; None where there was none.
        """
        return {
            "n_guessed": self.n_guessed,
            "n_accepted": self.n_accepted,
            "acceptance": round(self.n_accepted / self.n_guessed, 4) if self.n_guessed else None,
            "accepted_lengths": [self.lengths[n] for n in range(max(self.lengths, default=-1) + 1)],
            "speed_up": round(self.worth / self.seconds, 3) if self.seconds else None,
        }
