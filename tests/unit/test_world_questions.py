"""Questions about the micro-world: answers read again out of the text, and chance for whoever does not read."""

import re

import pytest

from legollm.data.world import KINDS, preferences, questions, split_of, tasks
from legollm.data.world.lexicon import DAYS, MEN, NUMBERS, THINGS, WOMEN
from legollm.data.world.questions import SCENES, STEPS
from legollm.errors import ConfigError

PER_KIND = 80
NAMES = WOMEN + MEN
ONE_STEP = tuple(kind for kind in KINDS if STEPS[kind] == 1)

# What a question of one step is about. The sentence that names it names one candidate.
SUBJECT = {
    "how-many": r"How many \w+ did (\w+) have\?",
    "how-much": r"(?:How much did|What was the price of) the (.+?)(?: cost)?\?",
    "what-cost": r"What cost (.+)\?",
    "what-eaten": r"What did (\w+) (?:eat|have to eat)\?",
    "what-has": r"What (?:does|is) (\w+) (?:have|holding)\?",
    "what-inside": r"What is (.+)\?",
    "when": r"(?:When|On which day) did (\w+) go out\?",
    "where-object": r"(?:Where is|Where can one find|In which box is) the (.+?)(?: now)?\?",
    "where-person": r"Where is (\w+)(?: now)?\?",
    "where-to": r"Where did (\w+) go\?",
    "which-colour": r"(?:What|Which) colour is the (.+)\?",
    "which-job": r"What is (?:the job of )?(\w+)(?:'s job)?\?",
    "who-ate": r"Who (?:ate|had) (.+)\?",
    "who-has": r"Who (?:has|is holding) the (.+)\?",
    "who-is": r"Who is the (.+)\?",
    "who-when": r"Who went out (.+)\?",
    "who-where": r"Who is in (.+)\?",
}


@pytest.fixture(scope="module")
def asked():
    return {kind: list(questions(11, 0, PER_KIND, kinds=[kind])) for kind in KINDS}


def bare(answer):
    """An answer as sentences may put it: "in the mill" and "to the mill" are "the mill", "the kite" is "kite"."""
    if answer.startswith(("in ", "to ")):
        return answer[3:]
    return re.sub(r"^(the|an?) ", "", answer)


def mentions(text, words):
    return [found.start() for found in re.finditer(rf"\b{re.escape(words)}\b", text, re.IGNORECASE)]


def sentences(question):
    return re.split(r"(?<=[.!?]) ", question.context)


def about(question, *words):
    """The sentences that name all of `words`."""
    return [s for s in sentences(question) if all(mentions(s, word) for word in words)]


def named_with(question, *words):
    """The candidates in those sentences."""
    text = " ".join(about(question, *words))
    return [candidate for candidate in question.candidates if mentions(text, bare(candidate))]


@pytest.mark.parametrize("kind", ONE_STEP)
def test_one_sentence_answers_a_question_of_one_step(asked, kind):
    for q in asked[kind]:
        subject = re.fullmatch(SUBJECT[kind], q.question).group(1)
        assert named_with(q, subject) == [q.answer], q


@pytest.mark.parametrize("kind", ONE_STEP)
def test_three_different_candidates_all_in_the_story(asked, kind):
    for q in asked[kind]:
        assert len(set(q.candidates)) == len(q.candidates) == 3
        assert all(mentions(q.context, bare(candidate)) for candidate in q.candidates), q


def test_answer_is_a_candidate(asked):
    for kind, items in asked.items():
        for q in items:
            assert q.answer in q.candidates
            assert len(set(q.candidates)) == len(q.candidates) >= 2
            least = STEPS[kind]  # a kind of one step takes two where the answer is said before what is asked about
            assert q.kind == kind
            assert q.steps in ({1, 2} if least == 1 else {least})
            assert q.difficulty == min(3, q.steps)
            assert q.prompt == f"{q.context}\nQ: {q.question}\nA:"
            assert q.text == f"{q.prompt} {q.worked_answer}\n"
            assert q.text.endswith(f" {q.answer}\n")


