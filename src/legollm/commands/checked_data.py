"""Where answers known to be right or wrong come from, and answers in steps, for training a verifier."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

from legollm.data import world
from legollm.data.rows import rows, text
from legollm.data.steps import read_chains
from legollm.data.world import Chain
from legollm.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class CheckedConfig:
    """Where the answers come from."""

    SHORTHAND: ClassVar[str] = "source"

    source: Path
    """results.jsonl of `legollm solve`; or rows with `question`, `answer`, and `right`: true or false. With
    kind=process rows with `question`, `steps`, a list of lines, and `labels`, of each step true, false or null; or
    world: sums and chains of true and false in steps, one of which may be wrong."""
    n_examples: int = 4000
    """world: how many answers, about."""
    val_fraction: float = 0.1
    """Share of the questions that is kept to measure with, with all their answers."""

    def __post_init__(self) -> None:
        if self.n_examples < 1:
            raise ConfigError(f"n_examples: must be at least 1, found {self.n_examples}")
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction: a share between 0 and 1, found {self.val_fraction}")


USES = ("to train on", "to measure with")


class Answer(NamedTuple):
    """One answer and whether it is right."""

    question: str
    answer: str
    is_right: bool


Asked = TypeVar("Asked", Answer, Chain)


def read_answers(path: Path) -> list[Answer]:
    """Every attempt in a file of results, or its rows as they are.

    Raises:
        DataError: a row of another shape; names file and line.
    """
    found = []
    for where, row in rows(path):
        question = text(row, "question", where)
        attempts = row.get("attempts", [row])
        if not isinstance(attempts, list) or not all(isinstance(one, dict) for one in attempts):
            raise DataError(f"{where}: attempts: expected a list of objects, found {attempts!r:.60}")
        for one in attempts:
            if not isinstance(one.get("right"), bool):
                raise DataError(f"{where}: right: expected true or false, found {one.get('right')!r:.60}")
            found.append(Answer(question, text(one, "answer", where), one["right"]))
    return list(dict.fromkeys(found))


def split_answers(answers: Sequence[Answer], cfg: CheckedConfig) -> tuple[list[Answer], list[Answer]]:
    """Those to train on and those to measure with; the question decides, so that none is in both.

    Raises:
        DataError: one of the parts lacks right answers, or wrong ones.
    """
    parts = halves(answers, cfg.val_fraction)
    for name, part in zip(USES, parts, strict=True):
        n_right = sum(one.is_right for one in part)
        refuse_one_kind(cfg.source, "answers", name, n_right, len(part) - n_right)
    return parts


def halves(found: Sequence[Asked], val_fraction: float) -> tuple[list[Asked], list[Asked]]:
    """Those to train on and those to measure with, by their questions."""
    parts: tuple[list[Asked], list[Asked]] = ([], [])
    for one in found:
        number = int.from_bytes(hashlib.sha256(one.question.encode()).digest()[:8], "big")
        parts[number < val_fraction * 2**64].append(one)
    return parts


def refuse_one_kind(source: Path, what: str, use: str, n_right: int, n_wrong: int) -> None:
    """
    Raises:
        DataError: there are only right ones, or only wrong ones.
    """
    if not n_right or not n_wrong:
        raise DataError(
            f"{source}: {n_right} right and {n_wrong} wrong {what} {use}; both kinds are needed, so take more "
            "questions, or a model that is neither always right nor always wrong"
        )


def chains_of(cfg: CheckedConfig) -> tuple[list[Chain], list[Chain]]:
    """Answers in steps, to train on and to measure with.

    Raises:
        DataError: a row of another shape; or one of the parts lacks right steps, or wrong ones.
    """
    if str(cfg.source) == "world":
        n_val = int(cfg.n_examples * cfg.val_fraction)
        train = world.chains(0, 0, cfg.n_examples, split="train")
        return list(train), list(islice(world.chains(0, 0, 100 * n_val + 100, split="val"), max(1, n_val)))
    parts = halves(list(read_chains(cfg.source)), cfg.val_fraction)
    for name, part in zip(USES, parts, strict=True):
        labels = [label for one in part for label in one.labels]
        refuse_one_kind(cfg.source, "steps", name, labels.count(True), labels.count(False))
    return parts
