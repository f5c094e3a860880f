"""Prompts with an answer that a program can check: what reinforcement learning is fed."""

from collections.abc import Iterator
from dataclasses import dataclass

from legollm.data.world.draw import Draw, Split, split_of
from legollm.data.world.questions import Question, draw_question
from legollm.data.world.sums import Sum, draw_sum


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, its answer, and the name of the verifier that accepts it.

    Those of the world name "number", which compares values, or "exact", which compares texts; `key` decides the split.
    """

    prompt: str
    answer: str
    verifier: str
    key: str


def tasks(seed: int, start: int, stop: int, *, split: Split | None = None) -> Iterator[Task]:
    """Tasks number start .. stop - 1 of `seed`, half of them sums, only those of one split if it is named."""
    for problem in problems(seed, start, stop, split=split):
        verifier = "number" if problem.answer.isdecimal() else "exact"
        yield Task(problem.prompt, problem.answer, verifier, problem.key)


def problems(seed: int, start: int, stop: int, *, split: Split | None = None) -> Iterator[Question | Sum]:
    """What those tasks are about."""
    for i in range(start, stop):
        draw = Draw(seed, "task", i)
        problem = draw_sum(draw) if draw.chance(0.5) else draw_question(draw)
        if split is None or split_of(problem.key) == split:
            yield problem
