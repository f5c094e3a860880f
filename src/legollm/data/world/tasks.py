"""Prompts with an answer that a program can check: what reinforcement learning is fed."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from legollm.data.world.draw import Draw, Split, split_of
from legollm.data.world.questions import KINDS, Question, draw_question
from legollm.data.world.sums import LEVELS, PROBLEMS, Sum, draw_sum
from legollm.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, its answer, and the name of the verifier that accepts it.

    Those of the world name "number", which compares values, or "exact", which compares texts; `key` decides the split.
    """

    prompt: str
    answer: str
    verifier: str
    key: str


def tasks(
    seed: int,
    start: int,
    stop: int,
    *,
    split: Split | None = None,
    kinds: Collection[str] = (),
    difficulty: int | None = None,
) -> Iterator[Task]:
    """Tasks number start .. stop - 1 of `seed`, half of them sums, only those of one split if it is named.

    kinds: of sums (PROBLEMS) or of questions (KINDS), all if there is none. difficulty: 1, 2 or 3, all if None.

    Raises:
        ConfigError: a kind or a difficulty that does not exist.
    """
    for problem in problems(seed, start, stop, split=split, kinds=kinds, difficulty=difficulty):
        yield task_of(problem)


def task_of(problem: Question | Sum) -> Task:
    """A problem as a task."""
    verifier = "number" if problem.answer.isdecimal() else "exact"
    return Task(problem.prompt, problem.answer, verifier, problem.key)


def problems(
    seed: int,
    start: int,
    stop: int,
    *,
    split: Split | None = None,
    kinds: Collection[str] = (),
    difficulty: int | None = None,
) -> Iterator[Question | Sum]:
    """What those tasks are about.

    Raises:
        ConfigError: see `tasks`.
    """
    if unknown := sorted({*kinds} - {*PROBLEMS, *KINDS}):
        raise ConfigError(f"kinds: there is no {unknown[0]!r}; use some of {', '.join((*PROBLEMS, *KINDS))}")
    if difficulty not in (None, *LEVELS):
        raise ConfigError(f"difficulty: {difficulty} is none of {', '.join(map(str, LEVELS))}")
    sums, questions = (tuple(kind for kind in table if not kinds or kind in kinds) for table in (PROBLEMS, KINDS))
    for i in range(start, stop):
        draw = Draw(seed, "task", i)
        is_sum = draw.chance(0.5) if sums and questions else bool(sums)
        problem = draw_sum(draw, difficulty, sums) if is_sum else draw_question(draw, questions)
        if (split is None or split_of(problem.key) == split) and difficulty in (None, problem.difficulty):
            yield problem
