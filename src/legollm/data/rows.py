"""JSON objects for fine-tuning and alignment, from a .jsonl file or a .json list, each with the place it stands at."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from legollm.data.chat import ROLES, Message
from legollm.data.documents import BadRows
from legollm.data.readers import read_items, read_rows
from legollm.errors import DataError

ROLE_NAMES = {role: role for role in ROLES}
SURROGATE = re.compile(r"[\ud800-\udfff]")


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file, each with `FILE:LINE`, or `FILE: item N` where the file is one list.

    Raises:
        DataError: what is no object, and a file without any.
    """
    n, bad_rows = 0, BadRows("stop", way_out="")
    if path.suffix == ".json":
        for n, row in read_items(path, str(path), bad_rows):
            if not isinstance(row, dict):
                raise DataError(f"{path}: item {n}: expected an object, found {row!r:.60}")
            yield f"{path}: item {n}", row
    else:
        for line, row in read_rows(path, str(path), bad_rows):
            n = line
            yield f"{path}:{line}", row
    if not n:
        raise DataError(f"{path}: nothing in it; give one JSON object a line, or a .json file with a list of them")


def text(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text in a field.

    Raises:
        DataError: another kind of value, or none.
    """
    if key not in row:
        raise DataError(f"{where}: {key}: expected text, and there is no such field; found {fields_of(row)}")
    value = row[key]
    if not isinstance(value, str):
        raise DataError(f"{where}: {key}: expected text, found {value!r:.60}")
    if SURROGATE.search(value):
        raise DataError(f"{where}: {key}: holds half a surrogate pair, which is no character; write the text anew")
    return value


def fields_of(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row)) or "nothing"


def messages_of(row: Mapping[str, Any], where: str) -> list[Message]:
    """The field `messages`: turns with role and content.

    Raises:
        DataError: another shape; names the turn and the field.
    """
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: messages: expected a list of turns, found {turns!r:.60}")
    return [message(turn, f"{where}: messages[{i}]", "role", "content", ROLE_NAMES) for i, turn in enumerate(turns)]


def message(turn: Any, where: str, role_key: str, text_key: str, roles: Mapping[str, str]) -> Message:
    """One turn; `roles` says what each name of a role that may stand there means.

    Raises:
        DataError: another shape, or another role.
    """
    if not isinstance(turn, Mapping):
        raise DataError(f"{where}: expected {role_key} and {text_key}, found {turn!r:.60}")
    role = text(turn, role_key, where)
    if role not in roles:
        raise DataError(f"{where}.{role_key}: {role!r} is none of {', '.join(roles)}")
    return Message(roles[role], text(turn, text_key, where))


def instruction_of(row: Mapping[str, Any], where: str) -> Message:
    """What an Alpaca row asks: its instruction, and below an empty line its input, if it has one."""
    instruction, given = text(row, "instruction", where), row.get("input") or ""
    if not isinstance(given, str):
        raise DataError(f"{where}: input: expected text, found {given!r:.60}")
    return Message("user", f"{instruction}\n\n{given}" if given else instruction)


def question_of(row: Mapping[str, Any], where: str) -> str:
    """What is asked in one text: `prompt`, or `question`."""
    return text(row, "question" if "question" in row and "prompt" not in row else "prompt", where)


def prompt_of(row: Mapping[str, Any], where: str) -> list[Message]:
    """What is to be answered, from `messages`, a `prompt` of text or turns, or `instruction` and `input`.

    Raises:
        DataError: none of them, or the last turn is already an answer.
    """
    if isinstance(row.get("prompt"), list):
        row = {"messages": row["prompt"]}
    if "messages" in row:
        messages = messages_of(row, where)
    elif "prompt" in row:
        messages = [Message("user", text(row, "prompt", where))]
    elif "instruction" in row:
        messages = [instruction_of(row, where)]
    else:
        raise DataError(f"{where}: expected `prompt`, `messages` or `instruction`; found {fields_of(row)}")
    if messages[-1].role == "assistant":
        raise DataError(f"{where}: the last turn is the assistant's, so there is nothing to answer")
    return messages
