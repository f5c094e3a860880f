"""`legollm demo verifiers`: an error found, a second try that mends it, and what verifiers that err let through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from legollm.alignment.feedback import Attempt, Said, Solved, Solving, accuracy_at, solve
from legollm.commands.answers_page import Answered, answers_section
from legollm.config import Resolved
from legollm.data import world
from legollm.data.chat import Message
from legollm.data.rows import rows, text
from legollm.data.world import Task
from legollm.errors import ConfigError, DataError
from legollm.evaluation.report import Chart, Curve, Section, write_report
from legollm.verifiers import Verdict, Verifier, algebra, arithmetic, exact, number
from legollm.verifiers.fallible import NoisyVerifier, contains, draw, longer

EXAMPLES: tuple[tuple[Verifier, str, str, str | None], ...] = (
    (arithmetic, "2+2", "5", None),
    (arithmetic, "What is 27 + 58?", "27 + 58 = 85", None),
    (number, "What does it cost in dollars?", "It costs $1,200.50.", "1200.5"),
    (number, "How many minutes is that?", "The answer is 90 hours.", "90"),
    (algebra, "Add x to x.", "x^2", "2x"),
    (exact, "Where is the key?", "Answer: in the drawer.", "in the drawer"),
)
NOISE = (0.0, 0.05, 0.1, 0.2, 0.4)
KS = (1, 2, 4, 8, 16)
LIST_SHARE = 0.15
"""Of the made-up answers, how many name all possible answers one after the other."""


@dataclass(frozen=True, kw_only=True)
class DemoVerifiersRun:
    """What is tried."""

    results: Path | None = None
    """results.jsonl of `legollm solve strategy=best_of`: answers of a real model. Null makes some up."""
    n_questions: int = 400
    """Made-up answers: to so many sums."""
    accuracy: float = 0.3
    """Made-up answers: the share that is right."""
    seed: int = 0
    """Of the made-up answers and of the noise."""
    run: Path = Path("runs/demo-verifiers")
    """Folder for report.html."""

    def __post_init__(self) -> None:
        if self.n_questions < 1:
            raise ConfigError(f"n_questions: must be at least 1, found {self.n_questions}")
        if not 0 <= self.accuracy <= 1:
            raise ConfigError(f"accuracy: a share from 0 to 1, found {self.accuracy}")


def demo_verifiers(run: Resolved[DemoVerifiersRun]) -> None:
    """Questions, answers and verdicts; a second try that knows the reason; and verifiers that err.

    The last part chooses the best of up to 16 answers by a verifier that accepts a share of the
    wrong ones, and by some that can be gamed, and counts how many chosen answers are right.

    legollm demo verifiers
    legollm demo verifiers results=runs/solve/results.jsonl
    """
    cfg = run.value
    examples = [Answered(q, a, verify(q, a, reference)) for verify, q, a, reference in EXAMPLES]
    for one in examples:
        print(f"Q {one.question:<32}A {one.answer:<26}{one.verdict.text}")
    mended = second_try()
    print(f"\n{mended.task.prompt}: {' -> '.join(f'{a.said.text} ({a.verdict.text})' for a in mended.attempts)}")
    solved = made_up(cfg) if cfg.results is None else read_results(cfg.results)
    curves = {name: at_ks(judged(solved, judge)) for name, judge in judges(cfg.seed).items()}
    curves["vote"] = at_ks(solved, vote=True)
    curves["one of them is right"] = [(at.k, at.any_right) for at in accuracy_at(solved, "best_of", KS)]
    ks = [k for k, _ in curves["vote"]]
    print(f"\nright in %, the best of{''.join(f'{k:>8}' for k in ks)}")
    for name, points in curves.items():
        print(f"{name:<23}{''.join(f'{100 * share:>8.1f}' for _, share in points)}")
    write_report(cfg.run / "report.html", "What verifiers can do", sections_of(examples, mended, curves, ks))
    print(f"\nlook at {cfg.run / 'report.html'}")


def second_try() -> Solved:
    """2+2 as a model with two answers in its head solves it."""

    def write(conversations: Sequence[Sequence[Message]], draw: int) -> list[Said]:
        return [Said("4" if "is not 5" in turns[-1].content else "5", 1, 1) for turns in conversations]

    task = Task("2+2", "4", "number", "")
    cfg = Solving(strategy="retry")
    (solved,) = solve([task], write, lambda _: arithmetic, lambda _: number, cfg, max_new_tokens=1)
    return solved


def made_up(cfg: DemoVerifiersRun) -> list[Solved]:
    """Sums, with 16 answers each: right, wrong by a little, or a list of everything that could be right."""
    found = []
    for i, problem in enumerate(world.problems(cfg.seed, 0, cfg.n_questions, kinds=("add",), difficulty=1)):
        task = Task(problem.prompt, problem.answer, "number", problem.key)
        answers = [made_up_answer(task, f"{cfg.seed}/{i}/{j}", cfg.accuracy) for j in range(max(KS))]
        verdicts = [number(task.prompt, answer, task.answer) for answer in answers]
        attempts = [Attempt(Said(a, 0, 0), v, v.is_right) for a, v in zip(answers, verdicts, strict=True)]
        found.append(Solved(task, attempts, 0))
    return found


def made_up_answer(task: Task, place: str, accuracy: float) -> str:
    chance, other = draw(0, place), draw(1, place)
    if chance < accuracy:
        return task.answer
    if chance > 1 - LIST_SHARE * (1 - accuracy):
        return "It is one of " + " ".join(map(str, range(20)))
    return str((int(task.answer) + 1 + int(5 * other)) % 19)


def read_results(path: Path) -> list[Solved]:
    """The questions of a file of results with all their answers.

    Raises:
        DataError: rows of another shape; names file and line.
    """
    found = []
    for where, row in rows(path):
        task = Task(text(row, "question", where), text(row, "reference", where), "number", "")
        try:
            attempts = [
                Attempt(Said(str(one["answer"]), 0, 0), Verdict(float(one["score"]), ""), bool(one["right"]))
                for one in row["attempts"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            wanted = "attempts: expected answer, score and right of each, as `legollm solve` writes them"
            raise DataError(f"{where}: {wanted}") from error
        found.append(Solved(task, attempts, 0))
    return found


Judge = Callable[[Task, Attempt], Verdict]


def judges(seed: int) -> dict[str, Judge]:
    """Verifiers by how they err."""
    noisy = {f"accepts {share:.0%} of wrong": truth_but_for(share, seed) for share in NOISE}
    return noisy | {"contains, can be gamed": by(contains), "longer, can be gamed": by(longer)}


def truth_but_for(false_accept: float, seed: int) -> Judge:
    """Knows which answers are right, and accepts a share of the others."""

    def judge(task: Task, attempt: Attempt) -> Verdict:
        truth = Verdict(float(attempt.is_right), "")
        noisy = NoisyVerifier(lambda question, answer, reference=None: truth, false_accept, 0.0, seed)
        return noisy(task.prompt, attempt.said.text)

    return judge


def by(verify: Verifier) -> Judge:
    return lambda task, attempt: verify(task.prompt, attempt.said.text, task.answer)


def judged(solved: Sequence[Solved], judge: Judge) -> list[Solved]:
    """The same answers with the verdicts of another judge."""
    return [
        one._replace(attempts=[attempt._replace(verdict=judge(one.task, attempt)) for attempt in one.attempts])
        for one in solved
    ]


def at_ks(solved: Sequence[Solved], *, vote: bool = False) -> list[tuple[int, float]]:
    return [(at.k, at.chosen) for at in accuracy_at(solved, "vote" if vote else "best_of", KS)]


def sections_of(
    examples: Sequence[Answered], mended: Solved, curves: dict[str, list[tuple[int, float]]], ks: Sequence[int]
) -> list[Section]:
    """The page."""
    lines = [
        Curve(name.removesuffix(" of wrong"), [(k, 100 * share) for k, share in points])
        for name, points in curves.items()
    ]
    chart = Chart("right answers in %", "answers to choose among", "%", [*lines[: len(NOISE)]])
    cells = [(name, *(f"{100 * share:.1f}" for _, share in points)) for name, points in curves.items()]
    return [
        answers_section("Questions, answers, verdicts", examples),
        answers_section(
            "A second try that knows the reason",
            [Answered(mended.task.prompt, a.said.text, a.verdict, a.is_right) for a in mended.attempts],
        ),
        Section(
            "Verifiers that err",
            "The best of several answers, chosen by verifiers that accept a share of the wrong ones, or that can be "
            "gamed. A vote needs no verifier.",
            chart=chart,
            header=("verifier", *(f"best of {k}" for k in ks)),
            rows=cells,
        ),
    ]
