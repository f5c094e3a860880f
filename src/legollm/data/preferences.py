"""What was said of answers: of two to one prompt which is better, or of a single one whether it is good."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from legollm.data import world
from legollm.data.chat import Message
from legollm.data.rows import fields_of, message, prompt_of, rows, text
from legollm.errors import DataError

log = logging.getLogger(__name__)


class Preference(NamedTuple):
    """A prompt, the answer that is preferred and the one that is not."""

    prompt: list[Message]
    """All turns up to the answers; the last one is not the assistant's."""
    chosen: str
    rejected: str


class Judgement(NamedTuple):
    """A prompt, one answer to it, and whether that is good."""

    prompt: list[Message]
    """As of a preference."""
    answer: str
    is_good: bool


def read_preferences(path: Path) -> Iterator[Preference]:
    """The rows of a .jsonl file or a .json list: a prompt, and two answers, `chosen` and `rejected`.

    The prompt is in `prompt` (a text, or turns), in `messages`, or in `instruction` and `input` as in Alpaca.

    Two equal answers teach nothing: such rows are left out, and a warning says how many they were.

    Raises:
        DataError: a row of another shape; names file, line or item, and field.
    """
    equal: list[str] = []
    for where, row in rows(path):
        if is_judged(row):
            raise DataError(
                f"{where}: label: judges a single answer, and here two are compared; give `chosen` and `rejected`, or "
                "learn from single ones with `legollm dpo dpo.loss=kto`"
            )
        prompt = prompt_of(row, where)
        found = Preference(prompt, text(row, "chosen", where), text(row, "rejected", where))
        if found.chosen == found.rejected:
            equal.append(where)
        else:
            yield found
    if equal:
        log.warning("%s: chosen and rejected are the same text; left out, as are %d more", equal[0], len(equal) - 1)


def has_judgements(path: Path) -> bool:
    """Whether there is a row in the file that judges a single answer."""
    return any(is_judged(row) for _, row in rows(path))


def is_judged(row: Mapping[str, Any]) -> bool:
    return "label" in row and not {"chosen", "rejected"} & row.keys()


def read_judgements(path: Path) -> Iterator[Judgement]:
    """The rows of a .jsonl file or a .json list: a prompt, `completion` or `answer`, and `label`: true for a good one.

    The prompt is given as in `read_preferences`, the completion may also be a list with one turn of the assistant. A
    row with `chosen` and `rejected` in place of these is a good and a bad answer.

    Raises:
        DataError: a row of another shape; names file, line or item, and field.
    """
    for where, row in rows(path):
        prompt = prompt_of(row, where)
        if is_judged(row):
            if not isinstance(row["label"], bool):
                raise DataError(f"{where}: label: expected true or false, found {row['label']!r:.60}")
            yield Judgement(prompt, answer_of(row, where), row["label"])
        elif not {"chosen", "rejected"} & row.keys():
            raise DataError(
                f"{where}: expected `completion` and `label`, or `chosen` and `rejected`; found {fields_of(row)}"
            )
        else:
            yield Judgement(prompt, text(row, "chosen", where), True)
            yield Judgement(prompt, text(row, "rejected", where), False)


def answer_of(row: Mapping[str, Any], where: str) -> str:
    """The one answer of a row: `completion`, or `answer`.

    Raises:
        DataError: none, or another kind of value.
    """
    key = "answer" if "answer" in row and "completion" not in row else "completion"
    turns = row.get(key)
    if not isinstance(turns, list):
        return text(row, key, where)
    if len(turns) != 1:
        raise DataError(f"{where}: {key}: expected text or one turn of the assistant, found {len(turns)} turns")
    return message(turns[0], f"{where}: {key}[0]", "role", "content", {"assistant": "assistant"}).content


def world_preferences(seed: int, start: int, stop: int, *, split: world.Split) -> Iterator[Preference]:
    """Questions about stories of the built-in world, as in fine-tuning, each with a right and a wrong answer."""
    for pair in world.preferences(seed, start, stop, split=split):
        asked = Message("user", f"{pair.question.context}\n{pair.question.question}")
        yield Preference([asked], *pair.worked)
