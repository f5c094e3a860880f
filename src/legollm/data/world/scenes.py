"""Small scenes with questions that a single sentence answers.

n facts of one kind, told in random order, any of them asked about. Each is asked about equally often, so "the first
place mentioned", "the last" and every other rule that does not read the question are right one time in n. Questions
that are counted have n = 3; scenes of one and two facts are there to learn from.
"""

from collections.abc import Sequence
from typing import NamedTuple

from legollm.data.world import cast
from legollm.data.world.draw import Draw
from legollm.data.world.lexicon import DAYS, DISHES, JOBS, NUMBERS, with_article
from legollm.data.world.narration import narrate
from legollm.data.world.state import Event, World


class Ask(NamedTuple):
    """One question about a scene; `candidates` are the answers the scene makes plausible, in its order."""

    kind: str
    question: str
    answer: str
    candidates: tuple[str, ...]
    key: str = ""
    """What it names and the telling sentence names, too; empty where more than one sentence is needed."""


class Scene(NamedTuple):
    """What is told, its facts in a canonical form, and everything that may be asked."""

    text: str
    key: str
    asks: tuple[Ask, ...]


def scene(
    draw: Draw, world: World, asks: Sequence[Ask], name: str, *facts: Sequence[object], pronouns: bool = False
) -> Scene:
    """The log of `world` as text, sometimes with a sentence before or between that bears on nothing asked.

    facts: columns of equal length; their rows, in any order, are the key. pronouns: whether facts may use them.
    """
    events = list(world.log)
    told_of = [i for i, event in enumerate(events) if event.who]
    if told_of and draw.chance(0.4):
        i = draw.pick(told_of)
        events.insert(i + 1, Event("mood", events[i].who, {}))
    if draw.chance(0.4):
        events.insert(0, Event("backdrop", (), {}))
    key = name + ":" + "|".join(sorted("=".join(f"{value}" for value in row) for row in zip(*facts, strict=True)))
    return Scene(" ".join(narrate(draw, events, fluent=False, pronouns=pronouns)), key, tuple(asks))


def look_up(draw: Draw, kind: str, forms: Sequence[str], keys: Sequence[str], values: Sequence[str]) -> list[Ask]:
    """For each of `keys` a question, one of `forms` with {} for the key; its value is the answer."""
    candidates = tuple(values)
    return [
        Ask(kind, draw.pick(forms).format(key), value, candidates, key) for key, value in zip(keys, values, strict=True)
    ]


def yes_no(draw: Draw, names: Sequence[str], at: Sequence[str]) -> list[Ask]:
    """Whether somebody is where somebody is: yes half of the time. None about a single person."""
    if len(names) == 1:
        return []
    asked, other = draw.sample(range(len(names)), 2)
    is_so = draw.chance(0.5)
    where = at[asked if is_so else other]
    return [Ask("yes-no", f"Is {names[asked]} {where}?", "yes" if is_so else "no", ("yes", "no"))]


def extremes(kind: str, forms: tuple[str, str], names: Sequence[str], amounts: Sequence[int]) -> list[Ask]:
    """Who has the smallest and who the largest of different amounts. None about a single one."""
    if len(names) == 1:
        return []
    by_amount = [name for _, name in sorted(zip(amounts, names, strict=True))]
    return [
        Ask(kind, form, name, tuple(names)) for form, name in zip(forms, (by_amount[0], by_amount[-1]), strict=True)
    ]


def whereabouts(draw: Draw, n: int = 3) -> Scene:
    """People in different places."""
    world, who, where = World(), cast.people(draw, n), cast.places(draw, n)
    for person, place in zip(who, where, strict=True):
        world.go(person, place=place, how=draw.pick(("go", "is_at")))
    names, at = [person.name for person in who], [place.at for place in where]
    asks = [
        *look_up(draw, "where-person", WHERE, names, at),
        *look_up(draw, "who-where", ("Who is {}?",), at, names),
        *yes_no(draw, names, at),
    ]
    return scene(draw, world, asks, "whereabouts", names, at)


