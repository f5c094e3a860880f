"""Stories, and the mixture for pre-training: a document for every index of a stream.

Each document is made from the seed, the name of its stream and its index alone, so a stream can be cut anywhere and
made by any number of processes.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from legollm.data.world.draw import Draw, Split, split_of
from legollm.data.world.echoes import echo
from legollm.data.world.narration import narrate
from legollm.data.world.plots import PLOTS
from legollm.data.world.questions import question_text
from legollm.data.world.state import World
from legollm.data.world.sums import draw_sum

QUESTION_SHARE, ECHO_SHARE, SUM_SHARE = 0.4, 0.1, 0.03
"""Shares of the documents of the mixture; the others are stories."""
_SUMS_PER_DOCUMENT = 6


@dataclass(frozen=True, slots=True)
class Story:
    """A document, the key that decides its split, and the information of all choices made for it, in bits."""

    text: str
    key: str
    bits: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What `describe` measured."""

    n_documents: int
    n_distinct: int
    n_bytes: int
    n_word_types: int
    bits_per_byte: float
    """An upper bound of the entropy of the source: no model of held-out text can be below it by more than chance."""


def stories(seed: int, start: int, stop: int) -> Iterator[Story]:
    """Stories number start .. stop - 1 of `seed`."""
    for i in range(start, stop):
        yield _story(Draw(seed, "story", i))


def documents(
    seed: int, start: int, stop: int, split: Split, *, question_share: float = QUESTION_SHARE
) -> Iterator[Story]:
    """The mixture, those of number start .. stop - 1 that belong to `split`: stories, questions, echoes, sums.

    question_share: the share of scenes with questions among all documents; above 0, and with echoes and sums below 1.
    Of a document of sums, the sums that belong to the other split are left out; the key is that of the first.
    """
    for i in range(start, stop):
        draw = Draw(seed, "document", i)
        if draw.chance(question_share):
            text, key = question_text(draw)
        elif draw.chance(ECHO_SHARE / (1 - question_share)):
            asked, line = echo(draw)
            text = f"{asked} Again: {line}.\n"
            key = digest(text)
        elif draw.chance(SUM_SHARE / (1 - question_share - ECHO_SHARE)):
            problems = [
                problem for _ in range(_SUMS_PER_DOCUMENT) if split_of((problem := draw_sum(draw)).key) == split
            ]
            if not problems:
                continue
            text, key = "".join(problem.text for problem in problems), problems[0].key
        else:
            story = _story(draw)
            text, key = story.text, story.key
        if split_of(key) == split:
            yield Story(text, key, draw.bits)


def corpus(seed: int, n_bytes: int, split: Split, *, question_share: float = QUESTION_SHARE) -> Iterator[str]:
    """Texts of `documents` until they have n_bytes bytes of UTF-8, the last one whole."""
    made, i = 0, 0
    while made < n_bytes:
        for document in documents(seed, i, i + 1, split, question_share=question_share):
            made += len(document.text.encode())
            yield document.text
        i += 1


def describe(seed: int, n_documents: int) -> Figures:
    """Figures of the first n_documents indices of the training mixture."""
    texts, bits, types = [], 0.0, set()
    for document in documents(seed, 0, n_documents, "train"):
        texts.append(document.text)
        bits += document.bits
        types.update(re.findall(r"[a-z]+", document.text.lower()))
    n_bytes = sum(len(text.encode()) for text in texts)
    return Figures(len(texts), len(set(texts)), n_bytes, len(types), bits / n_bytes)


def _story(draw: Draw) -> Story:
    world = World()
    draw.pick(PLOTS)(draw, world)
    text = " ".join(narrate(draw, world.log)) + "\n"
    return Story(text, digest(text), draw.bits)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
