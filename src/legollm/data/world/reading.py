"""How a question is answered aloud: the story is read up to the sentence that tells, and then comes the answer.

A small model does not learn in minutes to look a fact up in one step, but it does learn to repeat what it has read
(docs/log.md has the figures). Reading aloud turns the one into the other: after the sentence that tells, the answer is
the last thing of its kind that was said (a scratchpad, Nye et al. 2021, arXiv:2112.00114).
"""

import re

ANSWER = "Answer:"
"""Stands before the answer proper."""

_SENTENCE_END = re.compile(r'(?<=[.!?]) (?=[A-Z"])')
_WORD = re.compile(r"[\w'-]+")
_SMALL = {"a", "the", "in", "on", "to"}
"""Words in which an answer may differ from the sentence that tells it: who went to the mill is in the mill."""


def worked_answer(context: str, answer: str, steps: int) -> str:
    """What to say: the story up to the sentence that holds the answer (all of it if one is not enough), the answer."""
    return f"{read_aloud(context, answer) if steps == 1 else context}\n{ANSWER} {answer}"


def read_aloud(context: str, answer: str) -> str:
    """`context` up to and including the first sentence that says all of `answer`, or all of it."""
    telling = set(words(answer)) - _SMALL  # all of them: "six coins" is not told where the other price is named
    sentences = _SENTENCE_END.split(context)
    for n, sentence in enumerate(sentences, start=1):
        if telling.issubset(words(sentence)):
            return " ".join(sentences[:n])
    return context


def final_answer(said: str) -> str:
    """The answer proper of what was said; all of it where nothing was read aloud first."""
    return said.rpartition(ANSWER)[2].strip()


def words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]