def holdings(draw: Draw, n: int = 3) -> Scene:
    """People with a coloured thing each."""
    world, who, what = World(), cast.people(draw, n), cast.coloured_things(draw, n)
    for person, thing in zip(who, what, strict=True):
        world.at[thing] = person
        world.tell("holds", person, thing=thing)
    names, nouns, colours = [p.name for p in who], [f"{t}" for t in what], [t.look for t in what]
    asks = [
        *look_up(draw, "who-has", ("Who has {}?", "Who is holding {}?"), nouns, names),
        *look_up(draw, "what-has", ("What does {} have?", "What is {} holding?"), names, nouns),
        *look_up(draw, "which-colour", ("What colour is {}?", "Which colour is {}?"), nouns, colours),
    ]
    return scene(draw, world, asks, "holdings", names, nouns, colours)


def hidden(draw: Draw, n: int = 3) -> Scene:
    """Things in different boxes or at other spots."""
    world, what = World(), cast.things(draw, n)
    (person,), (place,) = cast.people(draw, 1), cast.places(draw, 1)
    where = cast.hiding_places(draw, n, place)
    world.at[person] = place
    for thing, into in zip(what, where, strict=True):
        if draw.chance(0.5):
            world.put(person, thing, into)
        else:
            world.at[thing] = into
            world.tell("lies", thing=thing, into=into)
    nouns, at = [f"{thing}" for thing in what], [into.at for into in where]
    asks = [
        *look_up(draw, "where-object", (*WHERE, "Where can one find {}?"), nouns, at),
        *look_up(draw, "what-inside", ("What is {}?",), at, nouns),
    ]
    return scene(draw, world, asks, "hidden", nouns, at)


def days(draw: Draw, n: int = 3) -> Scene:
    """People go out on different days of one week."""
    world, who, where = World(), cast.people(draw, n), cast.places(draw, n)
    dates = draw.sample(range(7), n)
    on = ["on " + DAYS[date] for date in dates]
    for person, place, day in zip(who, where, on, strict=True):
        world.go(person, place=place, how="go_on_day", day=day)
    names, to = [person.name for person in who], [f"to {place}" for place in where]
    asks = [
        *look_up(draw, "when", ("When did {} go out?", "On which day did {} go out?"), names, on),
        *look_up(draw, "who-when", ("Who went out {}?",), on, names),
        *look_up(draw, "where-to", ("Where did {} go?",), names, to),
        *extremes("first-last", ("Who went out first that week?", "Who went out last that week?"), names, dates),
    ]
    return scene(draw, world, asks, "days", names, to, on)


def jobs(draw: Draw, n: int = 3) -> Scene:
    """People and their work."""
    world, who, work = World(), cast.people(draw, n), draw.sample(JOBS, n)
    for person, job in zip(who, work, strict=True):
        world.tell("works", person, job=job, a_job=with_article(job))
    names = [person.name for person in who]
    asks = [
        *look_up(draw, "which-job", ("What is {}'s job?", "What is the job of {}?"), names, work),
        *look_up(draw, "who-is", ("Who is the {}?",), work, names),
    ]
    return scene(draw, world, asks, "jobs", names, work)


def meals(draw: Draw, n: int = 3) -> Scene:
    """People and what they ate."""
    world, who, food = World(), cast.people(draw, n), draw.sample(DISHES, n)
    for person, dish in zip(who, food, strict=True):
        world.tell("eats", person, dish=dish)
    names = [person.name for person in who]
    asks = [
        *look_up(draw, "what-eaten", ("What did {} eat?", "What did {} have to eat?"), names, food),
        *look_up(draw, "who-ate", ("Who ate {}?", "Who had {}?"), food, names),
    ]
    return scene(draw, world, asks, "meals", names, food)


def prices(draw: Draw, n: int = 3) -> Scene:
    """Things with different prices."""
    world, what = World(), cast.things(draw, n)
    amounts = [2 + i for i in draw.sample(range(19), n)]
    cost = [NUMBERS[amount] + " coins" for amount in amounts]
    for thing, price in zip(what, cost, strict=True):
        world.tell("costs", thing=thing, price=price)
    nouns = [f"{thing}" for thing in what]
    asks = [
        *look_up(draw, "how-much", ("How much did {} cost?", "What was the price of {}?"), nouns, cost),
        *look_up(draw, "what-cost", ("What cost {}?",), cost, nouns),
        *extremes("compare-prices", ("What was the cheapest?", "What was the dearest?"), nouns, amounts),
    ]
    return scene(draw, world, asks, "prices", nouns, cost)


WHERE = ("Where is {}?", "Where is {} now?")
