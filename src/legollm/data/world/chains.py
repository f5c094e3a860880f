"""Problems with their steps, one of which may be wrong: what a verifier of steps is trained on."""

import re
from collections.abc import Iterator
from string import ascii_lowercase
from typing import NamedTuple

from legollm.data.world.draw import Draw, Split, split_of
from legollm.data.world.sums import LEVELS, Sum, draw_sum

KINDS = ("add", "letters", "logic")
"""Sums whose steps can be spoiled so that they still look like steps."""
_TRUTH = re.compile(r"(true|false)(\.?)$")
_LETTER = re.compile(r"\b([a-z])(\.?)$")
_TOTAL = re.compile(r"= (\d+), write.*")


class Chain(NamedTuple):
    """A question, and an answer in steps."""

    question: str
    steps: tuple[str, ...]
    """The last one is the answer itself."""
    labels: tuple[bool | None, ...]
    """Of each step whether it is right; None after the first wrong one, where right no longer means anything."""
    key: str
    """Decides the split, as that of the problem does."""


def chains(seed: int, start: int, stop: int, *, split: Split | None = None) -> Iterator[Chain]:
    """Chains number start .. stop - 1 of `seed`; in half of them one step is wrong, each step as often as another."""
    for i in range(start, stop):
        draw = Draw(seed, "chain", i)
        problem = draw_sum(draw, draw.pick(LEVELS), KINDS)
        if split is None or split_of(problem.key) == split:
            yield chain_of(problem, draw)


def chain_of(problem: Sum, draw: Draw) -> Chain:
    """The steps of a problem, with a wrong one by a chance of one half."""
    between = "; " if problem.kind == "add" else ", "
    steps = [*problem.scratch.removesuffix(".").split(between), f"The answer is {problem.answer}."]
    n_right = draw.below(len(steps)) if draw.chance(0.5) else len(steps)
    if n_right < len(steps):
        steps[n_right] = spoiled(steps[n_right], draw)
    labels = [True] * n_right + [False] + [None] * len(steps)
    return Chain(problem.question, tuple(steps), tuple(labels[: len(steps)]), problem.key)


def spoiled(step: str, draw: Draw) -> str:
    """The same step with another result, which is worked out from there as a right one would be."""
    if found := _TRUTH.search(step):
        return step[: found.start()] + ("false" if found[1] == "true" else "true") + found[2]
    if found := _TOTAL.search(step):
        total = another(int(found[1]), 20, draw)
        return f"{step[: found.start()]}= {total}, write {total % 10}" + (", carry 1" if total > 9 else "")
    if found := _LETTER.search(step):
        return step[: found.start()] + draw.pick([one for one in ascii_lowercase if one != found[1]]) + found[2]
    answer = int(step.removeprefix("The answer is ").removesuffix("."))
    return f"The answer is {another(answer, answer + 12, draw)}."


def another(number: int, stop: int, draw: Draw) -> int:
    """A number below `stop` that differs by 1 to 11."""
    return draw.pick([n for n in range(max(0, number - 11), min(stop, number + 12)) if n != number])
