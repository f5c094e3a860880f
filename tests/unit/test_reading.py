"""Answers read aloud: the story up to the sentence that tells it, and what counts of it in the end."""

import re

import pytest

from legollm.data import world
from legollm.data.world.reading import final_answer, read_aloud, words, worked_answer

STORY = "Mira went to the mill. Tom has six coins. Mira paid nine coins for it. Tom was happy."


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        ("in the mill", "Mira went to the mill."),
        ("Tom", "Tom has six coins."),
        ("nine coins", "Mira paid nine coins for it."),  # not where the other coins are named
        ("nowhere", "Tom was happy."),
    ],
)
def test_reading_ends_with_the_sentence_that_tells(answer: str, last: str) -> None:
    read = read_aloud(STORY, answer)
    assert STORY.startswith(read)
    assert read.endswith(last)
    assert worked_answer(STORY, answer, 1) == f"{read}\nAnswer: {answer}"
    assert worked_answer(STORY, answer, 2) == f"{STORY}\nAnswer: {answer}"


def test_full_stops_inside_do_not_end_a_sentence() -> None:
    assert read_aloud('"It is 3.5 miles," said Mr. green. Tom left.', "green") == '"It is 3.5 miles," said Mr. green.'


@pytest.mark.parametrize("seed", [0, 1])
def test_in_the_world_the_last_sentence_read_tells_and_no_earlier_one_does(seed: int) -> None:
    """It once was the first sentence with the answer's last word in it: any price, where six coins were asked for."""
    for question in world.questions(seed, 0, 600, max_steps=1):
        read = read_aloud(question.context, question.answer)
        *before, last = re.split(r'(?<=[.!?]) (?=[A-Z"])', read)
        telling = [word for word in words(question.answer) if word not in ("a", "the", "in", "on", "to")]
        assert telling
        assert set(telling) <= set(words(last)), question
        assert not any(set(telling) <= set(words(sentence)) for sentence in before), question
        assert question.context.startswith(read)
        others = [other for other in question.candidates if other != question.answer]
        assert len(others) == 2


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
