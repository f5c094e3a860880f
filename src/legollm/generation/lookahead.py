"""How many tokens to guess at once: as many as pay, by what guesses and checks cost here and how many are right."""

import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import Any

N_PLAIN = 2
"""Steps without guesses at the start of a batch, which tell what such a step costs."""
REFRESH_EVERY = 32
"""Rounds of guesses after which one is left out, to see again what a step costs without."""
MEMORY = 0.9
"""What an earlier round counts for, compared to the one after it, in the share of guesses that are right."""
SLOPE = 0.05
"""What one more token adds to a pass, as a part of a pass over one token, until it was measured."""
MAY_LOSE, MAY_LOSE_STEPS = 0.01, 0.7
"""Guesses may cost this part of the time, and of a step, more than they save."""
MAY_SAVE = 0.05
"""What they have saved beyond this part of the time cannot be lost again."""


class Lookahead:
    """Decides how many tokens are guessed in each round, and keeps count of what came of it.

    With acceptance a, a round of n guesses gives 1 + a + ... + a^n tokens (Leviathan et al. 2022, equation 1) and costs
    n guesses and a pass over n + 1 tokens. Both costs are measured as it writes, and the n is taken that gives most
    tokens per second. Where that is none, guesses are tried again as seldom as MAY_LOSE says, so that writing is not
    slower than without, but for a few percent.
    """

    def __init__(self, most: int, *, adapt: bool) -> None:
        """most: guesses at once; without `adapt` always so many."""
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
        self.n_rounds, self.n_rows, self.is_first = 0, 0, True
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
        may_lose = MAY_LOSE * self.seconds + MAY_LOSE_STEPS * self.pass_cost(0) - self.lost
        tried = max((n for n, seen in self.passes.items() if seen), default=0)
        open_to = [n for n in range(1, min(self.most, 2 * tried or 1) + 1) if self.cost(n) - self.cost(0) <= may_lose]
        best = max([0, *open_to], key=lambda n: self.n_tokens(n) / self.cost(n))
        return best or min(open_to, default=0)  # what does not pay is tried all the same, as seldom as may_lose allows

    @property
    def acceptance(self) -> float:
        """The share of judged guesses that are right, of late."""
        return self.n_right / self.n_judged

    def n_tokens(self, n: int) -> float:
        """Expected of a row in a round of n guesses."""
        return sum(self.acceptance**i for i in range(n + 1))

    def cost(self, n: int) -> float:
        """Seconds of a round of n guesses; a guess costs nothing until it was measured."""
        guess = statistics.median(self.guess_seconds) if self.guess_seconds else 0.0
        return n * guess + self.pass_cost(n)

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
        if n and self.is_first:  # the draft read the prompt, which says nothing about later guesses
            self.is_first, guess_seconds = False, 0.0
        elif n:
            self.guess_seconds.append(guess_seconds / n)
        if n:
            self.judge(guesses, n_right)
        if not self.passes[0]:
            return
        gained = statistics.median(self.passes[0]) * (1 + sum(n_right) / n_rows)
        self.seconds += guess_seconds + pass_seconds
        self.worth += gained if n else pass_seconds
        if n or guess_seconds:
            self.lost = max(-MAY_SAVE * self.seconds, self.lost + guess_seconds + pass_seconds - gained)

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

    def __str__(self) -> str:
        """The report as a line."""
        about = self.report()
        if not self.n_guessed:
            return "guesses: none, because they do not pay here"
        lengths = " ".join(f"{n}:{times}" for n, times in enumerate(about["accepted_lengths"]))
        faster = "" if about["speed_up"] is None else f"; {about['speed_up']:.2f}x as fast as plain steps"
        return (
            f"guesses: {self.n_accepted} of {self.n_guessed} accepted ({100 * about['acceptance']:.0f} %), "
            f"accepted:times {lengths}{faster}"
        )