@pytest.mark.parametrize("choose", [min, max], ids=["first", "last"])
@pytest.mark.parametrize("when", [min, max], ids=["mentioned first", "mentioned last"])
def test_position_alone_is_chance(asked, choose, when):
    """The candidate whose first (last) mention comes first (last) in the story is right one time in three."""
    right = total = 0
    for q in [q for items in asked.values() for q in items if len(q.candidates) == 3 and q.kind != "count"]:
        place = {c: when(mentions(q.context, bare(c)), default=0) for c in q.candidates}
        right += choose(place, key=place.__getitem__) == q.answer
        total += 1
    assert 0.28 < right / total < 0.39


def test_yes_is_half_of_the_answers():
    answers = [q.answer for q in questions(3, 0, 1000, kinds=["yes-no"])]
    assert 0.45 < answers.count("yes") / 1000 < 0.55


def number(text):
    """The only number word of a text."""
    (word,) = [word for word in re.findall(r"\w+", text) if word in NUMBERS]
    return NUMBERS.index(word)


class TestReadAgain:
    """Each kind of several steps answered by another program than the one that asked."""

    def test_yes_no(self, asked):
        for q in asked["yes-no"]:
            who, place = re.fullmatch(r"Is (?:the )?(.+?) in (.+)\?", q.question).groups()
            there = [s for s in sentences(q) if mentions(s, place)]
            assert len(there) == 1, q
            names = re.compile(r"\b(?!In )[A-Z][a-z]+\b")
            holders = {m for s in sentences(q) if mentions(s, who) for m in names.findall(s)} | {who}
            assert (q.answer == "yes") == any(mentions(there[0], holder) for holder in holders), q

    def test_where_carried(self, asked):
        for q in asked["where-carried"]:
            thing = re.search(r"the (.+?)( now)?\?", q.question).group(1)
            (said,) = [s for s in sentences(q) if mentions(s, thing)]
            (name,) = [n for n in re.findall(r"\b[A-Z][a-z]+\b", said) if len(about(q, n)) > 1]
            assert named_with(q, name) == [q.answer], q

    def test_nested(self, asked):
        for q in asked["nested"]:
            thing = re.search(r"the (.+?)\?", q.question).group(1)
            (said,) = [s for s in sentences(q) if mentions(s, thing)]
            box = next(b for b in re.findall(r"in the ([a-z ]+?)(?: lay| there|\.)", said, re.IGNORECASE))
            assert named_with(q, f"the {box}", re.search(r"carr|with|took|brought|$", said).group())[-1:] == [q.answer]

    def test_rule(self, asked):
        for q in asked["rule"]:
            name = re.search(r"does (\w+) need", q.question).group(1)
            rules = {
                re.search(r"(?:[Ee]very|[Nn]o|as an?) ([a-z ]+?) (?:needed|could)", s).group(1): s
                for s in sentences(q)
                if re.search(r" needed an? | could work without ", s)
            }
            (job,) = [job for job in rules if any(mentions(s, job) and mentions(s, name) for s in sentences(q))]
            assert [c for c in q.candidates if mentions(rules[job], bare(c))] == [q.answer]

    def test_order_of_days(self, asked):
        for q in asked["first-last"]:
            day = {n: min(DAYS.index(d) for d in DAYS if about(q, n, d)) for n in q.candidates}
            assert q.answer == (min if "first" in q.question else max)(day, key=day.__getitem__)

    def test_compare(self, asked):
        for q in asked["compare"]:
            amount = {name: number(" ".join(about(q, name))) for name in q.candidates}
            assert q.answer == (max if "most" in q.question else min)(amount, key=amount.__getitem__)

    def test_compare_prices(self, asked):
        for q in asked["compare-prices"]:
            price = {c: number(about(q, bare(c))[0]) for c in q.candidates}
            assert q.answer == (max if "dearest" in q.question else min)(price, key=price.__getitem__)

    def test_count(self, asked):
        for q in asked["count"]:
            (gift,) = [s for s in sentences(q) if re.search(r" gave | handed ", s)]
            given = number(gift)
            name = re.search(r"does (\w+) have", q.question).group(1)
            had = number(" ".join(s for s in about(q, name) if s != gift))
            is_giver = bool(re.match(rf"{name}\b", gift))
            assert q.answer == NUMBERS[had - given if is_giver else had + given], q

    def test_order(self, asked):
        for q in asked["order"]:
            pairs = set()
            for s in sentences(q):
                here = sorted((n for n in q.candidates if mentions(s, n)), key=lambda n: mentions(s, n))
                if len(here) == 2:
                    swapped = re.search(r"came after|later than|was already there", s)
                    pairs.add(tuple(reversed(here)) if swapped else tuple(here))
            later = {b for _, b in pairs}
            earlier = {a for a, _ in pairs}
            rank = {"first": earlier - later, "second": earlier & later, "last": later - earlier}
            assert rank[re.search(r"came (\w+)", q.question).group(1)] == {q.answer}

    def test_passed(self, asked):
        for q in asked["passed"]:
            chain = sorted(q.candidates, key=lambda n: mentions(q.context, n))
            expected = chain[-1] if " now" in q.question else chain[0] if "first" in q.question else chain[1]
            assert q.answer == expected

    def test_excluded(self, asked):
        for q in asked["excluded"]:
            (answer,) = [c for c in q.candidates if len(mentions(q.context, c)) == 1]
            assert q.answer == answer

    def test_moved(self, asked):
        """Of the places somebody went to, "first" wants the first and "now" the last."""
        for q in asked["moved"]:
            name = re.search(r"(?:is|was) (\w+)", q.question).group(1)
            subject, went = "", []
            for s in sentences(q):
                found = next((n for n in NAMES if re.match(rf"(?:[A-Z][a-z ]+ )?{n}\b", s)), None)
                subject = found or subject  # a pronoun keeps the subject
                went += [c for c in q.candidates if subject == name and mentions(s, bare(c))]
            assert q.answer == (went[0] if "first" in q.question else went[-1]), q

    def test_belief(self, asked):
        """Of the spots a thing was put in, its owner believes the first."""
        for q in asked["belief"]:
            thing = re.search(r"the ([\w ]+?)(?: is)?\?", q.question).group(1)
            spots = [c for s in about(q, thing) for c in q.candidates if mentions(s, bare(c))]
            assert q.answer == (spots[0] if "believe" in q.question else spots[-1]), q


