"""Answers read aloud: what the story says of the thing asked about, and what counts of it in the end."""

import re

import pytest

from legollm.data import world
from legollm.data.world.reading import final_answer, read_on, telling_sentence, worked_answer

STORY = "Mira went to the mill. Tom has six coins. In the barn, Ada paid nine coins for it. Tom was happy."


@pytest.mark.parametrize(
    ("key", "answer", "aloud"),
    [
        ("Mira", "in the mill", "Mira went to the mill"),
        ("Tom", "six coins", "Tom has six coins"),
        ("in the barn", "Ada", "barn, Ada"),
        ("Ada", "nine coins", "Ada paid nine coins"),  # not where the other coins are named
    ],
)
def test_one_step_reads_on_from_what_is_asked_about(key: str, answer: str, aloud: str) -> None:
    assert read_on(STORY, key, answer) == aloud
    assert worked_answer(STORY, key, answer, 1) == f"{aloud}\nAnswer: {answer}"


def test_what_cannot_be_read_on_is_read_as_a_sentence_or_as_the_whole_story() -> None:
    assert read_on(STORY, "to the mill", "Mira") is None
    assert worked_answer(STORY, "to the mill", "Mira", 2) == "Mira went to the mill.\nAnswer: Mira"
    assert worked_answer(STORY, "", "Mira", 2) == f"{STORY}\nAnswer: Mira"
    assert telling_sentence(STORY, "Mira", "six coins") is None


def test_full_stops_inside_do_not_end_a_sentence() -> None:
    story = 'Sue left. "It is 3.5 miles," said Mr. green. Tom left.'
    assert telling_sentence(story, "miles", "green") == '"It is 3.5 miles," said Mr. green.'


@pytest.mark.parametrize("seed", [0, 1])
def test_in_the_world_one_sentence_alone_tells_and_reading_on_gives_one_answer(seed: int) -> None:
    kinds = set()
    for question in world.questions(seed, 0, 600, max_steps=1):
        aloud = read_on(question.context, question.about, question.answer)
        assert aloud is not None
        assert aloud in question.context
        assert question.worked_answer == f"{aloud}\nAnswer: {question.answer}"
        sentences = re.split(r'(?<=[.!?]) (?=[A-Z"])', question.context)
        told = [one for one in sentences if telling_sentence(one, question.about, question.answer)]
        assert len(told) == 1, question
        others = [other for other in question.candidates if other != question.answer]
        assert len(others) == 2
        assert not any(read_on(aloud, question.about, other) for other in others), question
        kinds.add(question.kind)
    assert len(kinds) >= 12


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ("Mira went to the mill.\nAnswer: in the mill", "in the mill"),
        ("in the mill", "in the mill"),
        ("  in the mill \n", "in the mill"),
        ("Answer: no\nAnswer: yes ", "yes"),
        ("Answer:", ""),
        ("", ""),
    ],
)
def test_what_counts_of_what_was_said(said: str, counts: str) -> None:
    assert final_answer(said) == counts


def test_what_is_taught_counts_as_right() -> None:
    for question in world.questions(2, 0, 300):
        assert final_answer(question.worked_answer) == question.answer
