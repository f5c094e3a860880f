"""`legollm solve`: a model answers, a verifier checks; what was wrong is tried again, or the best of several counts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from legollm.alignment.feedback import Said, Solved, Solving, accuracy_at, solve
from legollm.checkpoints.loading import Loaded, load
from legollm.commands.answers_page import Answered, answers_section, json_lines
from legollm.commands.verifying import NAMES, VerifierConfig, judge_for, verifier_for
from legollm.config import Resolved
from legollm.data import world
from legollm.data.chat import Message
from legollm.data.tasks import read_tasks
from legollm.data.world import Task
from legollm.data.world.truth import asked
from legollm.errors import ConfigError
from legollm.evaluation.intervals import share
from legollm.evaluation.report import Chart, Curve, Section, write_report
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.text import generate_texts
from legollm.lowering.engine import Engine
from legollm.verifiers import Verifier
from legollm.whole_file import write_whole


@dataclass(frozen=True, kw_only=True)
class SolveRun(Solving, VerifierConfig, Sampling):
    """A model, questions, and how it comes to its answers."""

    model: Path = Path("runs/demo/checkpoint")
    """A checkpoint or run folder, or a Hugging Face folder."""
    source: str = "world"
    """A file of rows with `prompt`, `answer` and perhaps `verifier`; or world: sums and questions about stories;
    world:add is world with kinds=[add]."""
    kinds: tuple[str, ...] = ()
    """world: only these, such as add, larger, parity, who-has, where-object; none is all."""
    difficulty: int | None = None
    """world: only sums with so many digits, 1 to 3, or stories of that level; null is all."""
    split: Literal["train", "val"] = "val"
    """world: which half of it; val was never trained on."""
    n_questions: int = 100
    """How many questions, at most."""
    run: Path = Path("runs/solve")
    """Folder for results.jsonl and report.html."""
    engine: Engine = "auto"
    """What runs the model: torch, cpu (compiled kernels), or auto: whichever is done sooner."""
    decoding: Decoding = field(default_factory=lambda: Decoding(on_overflow="crop"))
    max_new_tokens: int = 64
    """Tokens of one answer at most."""
    stop: tuple[str, ...] = ("\nQ:",)
    """Text that ends an answer and is not part of it."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        Solving.__post_init__(self)
        VerifierConfig.__post_init__(self)
        Sampling.__post_init__(self)
        if self.n_questions < 1:
            raise ConfigError(f"n_questions: must be at least 1, found {self.n_questions}")


class ModelWriter:
    """A loaded model as the Writer of `solve`."""

    def __init__(self, lm: Loaded, sampling: Sampling, decoding: Decoding) -> None:
        self.lm, self.sampling, self.decoding = lm, sampling, lm.decoding(decoding)

    def __call__(self, conversations: Sequence[Sequence[Message]], draw: int) -> list[Said]:
        """The answers; each draw has random numbers of its own, also from those of other seeds."""
        prompts = [self.prompt_of(turns) for turns in conversations]
        sampling = replace(self.sampling, seed=(self.sampling.seed + draw * 1_000_003) % 2**63)
        writer = self.lm.writer_of(sampling, n_answers=len(prompts), decoding=self.decoding)
        said = generate_texts(
            writer,
            self.lm.text_side(),
            prompts,
            sampling,
            stop_ids=self.lm.stop_ids(),
            decoding=self.decoding,
        )
        return [
            Said(one.text.strip(), len(prompt), len(one.ids) + (one.stop_id is not None))
            for one, prompt in zip(said, prompts, strict=True)
        ]

    def prompt_of(self, turns: Sequence[Message]) -> list[int]:
        """A conversation as ids; for a model without a template as text, which ends with the question again."""
        if self.lm.chat_template is not None:
            return self.lm.chat_prompt(turns)
        first = turns[0].content
        if len(turns) == 1:
            return self.lm.text_side().encode(first)
        return self.lm.text_side().encode(f"{first} {turns[1].content}\n{turns[2].content}\n{first}")


def solve_questions(run: Resolved[SolveRun]) -> None:
    """Let a model answer questions and check every answer: try again, take the best, or vote.

    Writes results.jsonl, with every attempt, and report.html into the run's folder. What is right
    is decided by the verifier that each question names; which answer counts, by the one named here.

    legollm solve model=runs/demo source=world strategy=retry tries=4
    legollm solve model=runs/demo source=sums.jsonl verifier=arithmetic strategy=best_of n=8
    """
    cfg = run.value
    solved = answers_of(cfg)
    figures = figures_of(solved)
    write_report(cfg.run / "report.html", f"Answers of {cfg.model}", sections_of(solved, cfg, figures))
    if cfg.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in shown(figures):
        print(f"{name:<20}{value}")
    print(f"{'look at':<20}{cfg.run / 'report.html'}")