def test_no_thing_is_called_like_the_end_of_another():
    """ "The spoon" must not be found in "a wooden spoon"."""
    assert not [(a, b) for a in THINGS for b in THINGS if b.endswith(" " + a)]


def test_kinds_and_steps_can_be_chosen():
    assert {q.kind for q in questions(1, 0, 60, kinds=["when", "who-has"])} == {"when", "who-has"}
    assert {q.steps for q in questions(1, 0, 60, max_steps=1)} == {1}
    assert {kind for _, kinds in SCENES for kind in kinds} == set(KINDS)


@pytest.mark.parametrize("wanted", [{"kinds": ["wheer"]}, {"kinds": ["belief"], "max_steps": 1}, {"kinds": []}])
def test_a_wish_that_cannot_be_met_is_an_error(wanted):
    with pytest.raises(ConfigError, match="kinds: "):
        next(questions(1, 0, 1, **wanted))


def test_streams_can_be_cut_anywhere():
    assert [*questions(2, 0, 9), *questions(2, 9, 30)] == list(questions(2, 0, 30))
    assert [*preferences(2, 0, 9), *preferences(2, 9, 30)] == list(preferences(2, 0, 30))
    assert [*tasks(2, 0, 9), *tasks(2, 9, 30)] == list(tasks(2, 0, 30))


def test_splits_share_no_facts():
    train = {q.key for q in questions(1, 0, 3000, split="train")}
    val = {q.key for q in questions(1, 0, 3000, split="val")}
    assert train.isdisjoint(val)
    assert 0.035 < len(val) / 3000 < 0.065
    assert all(split_of(q.key) == "val" for q in questions(1, 0, 200, split="val"))


def test_key_does_not_depend_on_words_or_order():
    """Two tellings of the same facts fall on the same side."""
    for q in questions(4, 0, 300, kinds=["where-person"]):
        assert not re.search(r"\b(he|she|went|Person)\b", q.key)
        rows = q.key.split(":")[1].split("|")
        assert rows == sorted(rows)


def test_preferences_are_right_and_plausibly_wrong():
    for pair in preferences(2, 0, 300):
        assert pair.chosen != pair.rejected
        assert pair.prompt.endswith("\nA:")


def test_tasks_name_a_verifier_that_fits():
    items = list(tasks(1, 0, 400))
    assert {task.verifier for task in items} == {"exact", "number"}
    assert all(task.answer.isdecimal() == (task.verifier == "number") for task in items)
