"""Conversations for fine-tuning, from JSON lines: rows with `messages`, or with `prompt` and `answer`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from legollm.data.chat import Message
from legollm.data.documents import BadRows
from legollm.data.readers import read_rows
from legollm.errors import DataError

ROLES = ("system", "user", "assistant")


def read_conversations(path: Path) -> Iterator[list[Message]]:
    """The conversations of a .jsonl file, one a row.

    Raises:
        DataError: a row of another shape; names the file, the line and the field.
    """
    n = 0
    for line, row in read_rows(path, str(path), BadRows("stop")):
        n += 1
        yield conversation(row, f"{path}:{line}")
    if not n:
        raise DataError(f"{path}: no conversations in it; give one JSON object a line")


def conversation(row: Mapping[str, Any], where: str) -> list[Message]:
    """One row as messages."""
    if "messages" in row:
        turns = row["messages"]
        if not isinstance(turns, list) or not turns:
            raise DataError(f"{where}: messages: expected a list of turns, found {turns!r}")
        messages = [message(turn, f"{where}: messages[{i}]") for i, turn in enumerate(turns)]
    elif "prompt" in row and "answer" in row:
        messages = [Message("user", text(row, "prompt", where)), Message("assistant", text(row, "answer", where))]
    else:
        found = ", ".join(map(str, row)) or "nothing"
        raise DataError(f"{where}: expected `messages`, or `prompt` and `answer`; found {found}")
    if not any(one.role == "assistant" for one in messages):
        raise DataError(f"{where}: no turn of the assistant in it, so nothing to learn from")
    return messages


def message(turn: Any, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where}: expected role and content, found {turn!r}")
    role = text(turn, "role", where)
    if role not in ROLES:
        raise DataError(f"{where}.role: {role!r} is none of {', '.join(ROLES)}")
    return Message(role, text(turn, "content", where))


def text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key}: expected text, found {value!r}")
    return value
