"""Answers that are checked before they count: a second try that knows what was wrong, the best of several, a vote.

The verifier that chooses among answers and the judge that counts the right ones are two: a verifier that errs, or that
can be gamed, shows in the difference between what it accepts and what is right.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

from legollm.data.chat import Message
from legollm.data.world import Task
from legollm.errors import ConfigError
from legollm.verifiers import Verdict, Verifier
from legollm.verifiers.answers import final_answer, normal
from legollm.verifiers.numbers import spelled, stated

Strategy = Literal["retry", "best_of", "vote", "weighted"]
Feedback = Literal["silent", "none", "reason", "correction"]


class Said(NamedTuple):
    """An answer, and what it cost in tokens."""

    text: str
    n_read: int
    n_written: int


class Writer(Protocol):
    """Conversations -> the next turn of each; `draw` tells one try from another."""

    def __call__(self, conversations: Sequence[Sequence[Message]], draw: int) -> list[Said]: ...


@dataclass(frozen=True, kw_only=True)
class Solving:
    """How many answers a question gets, and which one counts."""

    strategy: Strategy = "best_of"
    """retry: one after the other, each knowing what was wrong with the last, until one is accepted. best_of: several at
    once, and the one that the verifier likes best. vote: the answer that most of them come to (Wang et al. 2022,
    arXiv:2203.11171), no verifier needed. weighted: likewise, each counted by its score (Li et al. 2022,
    arXiv:2206.02336)."""
    tries: int = 4
    """strategy=retry: how many, at most."""
    n: int = 8
    """Every other strategy: how many answers."""
    budget: int | None = None
    """Tokens to write for one question at most; null is no limit. A try that might not fit is not begun."""
    feedback: Feedback = "reason"
    """strategy=retry: what the next try is told: silent, nothing at all, the question is asked anew; none, only that it
    was wrong; reason, why; or correction, also what would have been right. The last gives the answer away where the
    verifier knows it from a reference."""

    def __post_init__(self) -> None:
        for name, kind in (("strategy", Strategy), ("feedback", Feedback)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name}: {getattr(self, name)!r} is none of {', '.join(get_args(kind))}")
        for name in ("tries", "n"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, found {getattr(self, name)}")

    @property
    def n_answers(self) -> int:
        """How many answers a question gets at most."""
        return self.tries if self.strategy == "retry" else self.n


class Attempt(NamedTuple):
    """One answer, what the verifier said of it, and whether it is right."""

    said: Said
    verdict: Verdict
    is_right: bool


class Solved(NamedTuple):
    """A question with its attempts, in order, and the one that counts."""

    task: Task
    attempts: list[Attempt]
    chosen: int

    @property
    def answer(self) -> Attempt:
        return self.attempts[self.chosen]


def solve(
    tasks: Sequence[Task],
    write: Writer,
    verify: Callable[[Task], Verifier],
    judge: Callable[[Task], Verifier],
    cfg: Solving,
    *,
    max_new_tokens: int,
) -> list[Solved]:
    """Each question with its answers, one round of tries after the other.

    verify, judge: of a task its verifier, and the one that counts. max_new_tokens: what `write` writes for one answer
    at most.

    Raises:
        ConfigError: the budget is too small for a single answer.
        VerifierError: a verifier cannot judge one of the questions.
    """
    if cfg.budget is not None and cfg.budget < max_new_tokens:
        raise ConfigError(f"budget: {cfg.budget} tokens are less than one answer, max_new_tokens={max_new_tokens}")
    attempts: list[list[Attempt]] = [[] for _ in tasks]
    open_tasks = list(range(len(tasks)))
    for draw in range(cfg.n_answers):
        open_tasks = [i for i in open_tasks if goes_on(attempts[i], cfg, max_new_tokens)]
        if not open_tasks:
            break
        turns = [conversation(tasks[i], attempts[i], cfg) for i in open_tasks]
        for i, said in zip(open_tasks, write(turns, draw), strict=True):
            task = tasks[i]
            verdict = verify(task)(task.prompt, said.text, task.answer)
            right = judge(task)(task.prompt, said.text, task.answer).is_right
            attempts[i].append(Attempt(said, verdict, right))
    return [Solved(task, made, choose(made, cfg.strategy)) for task, made in zip(tasks, attempts, strict=True)]


def goes_on(made: Sequence[Attempt], cfg: Solving, max_new_tokens: int) -> bool:
    """Whether there is reason and room for one more try."""
    if cfg.strategy == "retry" and made and made[-1].verdict.is_right:
        return False
    written = sum(attempt.said.n_written for attempt in made)
    return cfg.budget is None or written + max_new_tokens <= cfg.budget


def conversation(task: Task, made: Sequence[Attempt], cfg: Solving) -> list[Message]:
    """What the model reads: the question, and for a second try the last answer and what is said of it."""
    asked = Message("user", task.prompt)
    if cfg.strategy != "retry" or cfg.feedback == "silent" or not made:
        return [asked]
    last = made[-1]
    return [asked, Message("assistant", last.said.text), Message("user", told(last.verdict, cfg.feedback))]


def told(verdict: Verdict, feedback: Feedback) -> str:
    """What is said of a wrong answer."""
    said = "That is not right"
    if feedback != "none":
        said += f": {verdict.reason}"
    said += "."
    if feedback == "correction" and verdict.correction is not None:
        said += f" The answer is {verdict.correction}."
    return f"{said} Try again."


def choose(made: Sequence[Attempt], strategy: Strategy) -> int:
    """The number of the answer that counts; of equals the first."""
    if strategy in ("retry", "best_of"):
        return max(range(len(made)), key=lambda i: (made[i].verdict.score, -i))
    weights: dict[str, float] = defaultdict(float)
    first: dict[str, int] = {}
    for i, attempt in enumerate(made):
        answer = agreed(attempt.said.text)
        weights[answer] += attempt.verdict.score if strategy == "weighted" else 1.0
        first.setdefault(answer, i)
    return first[max(weights, key=lambda answer: (weights[answer], -first[answer]))]


def agreed(text: str) -> str:
    """What two answers have in common if they are the same: the number they come to, or their final words."""
    number = stated(text)
    return normal(final_answer(text)) if number is None else spelled(number.value)


class AtK(NamedTuple):
    """With so many answers each: the share of questions whose chosen answer is right, and with any right one."""

    k: int
    chosen: float
    any_right: float


def accuracy_at(solved: Sequence[Solved], strategy: Strategy, ks: Collection[int] | None = None) -> list[AtK]:
    """What fewer answers would have come to, by the answers that were given. ks: only with so many; None is all."""
    found = []
    for k in range(1, max((len(one.attempts) for one in solved), default=0) + 1):
        if ks is not None and k not in ks:
            continue
        firsts = [one.attempts[:k] for one in solved]
        chosen = sum(made[choose(made, strategy)].is_right for made in firsts)
        found.append(AtK(k, chosen / len(solved), sum(any(a.is_right for a in made) for made in firsts) / len(solved)))
    return found
