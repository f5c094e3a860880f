"""Conversations for fine-tuning, from the formats that files of them have."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from legollm.data.chat import Message
from legollm.data.rows import (
    ROLE_NAMES,
    fields_of,
    instruction_of,
    message,
    messages_of,
    prompt_of,
    question_of,
    rows,
    text,
)
from legollm.errors import DataError

FormatName = Literal["auto", "messages", "prompt", "question", "alpaca", "sharegpt", "preference"]

SHAREGPT_ROLES = ROLE_NAMES | {"human": "user", "gpt": "assistant", "observation": "tool"}


class Format(NamedTuple):
    """How a row says who said what."""

    keys: frozenset[str]
    """Fields by which a row is recognised."""
    shape: str
    """The same for a reader of a message."""
    read: Callable[[Mapping[str, Any], str], list[Message]]


def prompt_and_answer(row: Mapping[str, Any], where: str) -> list[Message]:
    """Also the rows of tasks, whose verifier is not needed here."""
    return [Message("user", question_of(row, where)), Message("assistant", text(row, "answer", where))]


def alpaca(row: Mapping[str, Any], where: str) -> list[Message]:
    """Instruction, input and output (Taori et al. 2023)."""
    system = [Message("system", text(row, "system", where))] if row.get("system") else []
    return [*system, instruction_of(row, where), Message("assistant", text(row, "output", where))]


def sharegpt(row: Mapping[str, Any], where: str) -> list[Message]:
    """A list of turns, each `from` somebody with a `value`."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: conversations: expected a list of turns, found {turns!r:.60}")
    system = [Message("system", text(row, "system", where))] if row.get("system") else []
    places = (f"{where}: conversations[{i}]" for i in range(len(turns)))
    return system + [
        message(turn, place, "from", "value", SHAREGPT_ROLES) for turn, place in zip(turns, places, strict=True)
    ]


def preferred(row: Mapping[str, Any], where: str) -> list[Message]:
    """Of a preference the chosen answer alone."""
    return [*prompt_of(row, where), Message("assistant", text(row, "chosen", where))]


FORMATS = {
    "preference": Format(frozenset({"chosen", "rejected"}), "a prompt, `chosen` and `rejected`", preferred),
    "messages": Format(frozenset({"messages"}), "`messages`", messages_of),
    "sharegpt": Format(frozenset({"conversations"}), "`conversations`", sharegpt),
    "alpaca": Format(frozenset({"instruction", "output"}), "`instruction` and `output`", alpaca),
    "prompt": Format(frozenset({"prompt", "answer"}), "`prompt` and `answer`", prompt_and_answer),
    "question": Format(frozenset({"question", "answer"}), "`question` and `answer`", prompt_and_answer),
}
"""Tried in this order where none is named."""


def read_conversations(path: Path, format: FormatName = "auto") -> Iterator[list[Message]]:
    """The conversations of a .jsonl file or a .json list, one a row.

    format: what the rows are; auto recognises each by its fields.

    Raises:
        DataError: a row of another shape; names the file, the line or item, and the field.
    """
    for where, row in rows(path):
        yield conversation(row, where, format)


def conversation(row: Mapping[str, Any], where: str, format: FormatName = "auto") -> list[Message]:
    """One row as messages."""
    kind = FORMATS[format] if format != "auto" else recognised(row, where)
    messages = kind.read(row, where)
    if not any(one.role == "assistant" for one in messages):
        raise DataError(f"{where}: no turn of the assistant in it, so nothing to learn from")
    return messages


def recognised(row: Mapping[str, Any], where: str) -> Format:
    for kind in FORMATS.values():
        if kind.keys <= row.keys():
            return kind
    shapes = "; ".join(kind.shape for kind in FORMATS.values())
    raise DataError(f"{where}: expected the fields of one of these: {shapes}; found {fields_of(row)}")
