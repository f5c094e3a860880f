"""Two answers to one prompt, of which one is preferred: what is learned by comparing."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from legollm.data import world
from legollm.data.chat import Message
from legollm.data.rows import prompt_of, rows, text

log = logging.getLogger(__name__)


class Preference(NamedTuple):
    """A prompt, the answer that is preferred and the one that is not."""

    prompt: list[Message]
    """All turns up to the answers; the last one is not the assistant's."""
    chosen: str
    rejected: str


def read_preferences(path: Path) -> Iterator[Preference]:
    """The rows of a .jsonl file or a .json list: a prompt, and two answers, `chosen` and `rejected`.

    The prompt is in `prompt` (a text, or turns), in `messages`, or in `instruction` and `input` as in Alpaca.

    Two equal answers teach nothing: such rows are left out, and a warning says how many they were.

    Raises:
        DataError: a row of another shape; names file, line or item, and field.
    """
    equal: list[str] = []
    for where, row in rows(path):
        prompt = prompt_of(row, where)
        found = Preference(prompt, text(row, "chosen", where), text(row, "rejected", where))
        if found.chosen == found.rejected:
            equal.append(where)
        else:
            yield found
    if equal:
        log.warning("%s: chosen and rejected are the same text; left out, as are %d more", equal[0], len(equal) - 1)


def world_preferences(seed: int, start: int, stop: int, *, split: world.Split) -> Iterator[Preference]:
    """Questions about stories of the built-in world, as in fine-tuning, each with a right and a wrong answer."""
    for pair in world.preferences(seed, start, stop, split=split):
        asked = Message("user", f"{pair.question.context}\n{pair.question.question}")
        yield Preference([asked], *pair.worked)
