"""Arithmetic and small logic at three levels, with the steps worked out: problems that need no story."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from legollm.data.world.draw import Draw, Split, split_of

Level = Literal[1, 2, 3]

_LARGEST = {1: 9, 2: 99, 3: 999}


@dataclass(frozen=True, slots=True)
class Sum:
    """A problem with one right answer.

    `scratch`: the steps on the way, in one line. `difficulty`: 1 for one digit, 2 for two, 3 for three. `key`: the
    operands in a canonical order, so that 3 + 5 and 5 + 3 fall on the same side of the split.
    """

    question: str
    answer: str
    scratch: str
    kind: str
    difficulty: int
    key: str

    @property
    def prompt(self) -> str:
        """All up to the answer, which follows after a space."""
        return f"Q: {self.question}\nA:"

    @property
    def text(self) -> str:
        return f"{self.prompt} {self.answer}\n"

    @property
    def worked_text(self) -> str:
        """The same with the steps before the answer."""
        return f"Q: {self.question}\nSteps: {self.scratch}\nA: {self.answer}\n"


def add(draw: Draw, level: Level) -> Sum:
    a, b = (draw.below(_LARGEST[level] + 1) for _ in range(2))
    return Sum(f"What is {a} + {b}?", str(a + b), _column_steps(a, b), "add", level, f"{min(a, b)}+{max(a, b)}")


def subtract(draw: Draw, level: Level) -> Sum:
    b, a = sorted(draw.below(_LARGEST[level] + 1) for _ in range(2))
    scratch = f"{b} + {a - b} = {a}."
    return Sum(f"What is {a} - {b}?", str(a - b), scratch, "subtract", level, f"{a}-{b}")


def multiply(draw: Draw, level: Level) -> Sum:
    """One digit times as many digits as the level says."""
    a, b = draw.below(_LARGEST[level] + 1), draw.below(10)
    parts = [int(digit) * 10**power for power, digit in enumerate(reversed(str(a)))]
    scratch = ", ".join(f"{part} * {b} = {part * b}" for part in reversed(parts)) + "."
    return Sum(f"What is {a} * {b}?", str(a * b), scratch, "multiply", level, f"{min(a, b)}*{max(a, b)}")


def larger(draw: Draw, level: Level) -> Sum:
    a, b = draw.sample(range(_LARGEST[level] + 1), 2)
    scratch = f"{max(a, b)} - {min(a, b)} = {abs(a - b)}, which is more than 0."
    return Sum(
        f"Which is larger, {a} or {b}?", str(max(a, b)), scratch, "larger", level, f"max {min(a, b)},{max(a, b)}"
    )


def order(draw: Draw, level: Level) -> Sum:
    """As many numbers as the level says, and two more, from small to large."""
    numbers = draw.sample(range(_LARGEST[level] + 1), level + 2)
    rising = sorted(numbers)
    scratch = "The smallest is " + ", then ".join(map(str, rising)) + "."
    listed, answer = ", ".join(map(str, numbers)), " ".join(map(str, rising))
    return Sum(f"Put in order: {listed}.", answer, scratch, "order-numbers", level, "order " + answer)


def parity(draw: Draw, level: Level) -> Sum:
    n = draw.below(_LARGEST[level] + 1)
    answer = "odd" if n % 2 else "even"
    return Sum(
        f"Is {n} even or odd?", answer, f"The last digit is {n % 10}, and that is {answer}.", "parity", level, f"%{n}"
    )


def letters(draw: Draw, level: Level) -> Sum:
    """The letter so many places after another in the alphabet."""
    distance = 1 + draw.below(level)
    first = draw.below(26 - distance)
    path = [chr(ord("a") + first + i) for i in range(distance + 1)]
    scratch = "The letters are " + ", ".join(path) + "."
    places = f"{distance} place{'s' if distance > 1 else ''}"
    key = f"{path[0]}+{distance}"
    return Sum(f"Which letter is {places} after {path[0]}?", path[-1], scratch, "letters", level, key)


def logic(draw: Draw, level: Level) -> Sum:
    """A chain of true and false with as many links as the level says, from left to right."""
    value = draw.chance(0.5)
    words, steps = [_truth(value)], []
    for _ in range(level):
        negated, link, other = draw.chance(0.3), draw.pick(("and", "or")), draw.chance(0.5)
        right = other != negated
        new = (value and right) if link == "and" else (value or right)
        words.append(f"{link} {'not ' if negated else ''}{_truth(other)}")
        steps.append(f"{_truth(value)} {link} {_truth(right)} is {_truth(new)}")
        value = new
    problem = " ".join(words)
    return Sum(
        f"From left to right, {problem} is what?", _truth(value), ", ".join(steps) + ".", "logic", level, problem
    )


PROBLEMS: Mapping[str, Callable[[Draw, Level], Sum]] = {
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "larger": larger,
    "order-numbers": order,
    "parity": parity,
    "letters": letters,
    "logic": logic,
}
"""By their kinds."""
LEVELS: tuple[Level, ...] = (1, 2, 3)


def sums(
    seed: int, start: int, stop: int, *, difficulty: Level | None = None, split: Split | None = None
) -> Iterator[Sum]:
    """Problems number start .. stop - 1 of `seed`, only those of one split if it is named (5 % are val)."""
    for i in range(start, stop):
        problem = draw_sum(Draw(seed, "sum", i), difficulty)
        if split is None or split_of(problem.key) == split:
            yield problem


def draw_sum(draw: Draw, difficulty: Level | None = None, kinds: Sequence[str] = tuple(PROBLEMS)) -> Sum:
    """Any problem of these kinds, of any level if `difficulty` is None."""
    level = draw.pick(LEVELS) if difficulty is None else difficulty
    return PROBLEMS[draw.pick(kinds)](draw, level)


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _column_steps(a: int, b: int) -> str:
    """Addition as it is written by hand: "7 + 5 = 12, write 2, carry 1; 1 + 2 + 1 = 4, write 4."""
    steps, carry = [], 0
    for power in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**power % 10, b // 10**power % 10
        total = x + y + carry
        carried = f" + {carry}" if carry else ""
        steps.append(f"{x} + {y}{carried} = {total}, write {total % 10}" + (", carry 1" if total > 9 else ""))
        carry = total // 10
    return "; ".join(steps) + "."
