"""Questions, answers and verdicts as a table for a reader, and as lines for a program."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from legollm.evaluation.report import Section
from legollm.verifiers import Verdict

N_SHOWN = 200


class Answered(NamedTuple):
    """A question, an answer, and what is said of it; is_right is None where nobody but the verifier knows."""

    question: str
    answer: str
    verdict: Verdict
    is_right: bool | None = None


def answers_section(title: str, rows: Sequence[Answered]) -> Section:
    """The first N_SHOWN of them as a table."""
    text = "" if len(rows) <= N_SHOWN else f"The first {N_SHOWN} of {len(rows):,}; results.jsonl has all."
    judged = any(row.is_right is not None for row in rows)
    header = ("question", "answer", "verdict", "why", *(("in truth",) if judged else ()))
    cells = [
        (
            row.question,
            row.answer,
            row.verdict.text if row.verdict.is_right or row.verdict.correction else "incorrect",
            "" if row.verdict.is_right else row.verdict.reason,
            *((("right" if row.is_right else "wrong"),) if judged else ()),
        )
        for row in rows[:N_SHOWN]
    ]
    return Section(title, text, header=header, rows=cells)


def json_lines(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
