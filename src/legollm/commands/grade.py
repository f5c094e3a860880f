"""`legollm grade`: answers in a file -> how many are right, and what is wrong with the others."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from legollm.commands.answers_page import Answered, answers_section, json_lines
from legollm.commands.verifying import NAMES, VerifierConfig, verifier_for
from legollm.config import Resolved
from legollm.data.rows import fields_of, rows, text
from legollm.data.world import Task
from legollm.errors import DataError
from legollm.evaluation.intervals import auc, share
from legollm.evaluation.report import Section, write_report
from legollm.whole_file import write_whole

QUESTION = ("prompt", "question")
ANSWER = ("response", "completion", "output", "answer")
"""What a model said; of several fields the first. `answer` is the reference where one of the others is there."""
REFERENCE = ("reference", "answer")


@dataclass(frozen=True, kw_only=True)
class GradeRun(VerifierConfig):
    """A file of answers, and who judges them."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("file",)

    file: Path
    """Rows with `prompt` or `question`; `response` or `answer`: what was said; and where it is needed `reference`."""
    run: Path | None = None
    """Folder for results.jsonl and report.html; null writes none."""
    json: bool = False
    """Print JSON."""


class Graded(NamedTuple):
    """One row with its verdict."""

    answered: Answered
    reference: str | None
    label: bool | None
    """Whether the file says that it is right, with a field `right`."""


def grade(run: Resolved[GradeRun]) -> None:
    """Judge answers: against references in the file, by computing, by running tests, or with a trained model.

    Where the rows say what is true with a field `right`, it is also told how well the verifier knows it.

    legollm grade answers.jsonl verifier=gsm8k
    legollm grade answers.jsonl verifier=arithmetic run=runs/grade
    """
    cfg = run.value
    graded = list(graded_rows(cfg))
    n_right = sum(one.answered.verdict.is_right for one in graded)
    figures: dict[str, object] = {"right": str(share(n_right, len(graded)))}
    labelled = [one for one in graded if one.label is not None]
    if labelled:
        scores, labels = [one.answered.verdict.score for one in labelled], [bool(one.label) for one in labelled]
        agree = sum(one.answered.verdict.is_right == one.label for one in labelled)
        figures |= {"agrees": str(share(agree, len(labelled))), "auc": round(auc(scores, labels), 4)}
    if cfg.run is not None:
        write_whole(cfg.run / "results.jsonl", json_lines([row_of(one) for one in graded]))
        summary = Section(f"{cfg.file}", rows=[(name, str(value)) for name, value in figures.items()])
        page = [summary, answers_section("Every answer", [one.answered for one in graded])]
        write_report(cfg.run / "report.html", "Graded answers", page)
    if cfg.json:
        print(json.dumps(figures, indent=1))
        return
    for one in [one for one in graded if not one.answered.verdict.is_right][:10]:
        question = " ".join(one.answered.question.split())
        answer = " ".join(one.answered.answer.split())
        print(f"Q {question[-60:]!s:<60}  A {answer[-20:]:<20}  {one.answered.verdict.text[:60]}")
    for name, value in figures.items():
        print(f"{name:<8}{value}")
    if cfg.run is not None:
        print(f"look at {cfg.run / 'report.html'}")


def graded_rows(cfg: GradeRun) -> list[Graded]:
    """Every row of the file, judged.

    Raises:
        DataError: a row without a question or an answer; names file and line.
        VerifierError: one that the verifier cannot judge.
    """
    verify = verifier_for(cfg)
    found = []
    for where, row in rows(cfg.file):
        question, said = field_of(row, QUESTION, where), field_of(row, ANSWER, where)
        others = [name for name in REFERENCE if name in row and name != said]
        reference = text(row, others[0], where) if others else None
        named = row.get("verifier", "exact") if cfg.verifier is None else "exact"
        if named not in NAMES:
            raise DataError(f"{where}: verifier: {named!r} is none of {', '.join(sorted(NAMES))}")
        label = row.get("right")
        if label is not None and not isinstance(label, bool):
            raise DataError(f"{where}: right: expected true or false, found {label!r}")
        task = Task(text(row, question, where), reference or "", named, key="")
        answer = text(row, said, where)
        verdict = verify(task)(task.prompt, answer, reference)
        found.append(Graded(Answered(task.prompt, answer, verdict, label), reference, label))
    return found


def field_of(row: dict[str, object], names: tuple[str, ...], where: str) -> str:
    """The first of these fields that a row has."""
    for name in names:
        if name in row:
            return name
    raise DataError(f"{where}: expected one of {', '.join(names)}; found {fields_of(row)}")


def row_of(one: Graded) -> dict[str, object]:
    question, answer, verdict, _ = one.answered
    row = {"question": question, "answer": answer, "verdict": verdict.text, "score": verdict.score}
    return row | {"reason": verdict.reason, "correction": verdict.correction, "reference": one.reference}
