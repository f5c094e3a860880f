"""Questions about scenes: for fine-tuning, preferences, rewards and evaluation."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from legollm.data.world import puzzles, scenes
from legollm.data.world.draw import Draw, Split, split_of
from legollm.data.world.reading import read_on, worked_answer
from legollm.data.world.scenes import Ask, Scene
from legollm.errors import ConfigError

SCENES: tuple[tuple[Callable[[Draw], Scene], tuple[str, ...]], ...] = (
    (scenes.whereabouts, ("where-person", "who-where", "yes-no")),
    (scenes.holdings, ("who-has", "what-has", "which-colour")),
    (scenes.hidden, ("where-object", "what-inside")),
    (scenes.days, ("when", "who-when", "where-to", "first-last")),
    (scenes.jobs, ("which-job", "who-is")),
    (scenes.meals, ("what-eaten", "who-ate")),
    (scenes.prices, ("how-much", "what-cost", "compare-prices")),
    (puzzles.counts, ("how-many", "compare")),
    (puzzles.carried, ("where-carried", "who-has", "where-person", "yes-no")),
    (puzzles.nested, ("nested", "where-object")),
    (puzzles.moves, ("moved",)),
    (puzzles.belief, ("belief",)),
    (puzzles.passed, ("passed",)),
    (puzzles.order, ("order",)),
    (puzzles.change, ("count",)),
    (puzzles.excluded, ("excluded",)),
    (puzzles.rules, ("rule", "who-is")),
)
"""What can be staged, and the kinds of question each scene answers."""

SIMPLE_SHARE = 0.85
_SIMPLE: tuple[Callable[[Draw, int], Scene], ...] = (
    scenes.whereabouts,
    scenes.holdings,
    scenes.hidden,
    scenes.days,
    scenes.jobs,
    scenes.meals,
    scenes.prices,
)

STEPS = {kind: 1 for _, kinds in SCENES for kind in kinds} | {
    "which-colour": 2,
    "who-has": 2,
    "who-ate": 2,
    "who-is": 2,
    "yes-no": 2,
    "where-carried": 2,
    "nested": 2,
    "moved": 2,
    "passed": 2,
    "order": 2,
    "count": 2,
    "rule": 2,
    "belief": 3,
    "excluded": 3,
    "compare": 3,
    "compare-prices": 3,
    "first-last": 3,
}
"""What an answer of each kind takes at least.

