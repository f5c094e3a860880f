"""Prompts whose answers a program can check: where they come from, how a model reads them, how many it gets right."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

from torch import nn

from legollm.data import world
from legollm.data.chat import Message, encode_chat
from legollm.data.tasks import read_tasks
from legollm.data.world import Task
from legollm.data.world.truth import asked
from legollm.errors import ConfigError, ContextError, DataError
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.text import generate_texts
from legollm.interfaces import Tokenizer
from legollm.verifiers import VERIFIERS, verifier

WORLD = "world"


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Where the prompts come from."""

    SHORTHAND: ClassVar[str] = "source"

    source: str = WORLD
    """A file of prompts with answers, .jsonl or a .json list; or world: sums and questions about stories; world:add is
    world with kinds=[add]."""
    kinds: tuple[str, ...] = ()
    """world: only these, such as add, subtract, multiply, larger, parity, who-has, where-object; none is all."""
    difficulty: int | None = None
    """world: only sums with so many digits, 1 to 3, or stories of that level; null is all."""
    n_tasks: int = 10_000
    """world: how many prompts to learn from."""
    n_val: int = 200
    """Prompts to measure with at most; none of them is learned from."""
    val_fraction: float = 0.1
    """Share of a file's prompts that is kept to measure with."""
    verifier: str | None = None
    """What checks the answers of rows that name nothing: exact, number, ..."""

    def __post_init__(self) -> None:
        for name in ("n_tasks", "n_val"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, found {getattr(self, name)}")
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction: a share between 0 and 1, found {self.val_fraction}")


def tasks_of(cfg: TaskConfig) -> tuple[list[Task], list[Task]]:
    """Those to learn from and those to measure with; no prompt is in both.

    Raises:
        DataError: a row that is no task; names file and line. Or too few of them.
        ConfigError: a kind that the world does not have.
    """
    name, _, kind = cfg.source.partition(":")
    if name == WORLD:
        kinds = (*cfg.kinds, kind) if kind else cfg.kinds
        train = world.tasks(0, 0, 1_000 * cfg.n_tasks, split="train", kinds=kinds, difficulty=cfg.difficulty)
        val = world.tasks(0, 0, 1_000 * cfg.n_val, split="val", kinds=kinds, difficulty=cfg.difficulty)
        return list(islice(train, cfg.n_tasks)), list(islice(val, cfg.n_val))
    rows = {task.prompt: task for task in read_tasks(Path(cfg.source), VERIFIERS, verifier=cfg.verifier)}
    if len(rows) < 2:
        raise DataError(f"{cfg.source}: {len(rows)} prompt; one to learn from and one to measure with are needed")
    ranked = sorted(rows.values(), key=lambda task: hashlib.sha256(task.prompt.encode()).digest())  # not by its place
    n_val = max(1, min(cfg.n_val, int(cfg.val_fraction * len(ranked))))
    return ranked[n_val:], ranked[:n_val]


def encoded(tasks: Sequence[Task], tokenizer: Tokenizer, template: str | None, room: int) -> list[list[int]]:
    """The ids of each prompt: as a conversation for a model that has a template, otherwise as text.

    room: tokens that a prompt may have.

    Raises:
        ContextError: a prompt that leaves no room for an answer.
    """
    found = []
    for task in tasks:
        turns = [Message("user", asked(task.prompt))]
        ids = (
            encode_chat(tokenizer, turns, template, add_generation_prompt=True)
            if template
            else tokenizer.encode(task.prompt)
        )
        if len(ids) > room:
            raise ContextError(
                f"the prompt that starts with {task.prompt[:40]!r} has {len(ids)} tokens, and beside an answer there "
                f"is room for {room}; shorten it, or lower sampler.max_new_tokens"
            )
        found.append(ids)
    return found


def judge_of(tasks: Sequence[Task]) -> Callable[[int, str], float]:
    """The number of a task and an answer -> 0 wrong .. 1 right."""
    verifiers = {name: verifier(name) for name in {task.verifier for task in tasks}}

    def judge(number: int, text: str) -> float:
        task = tasks[number]
        return verifiers[task.verifier](task.prompt, text, task.answer).score

    return judge


class Exam:
    """The held-out prompts, answered greedily: the share that is wrong, and the first answers to read."""

    N_SHOWN = 8

    def __init__(
        self,
        tasks: Sequence[Task],
        prompts: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
        *,
        max_new_tokens: int,
        stop: tuple[str, ...],
        stop_ids: Sequence[int],
    ) -> None:
        self.tasks, self.prompts, self.tokenizer, self.judge = tasks, prompts, tokenizer, judge_of(tasks)
        self.sampling = Sampling(temperature=0, max_new_tokens=max_new_tokens, stop=stop)
        self.stop_ids = stop_ids
        self.said: list[str] = []

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        writer: GenerativeModel = model  # type: ignore[assignment]
        decoding = Decoding(batch_size=256)
        answers = generate_texts(
            writer, self.tokenizer, self.prompts, self.sampling, stop_ids=self.stop_ids, decoding=decoding
        )
        self.said = [answer.text for answer in answers]
        n_right = sum(self.judge(i, text) >= 0.5 for i, text in enumerate(self.said))
        return {"val_accuracy": n_right / len(answers), "val_error": 1 - n_right / len(answers)}

    def shown(self) -> list[tuple[str, str, str]]:
        """Prompt, expected and given answer of the first tasks."""
        return [
            (task.prompt, task.answer, said.strip())
            for task, said in list(zip(self.tasks, self.said, strict=False))[: self.N_SHOWN]
        ]
