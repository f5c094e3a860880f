"""Answers in steps, of each of which it is known whether it is right, from a file."""

from collections.abc import Iterator
from pathlib import Path

from legollm.data.rows import question_of, rows
from legollm.data.world import Chain
from legollm.errors import DataError


def read_chains(path: Path) -> Iterator[Chain]:
    """The rows of a .jsonl file or a .json list: `prompt` or `question`, `steps` (or `completions`) and `labels`.

    Each step is one line, each label true, false, or null where it is not known.

    Raises:
        DataError: a row of another shape; names file, line or item, and field.
    """
    for where, row in rows(path):
        question = question_of(row, where)
        name = "completions" if "completions" in row and "steps" not in row else "steps"
        steps, labels = row.get(name), row.get("labels")
        if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
            raise DataError(f"{where}: {name}: expected a list of texts, found {steps!r:.60}")
        if not isinstance(labels, list) or not all(label is None or isinstance(label, bool) for label in labels):
            raise DataError(f"{where}: labels: expected a list of true, false or null, found {labels!r:.60}")
        if len(steps) != len(labels):
            raise DataError(f"{where}: labels: {len(labels)} for {len(steps)} steps; give one for each, or null")
        for i, step in enumerate(steps):
            if len(step.strip().splitlines()) != 1:
                raise DataError(f"{where}: {name}[{i}]: expected one line of text, found {step!r:.60}")
        yield Chain(question, tuple(step.strip() for step in steps), tuple(labels), question)
