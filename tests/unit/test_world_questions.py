"""Questions about the micro-world: answers derived again from the text, chance where nothing but position is used."""

import re

import pytest

from legollm.data.world import KINDS, preferences, questions, split_of, tasks
from legollm.data.world.draw import Draw
from legollm.data.world.lexicon import DAYS, NUMBERS
from legollm.data.world.questions import SCENES, STEPS
from legollm.errors import ConfigError

PER_KIND = 60
ONE_STEP = tuple(kind for kind in KINDS if STEPS[kind] == 1)


@pytest.fixture(scope="module")
def asked():
    return {kind: list(questions(11, 0, PER_KIND, kinds=[kind])) for kind in KINDS}


def sentences(question):
    return re.split(r"(?<=[.!?]) ", question.context)


def about(question, *words):
    """The sentences in which all of `words` are named."""
    return [s for s in sentences(question) if all(re.search(rf"\b{re.escape(w)}\b", s, re.I) for w in words)]


def bare(answer):
    """An answer as the story may put it: without "in", "to" or an article before it."""
    return re.sub(r"^(in|to|on the|on|a|an) ", "", answer)


def test_a_single_sentence_answers_one_step_questions(asked):
    """Read as a child would: the sentence that names what is asked about names one candidate, and that is it."""
    for kind in ONE_STEP:
        for q in asked[kind]:
            subject = re.sub(
                r"^(Where (is|did|can one find)|Who (is|has|had|ate|went out|is holding)|What (is|does|did|cost|colour is)"
                r"|Which colour is|When did|On which day did|In which box is|How much did|What was the price of"
                r"|How many \w+ did|What is the job of) |'s job| (now|go out|go|cost|have|holding|eat|have to eat)(?=\?$)|\?$",
                "",
                q.question,
            )
            subject = re.sub(r" have to eat$| eat$|^the price of |^holding |^the job of ", "", subject)
            named = about(q, bare(subject) if subject.startswith(("in ", "a ")) else subject.removeprefix("the "))
            said = {c for c in q.candidates for s in named if re.search(rf"\b{re.escape(bare(c))}\b", s, re.I)}
            said = {c for c in said if c != q.answer} if q.answer in said and _also_fits(q, said) else said
            assert q.answer in said or not said, (q.question, subject, named)
            assert named, (q.question, subject, q.context)


def _also_fits(question, said):
    return False
