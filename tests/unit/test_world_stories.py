"""The micro-world's texts: always the same, never against their own state, in correct English, of known entropy."""

import hashlib
import itertools
import lzma
import math
import re
from collections import Counter

import pytest

from legollm.data.world import corpus, describe, documents, split_of, stories
from legollm.data.world.draw import Draw
from legollm.data.world.frames_facts import FACTS
from legollm.data.world.narration import FRAMES, narrate
from legollm.data.world.plots import PLOTS
from legollm.data.world.state import Person, Slot, Spot, Thing, World
from legollm.data.world.sums import letters, parity

FIRST_MEGABYTE = "27caf637d75d3f2fab551034b8d75fa91298d75b95d3f0f0abae9d1f255eb1ec"


class WatchedWorld(World):
    """Checks before each change that it is possible, and of each answer that it is true."""

    def take(self, who: Person, thing: Thing, how: str = "take", **slots: Slot) -> None:
        assert self.place_of(thing) is self.place_of(who), f"{who.name} takes {thing} from far away"
        if "into" in slots:
            assert self.at[thing] is slots["into"]
        super().take(who, thing, how, **slots)

    def put(self, who: Person, thing: Thing, into: Thing | Spot, how: str = "put", **slots: Slot) -> None:
        assert self.place_of(thing) is self.place_of(who), f"{who.name} puts {thing} from far away"
        assert into not in self.at or self.place_of(into) is self.place_of(who), f"{into} is elsewhere"
        super().put(who, thing, into, how, **slots)

    def give(self, who: Person, thing: Thing, to: Person, how: str = "give", **slots: Slot) -> None:
        assert self.at[thing] is who, f"{who.name} does not have {thing}"
        assert self.place_of(to) is self.place_of(who), f"{to.name} is elsewhere"
        super().give(who, thing, to, how, **slots)

    def tell(self, verb: str, *who: Person, **slots: Slot) -> None:
        thing = slots.get("thing")
        if verb == "answers_where":
            assert self.at[thing].at == slots["where"]
        elif verb == "answers_nested":
            assert self.at[thing] is slots["into"]
            assert self.at[slots["into"]] is slots["outer"]
        elif verb == "answers_who":
            assert self.at[thing] is slots["other"]
        elif verb == "answers_where_person":
            assert self.place_of(slots["missing"]).at == slots["where"]
        elif verb == "finds":
            assert self.at[thing] is slots["into"]
            assert self.place_of(thing) is self.place_of(who[0])
        elif verb in ("meets", "chat"):
            assert self.place_of(who[0]) is self.place_of(slots["other"])
        super().tell(verb, *who, **slots)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
def test_nobody_reaches_through_walls_and_everybody_answers_truthfully(plot):
    for i in range(100):
        plot(Draw("watched", plot.__name__, i), WatchedWorld())


def test_first_megabyte_is_the_same_everywhere():
    text = "".join(corpus(1, 1_000_000, "train")).encode()
    assert hashlib.sha256(text).hexdigest() == FIRST_MEGABYTE


def test_streams_can_be_cut_anywhere():
    whole = list(stories(7, 0, 60))
    assert [*stories(7, 0, 13), *stories(7, 13, 14), *stories(7, 14, 60)] == whole
    assert list(stories(8, 0, 60)) != whole
    whole = list(documents(7, 0, 60, "train"))
    assert [*documents(7, 0, 31, "train"), *documents(7, 31, 60, "train")] == whole


def test_splits_share_no_document():
    train, val = (
        {document.text for document in documents(1, 0, 2500, split) if document.text.count("\n") == 1}
        for split in ("train", "val")
    )
    assert train.isdisjoint(val)
    assert 0.03 < len(val) / len(train) < 0.075


def test_corpus_stops_after_the_document_that_reaches_the_size():
    texts = list(corpus(1, 20_000, "val"))
    assert sum(map(len, texts[:-1])) < 20_000 <= sum(map(len, texts))


def test_rich_enough_to_be_worth_learning():
    figures = describe(1, 2000)
    assert figures.n_distinct > 0.99 * figures.n_documents
    assert figures.n_word_types >= 1500
    assert 0.25 < figures.bits_per_byte < 0.6
    assert sum(map(len, FRAMES.values())) >= 500
    text = "".join(story.text for story in stories(1, 0, 1200)).encode()
    assert 8 * len(lzma.compress(text)) / len(text) > 1.0


def test_every_frame_can_be_told():
    told = {event.verb for i in range(1500) for event in _log(i)}
    assert set(FRAMES) - told <= set(FACTS)
    assert told <= set(FRAMES)


def _log(i: int):
    draw, world = Draw("frames", i), World()
    draw.pick(PLOTS)(draw, world)
    return world.log


def test_a_third_of_the_stories_ask_where_something_is():
    texts = [story.text for story in stories(1, 0, 1000)]
    asks = [re.search(r"here is [^.?!]*\?|asked where |asked \w+ where |seen [A-Z]\w+\?", text) for text in texts]
    assert 0.25 < sum(found is not None for found in asks) / len(texts) < 0.6


