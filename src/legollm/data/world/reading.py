"""How a question is answered aloud: what the story says of the thing asked about is repeated, then comes the answer.

A small model does not learn in minutes to look a fact up in one step, but it does learn to find a word it was asked
about and to go on as the story does (docs/log.md has the figures). Repeating turns the one into the other: a
scratchpad (Nye et al. 2021, arXiv:2112.00114) of a few words.
"""

import re

ANSWER = "Answer:"
"""Stands before the answer proper."""

_SENTENCE_END = re.compile(r'(?<=[.!?]) (?=[A-Z"])')
_WORD = re.compile(r"[\w'-]+")
_SMALL = {"a", "an", "the", "in", "on", "to", "at"}
"""Words in which an answer may differ from the sentence that tells it: who went to the mill is in the mill."""
_BEFORE_NOUNS = {"under", "behind", "beside", "below", "above", "near"}
"""Not where reading begins: all that was hidden may be under something."""


def worked_answer(context: str, key: str, answer: str, steps: int) -> str:
    """What to say: the words from `key` to the answer, or the telling sentence, or the whole story; and the answer."""
    if steps == 1:
        aloud = read_on(context, key, answer)
    else:
        aloud = telling_sentence(context, key, answer) if key else context
    return f"{aloud or context}\n{ANSWER} {answer}"


def read_on(context: str, key: str, answer: str) -> str | None:
    """The words of the telling sentence from `key` to the end of `answer`; None if the answer comes before the key."""
    sentence = telling_sentence(context, key, answer)
    if sentence is None:
        return None
    found = list(_WORD.finditer(sentence))
    said = [match.group().casefold() for match in found]
    first_of_key = next(said.index(word) for word in content(key) if word not in _BEFORE_NOUNS)
    places = _places(said, answer)
    if min(places) <= first_of_key:
        return None
    return sentence[found[first_of_key].start() : found[max(places)].end()]


def telling_sentence(context: str, key: str, answer: str) -> str | None:
    """The first sentence that says all of `key` and all of `answer`; None if there is none."""
    wanted = content(key) + content(answer)  # all of them: "six coins" is not told where another price is named
    for sentence in _SENTENCE_END.split(context):
        if set(wanted) <= set(words(sentence)):
            return sentence
    return None


def final_answer(said: str) -> str:
    """The answer proper of what was said; all of it where nothing was read aloud first."""
    return said.rpartition(ANSWER)[2].strip()


def words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def content(text: str) -> list[str]:
    """The words of a text but those that do not tell one answer from another."""
    return [word for word in words(text) if word not in _SMALL]


def _places(said: list[str], text: str) -> list[int]:
    """Where the words of `text` are first said."""
    return [said.index(word) for word in content(text)]