One step: find what the question names and read on to the answer. Two: the answer stands before what is named and has to
be read backwards (where the sentence happens to put it there, for kinds of one step, too), or two sentences are needed,
the question's own claim in "yes-no" included. Three: more of them.
"""

KINDS = tuple(sorted(STEPS))


@dataclass(frozen=True, slots=True)
class Question:
    """A short story and a question whose answer is known.

    `candidates`: the answers the story makes plausible, in no order that tells; chance is one in their number.
    `steps`: 1 where reading on from what is asked about tells, and then there are three candidates, all in the story.
    `about`: what is asked about; empty where that is more than one thing.
    `key`: the facts of the story in a canonical form, the same for all its questions; it decides the split.
    """

    context: str
    question: str
    answer: str
    candidates: tuple[str, ...]
    kind: str
    steps: int
    difficulty: int
    key: str
    about: str

    @property
    def prompt(self) -> str:
        """All up to the answer, which follows after a space."""
        return f"{self.context}\nQ: {self.question}\nA:"

    @property
    def worked_answer(self) -> str:
        """The answer as it is taught: what the story says of it is repeated first."""
        return worked_answer(self.context, self.about, self.answer, self.steps)

    @property
    def text(self) -> str:
        return f"{self.prompt} {self.worked_answer}\n"


@dataclass(frozen=True, slots=True)
class Preference:
    """A question, whose answer is right, and a plausible wrong answer."""

    question: Question
    rejected: str

    @property
    def prompt(self) -> str:
        """All up to the answer, which follows after a space."""
        return self.question.prompt

    @property
    def chosen(self) -> str:
        return self.question.answer

    @property
    def key(self) -> str:
        return self.question.key

    @property
    def worked(self) -> tuple[str, str]:
        """The right and the wrong answer as they are taught: the same is read aloud, only what follows differs."""
        right = self.question.worked_answer
        return right, right.removesuffix(self.chosen) + self.rejected


def questions(
    seed: int,
    start: int,
    stop: int,
    *,
    kinds: Collection[str] | None = None,
    max_steps: int | None = None,
    split: Split | None = None,
) -> Iterator[Question]:
    """Questions number start .. stop - 1 of `seed`, only those of one split if it is named (5 % are val).

    kinds: some of KINDS, all if None. max_steps: 1 for those that a single sentence answers.

    Raises:
        ConfigError: a kind that does not exist, or none that is left.
    """
    wanted = _wanted(kinds, max_steps)
    for i in range(start, stop):
        question = draw_question(Draw(seed, "question", i), wanted, max_steps)
        if split is None or split_of(question.key) == split:
            yield question


def conversations(seed: int, start: int, stop: int, *, n_questions: int, split: Split) -> Iterator[list[Question]]:
    """n_questions questions about one scene, for the scenes number start .. stop - 1 that are in `split`.

    A question may come again: were each asked once, the last could be answered by what has not been said yet, and a
    model learns that before it learns to look. SIMPLE_SHARE of the scenes are those with questions of one step, and of
    those mostly such questions are asked.
    """
    for i in range(start, stop):
        draw = Draw(seed, "conversation", i)
        simple = draw.chance(SIMPLE_SHARE)
        scene = draw.pick(_SIMPLE)(draw, 3) if simple else draw.pick(SCENES)[0](draw)
        if split_of(scene.key) == split:
            asked = [_about(scene, ask) for ask in scene.asks]
            easy = [question for question in asked if question.steps == 1]
            yield [
                _of_any_kind(draw, easy if simple and easy and draw.chance(0.8) else asked) for _ in range(n_questions)
            ]


def _of_any_kind(draw: Draw, questions: Sequence[Question]) -> Question:
    """One of the questions, each kind as likely as the others."""
    kind = draw.pick(sorted({question.kind for question in questions}))
    return draw.pick([question for question in questions if question.kind == kind])


def preferences(
    seed: int,
    start: int,
    stop: int,
    *,
    kinds: Collection[str] | None = None,
    max_steps: int | None = None,
    split: Split | None = None,
) -> Iterator[Preference]:
    """Pairs number start .. stop - 1 of `seed`: the wrong answer is one of the other candidates.

    Raises:
        ConfigError: as for `questions`.
    """
    wanted = _wanted(kinds, max_steps)
    for i in range(start, stop):
        draw = Draw(seed, "preference", i)
        question = draw_question(draw, wanted, max_steps)
        rejected = draw.pick([answer for answer in question.candidates if answer != question.answer])
        if split is None or split_of(question.key) == split:
            yield Preference(question, rejected)


def question_text(draw: Draw) -> tuple[str, str]:
    """A scene with one to three of its questions, for pre-training, and its key.

    Half of the scenes have only one fact or two: copying the only answer in sight is learned first, and the choice
    among three takes off from there. With three facts everywhere a small model learns neither in its first million
    tokens.
    """
    if draw.chance(SIMPLE_SHARE):
        scene = draw.pick(_SIMPLE)(draw, draw.pick((1, 1, 2)))
    else:
        scene = draw.pick(SCENES)[0](draw)
    asked = [_about(scene, draw.pick(scene.asks)) for _ in range(1 + draw.below(3))]
    text = "".join(f"Q: {question.question}\nA: {question.worked_answer}\n" for question in asked)
    return f"{scene.text}\n{text}", scene.key


def _wanted(kinds: Collection[str] | None, max_steps: int | None) -> tuple[str, ...]:
    unknown = sorted(set(kinds or ()) - set(KINDS))
    if unknown:
        raise ConfigError(f"kinds: there is no {unknown[0]!r}; use some of {', '.join(KINDS)}")
    wanted = tuple(
        kind for kind in KINDS if (kinds is None or kind in kinds) and (max_steps is None or STEPS[kind] <= max_steps)
    )
    if not wanted:
        raise ConfigError(f"kinds: none is left that takes at most max_steps = {max_steps}; allow more steps or kinds")
    return wanted


def draw_question(draw: Draw, wanted: tuple[str, ...] = KINDS, max_steps: int | None = None) -> Question:
    """Any question of the kinds `wanted`, told so that it takes no more than max_steps."""
    kind = draw.pick(wanted)
    stages = [stage for stage, offered in SCENES if kind in offered]
    while True:  # how a fact is told decides which questions about it read on
        scene = draw.pick(stages)(draw)
        asked = [_about(scene, ask) for ask in scene.asks if ask.kind == kind]
        if fitting := [question for question in asked if max_steps is None or question.steps <= max_steps]:
            return draw.pick(fitting)


def _about(scene: Scene, ask: Ask) -> Question:
    steps = STEPS[ask.kind]
    if steps == 1 and read_on(scene.text, ask.key, ask.answer) is None:
        steps = 2
    return Question(
        scene.text, ask.question, ask.answer, ask.candidates, ask.kind, steps, min(steps, 3), scene.key, ask.key
    )