WRONG = {
    "a before a vowel": r"\b[Aa] (?!uni|use|uku|one)[aeiouAEIOU]",
    "an before a consonant": r"\b[Aa]n (?!hour|honest|heir)[^aeiouAEIOU]",
    "two articles": r"\b(the|an?) (the|an?)\b",
    "a doubled word": r"\b(\w+) (?!and)\1\b",
    "a small letter at the beginning": r"(^|[.!?] )[a-z]",
    "an open slot": r"[<>{}]",
    "a wrong space": r"  | [,.!?]|\n$\n",
    "the wrong case": r"\b(to|of|with|from|gave|told|handed|asked) (he|she|they)\b",
    "no agreement": r"\b([Tt]hey was|[Tt]hey has|[Hh]e were|[Ss]he were|[Ii]t were)\b",
    "two full stops": r"\.\.|\?\.|!\.",
}


@pytest.fixture(scope="module")
def grammar_sample():
    return list(documents(3, 0, 1500, "train"))


@pytest.mark.parametrize("pattern", WRONG.values(), ids=WRONG)
def test_grammar(grammar_sample, pattern):
    for document in grammar_sample:
        for line in document.text.splitlines():
            if not line.startswith("A: "):
                assert not re.search(pattern, line), line


def test_quotation_marks_come_in_pairs_and_sentences_end():
    for story in stories(4, 0, 600):
        assert story.text.count('"') % 2 == 0
        assert re.search(r'[.!?]"?\n$', story.text)


def test_a_pronoun_can_only_mean_one_person():
    """It stands for the subject before it, and not where somebody else of the same kind has just been named."""
    she, he = ("she", "her", "her", "herself", "was"), ("he", "him", "his", "himself", "was")
    ann, eve, bob = Person("Ann", she), Person("Eve", she), Person("Bob", he)
    for i in range(100):
        for last_who, other, who, may in ((ann, bob, ann, True), (ann, eve, ann, False), (bob, ann, ann, False)):
            world = World()
            world.tell("praise", last_who, other=other)
            world.tell("mood", who)
            second = narrate(Draw("pronoun", i), world.log)[1]
            assert second.startswith(("Ann", "She") if may else "Ann")


def test_key_is_the_text():
    for story in stories(6, 0, 20):
        assert story.key == hashlib.sha256(story.text.encode()).hexdigest()


class TestBits:
    def test_each_choice_counts_its_information(self):
        draw = Draw("bits")
        draw.pick("abcd")
        assert draw.bits == 2
        draw.below(8)
        assert draw.bits == 5
        draw.sample(range(5), 2)
        assert draw.bits == pytest.approx(5 + math.log2(5 * 4))

    def test_chance_costs_its_entropy_on_average(self):
        draw = Draw("chance")
        hits = sum(draw.chance(0.25) for _ in range(20_000))
        assert hits / 20_000 == pytest.approx(0.25, abs=0.01)
        assert draw.bits / 20_000 == pytest.approx(-0.25 * math.log2(0.25) - 0.75 * math.log2(0.75), abs=0.01)

    def test_sample_is_uniform_over_orders(self):
        draw = Draw("orders")
        counts = Counter(tuple(draw.sample("abc", 2)) for _ in range(12_000))
        assert set(counts) == set(itertools.permutations("abc", 2))
        assert all(1800 < n < 2200 for n in counts.values())

    @pytest.mark.parametrize("problem", [parity, letters])
    def test_bits_bound_the_entropy_of_what_is_made(self, problem):
        """Both have few outcomes, so their entropy can be counted; each is made by choices that differ."""
        texts, bits, n = Counter(), 0.0, 20_000
        for i in range(n):
            draw = Draw("entropy", i)
            texts[problem(draw, 2).text] += 1
            bits += draw.bits / n
        entropy = -sum(count / n * math.log2(count / n) for count in texts.values())
        assert entropy == pytest.approx(bits, abs=0.02)

    def test_no_document_is_likelier_than_its_bits_say(self):
        """Every plot adds at least the choice of the plot and of its people and places."""
        assert min(story.bits for story in stories(1, 0, 500)) > 50

    def test_equal_names_make_equal_choices(self):
        one, two, other = Draw(1, "a", 2), Draw(1, "a", 2), Draw(1, "a", 3)
        first = [one.below(1000) for _ in range(10)]
        assert first == [two.below(1000) for _ in range(10)]
        assert first != [other.below(1000) for _ in range(10)]


def test_split_is_a_twentieth():
    assert 0.04 < sum(split_of(str(i)) == "val" for i in range(10_000)) / 10_000 < 0.06


def test_narrator_agrees_with_the_subject():
    ann, bob = (Person(name, (he, "him", "his", "himself", "was")) for name, he in (("Ann", "she"), ("Bob", "he")))
    for i in range(200):
        world = World()
        world.tell("mood", ann)
        world.tell("bond", ann, bob)
        world.tell("mood", ann, bob)
        single, _, plural = narrate(Draw("agree", i), world.log, fluent=False)
        assert " were " not in single
        assert " was " not in plural
