"""Prompts with an answer that a program can check, from a file."""

from collections.abc import Collection, Iterator
from pathlib import Path

from legollm.data.rows import question_of, rows, text
from legollm.data.world import Task
from legollm.errors import DataError


def read_tasks(path: Path, verifiers: Collection[str], *, verifier: str | None = None) -> Iterator[Task]:
    """The rows of a .jsonl file or a .json list: `prompt` or `question`, `answer`, and `verifier`: what checks it.

    verifiers: the names there are. verifier: the one for rows that name none.

    Raises:
        DataError: a row of another shape or an unknown verifier; names file, line or item, and field.
    """
    for where, row in rows(path):
        named = row.get("verifier", verifier)
        if not isinstance(named, str) or named not in verifiers:
            raise DataError(f"{where}: verifier: {named!r} is none of {', '.join(sorted(verifiers))}")
        prompt = question_of(row, where)
        yield Task(prompt, text(row, "answer", where), named, key=prompt)
