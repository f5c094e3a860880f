"""Prompts with an answer that a program can check: what reinforcement learning is fed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from legollm.data.world.draw import Draw, Split, split_of
from legollm.data.world.questions import draw_question
from legollm.data.world.sums import draw_sum


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, its answer, and the verifier that accepts it: "number" compares values, "exact" compares texts."""

    prompt: str
    answer: str
    verifier: Literal["exact", "number"]
    key: str


def tasks(seed: int, start: int, stop: int, *, split: Split | None = None) -> Iterator[Task]:
    """Tasks number start .. stop - 1 of `seed`, half of them sums, only those of one split if it is named."""
    for i in range(start, stop):
        draw = Draw(seed, "task", i)
        problem = draw_sum(draw) if draw.chance(0.5) else draw_question(draw)
        if split is None or split_of(problem.key) == split:
            verifier: Literal["exact", "number"] = "number" if problem.answer.isdecimal() else "exact"
            yield Task(problem.prompt, problem.answer, verifier, problem.key)
