"""The world as a verifier of its own questions."""

import pytest

from legollm.data import world
from legollm.data.world.lexicon import NUMBERS
from legollm.errors import VerifierError

PROBLEMS = list(world.problems(11, 0, 300))
TRUTH = world.Truth(PROBLEMS)


def test_the_state_accepts_its_answer_and_rejects_every_other_candidate() -> None:
    for problem in PROBLEMS:
        assert TRUTH(problem.prompt, problem.answer).score == 1
        if isinstance(problem, world.Question):
            for other in set(problem.candidates) - {problem.answer}:
                verdict = TRUTH(problem.prompt, other)
                assert (verdict.score, verdict.correction) == (0, problem.answer)
                assert "something else" in verdict.reason


def test_what_the_story_does_not_offer_is_told_apart() -> None:
    question = next(p for p in PROBLEMS if isinstance(p, world.Question))
    assert "nothing that the story offers" in TRUTH(question.prompt, "on the moon").reason


def test_articles_prepositions_and_figures_do_not_count() -> None:
    place = next(p for p in PROBLEMS if p.answer.startswith("in the "))
    assert TRUTH(place.prompt, place.answer.removeprefix("in ")).score == 1
    assert TRUTH(place.prompt, f"It is so.\nAnswer: {place.answer.removeprefix('in the ')}.").score == 1
    count = next(p for p in PROBLEMS if isinstance(p, world.Question) and p.answer in NUMBERS)
    n = NUMBERS.index(count.answer)
    assert TRUTH(count.prompt, str(n)).score == 1
    assert TRUTH(count.prompt, str(n + 1)).score == 0


def test_a_chat_may_ask_the_same() -> None:
    question = next(p for p in PROBLEMS if isinstance(p, world.Question))
    assert TRUTH(f"{question.context}\n{question.question}", question.answer).score == 1


def test_of_another_world_nothing_is_known() -> None:
    with pytest.raises(VerifierError, match="source=world"):
        TRUTH("Where is Mira?", "here")


def test_problems_are_those_of_the_tasks() -> None:
    assert [(t.prompt, t.answer) for t in world.tasks(11, 0, 300)] == [(p.prompt, p.answer) for p in PROBLEMS]