def answers_of(cfg: SolveRun) -> list[Solved]:
    """The questions with all their answers, which are also left in results.jsonl."""
    lm = load(cfg.model, engine=cfg.engine)
    lm.refuse_pairs()
    tasks, more = questions_of(cfg, chat=lm.chat_template is not None)
    sampling = Sampling(**{one.name: getattr(cfg, one.name) for one in fields(Sampling)})
    solved = solve(
        tasks,
        ModelWriter(lm, sampling, cfg.decoding),
        verifier_for(cfg, lm, more),
        judge_for(cfg.sandbox, more),
        cfg,
        max_new_tokens=cfg.max_new_tokens,
    )
    write_whole(cfg.run / "results.jsonl", json_lines([row_of(one) for one in solved]))
    return solved


def questions_of(cfg: SolveRun, *, chat: bool) -> tuple[list[Task], dict[str, Verifier]]:
    """The questions, and the verifier that only they have.

    chat: a model that was fine-tuned to answer is asked without the signs that mark question and answer.

    Raises:
        DataError: a file that has no such rows.
    """
    name, _, kind = cfg.source.partition(":")
    if name != "world":
        default = cfg.verifier if cfg.verifier in NAMES else None
        return list(islice(read_tasks(Path(cfg.source), NAMES, verifier=default), cfg.n_questions)), {}
    kinds = (*cfg.kinds, kind) if kind else cfg.kinds
    drawn = world.problems(0, 0, 1_000 * cfg.n_questions, split=cfg.split, kinds=kinds, difficulty=cfg.difficulty)
    problems = list(islice(drawn, cfg.n_questions))
    tasks, truth = [world.task_of(problem) for problem in problems], world.Truth(problems)
    if chat:
        tasks = [replace(task, prompt=asked(task.prompt)) for task in tasks]
    return tasks, {"world": truth}


def row_of(solved: Solved) -> dict[str, object]:
    """One line of results.jsonl."""
    chosen = solved.answer
    return {
        "question": solved.task.prompt,
        "answer": chosen.said.text,
        "verdict": chosen.verdict.text,
        "score": chosen.verdict.score,
        "reason": chosen.verdict.reason,
        "right": chosen.is_right,
        "reference": solved.task.answer,
        "attempts": [
            {
                "answer": one.said.text,
                "verdict": one.verdict.text,
                "score": one.verdict.score,
                "right": one.is_right,
                "tokens": one.said.n_written,
            }
            for one in solved.attempts
        ],
    }


def figures_of(solved: Sequence[Solved]) -> dict[str, str | int]:
    """What all of it came to, and what it cost."""
    n = len(solved)
    return {
        "right": str(share(sum(one.answer.is_right for one in solved), n)),
        "right_at_first": str(share(sum(one.attempts[0].is_right for one in solved), n)),
        "accepted": str(share(sum(one.answer.verdict.is_right for one in solved), n)),
        "accepted_but_wrong": sum(one.answer.verdict.is_right and not one.answer.is_right for one in solved),
        "answers": sum(len(one.attempts) for one in solved),
        "tokens_written": sum(attempt.said.n_written for one in solved for attempt in one.attempts),
        "tokens_read": sum(attempt.said.n_read for one in solved for attempt in one.attempts),
    }


def shown(figures: dict[str, str | int]) -> list[tuple[str, str]]:
    """Names and values as a reader likes them."""
    return [(name.replace("_", " "), f"{n:,}" if isinstance(n, int) else n) for name, n in figures.items()]


def sections_of(solved: Sequence[Solved], cfg: SolveRun, figures: dict[str, str | int]) -> list[Section]:
    """The page: figures, accuracy by the number of answers, and each question with its answers."""
    by_k = accuracy_at(solved, cfg.strategy)
    curves = [
        Curve("chosen", [(at.k, 100 * at.chosen) for at in by_k]),
        Curve("any", [(at.k, 100 * at.any_right) for at in by_k]),
    ]
    chart = Chart("right answers in %", "answers to each question, at most", "%", curves) if len(by_k) > 1 else None
    judge = cfg.verifier or "the one that each question names"
    rows = [Answered(one.task.prompt, a.said.text, a.verdict, a.is_right) for one in solved for a in one.attempts]
    return [
        Section(
            "What it came to",
            f"Strategy {cfg.strategy}, verifier: {judge}. The curves: the chosen answer is right, any of them is.",
            chart=chart,
            rows=shown(figures),
        ),
        answers_section("Every answer", rows),
    ]
