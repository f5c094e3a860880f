"""Scenes with questions that take two sentences or more: chains, changes, beliefs, orders, counts and rules.

As in scenes.py, everything of one kind is asked about equally often, so that position alone tells nothing.
"""

from legollm.data.world import cast
from legollm.data.world.draw import Draw
from legollm.data.world.lexicon import FRUIT, JOBS, NUMBERS, SMALL, SMALL_BOXES, with_article
from legollm.data.world.scenes import WHERE, Ask, Scene, extremes, look_up, scene, yes_no
from legollm.data.world.state import World


def carried(draw: Draw) -> Scene:
    """Three people with a thing each go to three places: where a thing is takes its holder and the holder's place."""
    world, who, what, where = World(), cast.people(draw, 3), cast.things(draw, 3), cast.places(draw, 3)
    for person, thing in zip(who, what, strict=True):
        world.at[thing] = person
        world.tell("holds", person, thing=thing)
    for i in draw.sample(range(3), 3):
        world.go(who[i], place=where[i])
    names, nouns = [person.name for person in who], [f"{thing}" for thing in what]
    at = [world.place_of(thing).at for thing in what]
    asks = [
        *look_up(draw, "where-carried", WHERE, nouns, at),
        *look_up(draw, "who-has", ("Who has {}?",), nouns, names),
        *look_up(draw, "where-person", WHERE, names, at),
        *yes_no(draw, nouns, at),
    ]
    return scene(draw, world, asks, "carried", names, nouns, at)


def nested(draw: Draw) -> Scene:
    """Three things in three boxes, which are taken to three places."""
    world, what, where = World(), cast.things(draw, 3, SMALL), cast.places(draw, 3)
    who, boxes = cast.people(draw, 3), cast.boxes(draw, 3, SMALL_BOXES)
    for thing, box in zip(what, boxes, strict=True):
        world.at[thing] = box
        world.tell("lies", thing=thing, into=box)
    for i in draw.sample(range(3), 3):
        world.at[boxes[i]] = who[i]
        world.go(who[i], place=where[i], how="carry", thing=boxes[i])
    nouns = [f"{thing}" for thing in what]
    at = [world.place_of(thing).at for thing in what]
    asks = [
        *look_up(draw, "nested", ("In which place is {}?", "In which place can one find {}?"), nouns, at),
        *look_up(draw, "where-object", ("In which box is {}?",), nouns, [box.at for box in boxes]),
    ]
    return scene(draw, world, asks, "nested", nouns, [f"{box}" for box in boxes], at)


def moves(draw: Draw) -> Scene:
    """One of two people goes on to a second place."""
    world, (one, two), (first, second, third) = World(), cast.people(draw, 2), cast.places(draw, 3)
    steps = [(one, first), (one, second)]
    steps.insert(draw.below(3), (two, third))
    for person, place in steps:
        world.go(person, place=place)
    at = tuple(place.at for _, place in steps)
    asks = [
        Ask("moved", f"Where is {one} now?", second.at, at),
        Ask("moved", f"Where was {one} first?", first.at, at),
        Ask("moved", f"Where is {two} now?", third.at, at),
    ]
    nouns = [place.noun for place in (first, second, third)]
    return scene(draw, world, asks, "moves", [one, one, two], ["first", "then", "only"], nouns, pronouns=True)


def belief(draw: Draw) -> Scene:
    """A thing is moved while its owner is away, who goes on believing it where it was."""
    world, (owner, mover), (home, away) = World(), cast.people(draw, 2), cast.places(draw, 2)
    thing, other = cast.things(draw, 2)
    spots = cast.hiding_places(draw, 3, home)
    first, second, third = spots
    world.at.update({owner: home, mover: home})
    if early := draw.chance(0.5):
        world.put(mover, other, third)
    world.put(owner, thing, first)
    world.go(owner, place=away, how="leaves")
    world.put(mover, thing, second)
    if not early:
        world.put(mover, other, third)
    at = tuple(spot.at for spot in spots)
    asks = [
        Ask("belief", f"Where is {thing}?", world.at[thing].at, at),
        Ask("belief", f"Where does {owner} believe {thing} is?", world.seen[owner, thing].at, at),
        Ask("belief", f"Where is {other}?", world.at[other].at, at),
    ]
    return scene(
        draw, world, asks, "belief", [owner, mover, ""], [thing.noun, thing.noun, other.noun], at, pronouns=True
    )


def passed(draw: Draw) -> Scene:
    """A thing goes through three pairs of hands."""
    world, who = World(), cast.people(draw, 3)
    (thing,) = cast.things(draw, 1)
    first, second, third = who
    (place,) = cast.places(draw, 1)
    world.at.update({first: place, second: place, third: place, thing: first})
    world.tell("holds", first, thing=thing)
    world.give(first, thing, second)
    world.give(second, thing, third)
    names = tuple(person.name for person in who)
    asks = [
        Ask("passed", f"Who has {thing} now?", names[2], names),
        Ask("passed", f"Who had {thing} first?", names[0], names),
        Ask("passed", f"Who gave {thing} to {names[2]}?", names[1], names),
    ]
    return scene(draw, world, asks, "passed", names, [thing.noun] * 3, range(3))


def order(draw: Draw) -> Scene:
    """Three people in an order, of which two neighbours are told at a time."""
    world, who = World(), cast.people(draw, 3)
    for i in draw.sample(range(2), 2):
        if draw.chance(0.5):
            world.tell("comes_before", who[i], other=who[i + 1])
        else:
            world.tell("comes_after", who[i + 1], other=who[i])
    names = tuple(person.name for person in who)
    asks = [
        Ask("order", f"Who came {place}?", name, names)
        for place, name in zip(("first", "second", "last"), names, strict=True)
    ]
    return scene(draw, world, asks, "order", names, range(3))


def counts(draw: Draw) -> Scene:
    """Three people with so many of one kind of fruit each."""
    world, who = World(), cast.people(draw, 3)
    fruit = draw.pick(FRUIT)
    amounts = [4 + i for i in draw.sample(range(9), 3)]
    names = [person.name for person in who]
    for person, n in zip(who, amounts, strict=True):
        world.tell("has_some", person, n=NUMBERS[n], fruit=fruit)
    asks = [
        *look_up(draw, "how-many", (f"How many {fruit} did {{}} have?",), names, [NUMBERS[n] for n in amounts]),
        *extremes("compare", (f"Who had the fewest {fruit}?", f"Who had the most {fruit}?"), names, amounts),
    ]
    return scene(draw, world, asks, "counts", names, amounts, [fruit] * 3)


def change(draw: Draw) -> Scene:
    """Somebody gives some of their fruits to somebody who had some."""
    world, (one, two) = World(), cast.people(draw, 2)
    fruit = draw.pick(FRUIT)
    had, had_too = 4 + draw.below(7), 2 + draw.below(8)
    given = 2 + draw.below(had - 3)
    world.tell("has_some", one, n=NUMBERS[had], fruit=fruit)
    world.tell("has_some", two, n=NUMBERS[had_too], fruit=fruit)
    world.tell("gives_fruit", one, n=NUMBERS[given], fruit=fruit, other=two)
    numbers = {had, had_too, given}
    asks = [
        Ask(
            "count",
            f"How many {fruit} does {name} have now?",
            NUMBERS[n],
            tuple(NUMBERS[m] for m in sorted({n, *numbers})),
        )
        for name, n in ((one, had - given), (two, had_too + given))
    ]
    return scene(draw, world, asks, "change", [fruit, one, two], [given, had, had_too])


def excluded(draw: Draw) -> Scene:
    """A thing is in one of three spots, and in two of them it is not."""
    world, (person,), (place,) = World(), cast.people(draw, 1), cast.places(draw, 1)
    (thing,) = cast.things(draw, 1)
    spots = cast.hiding_places(draw, 3, place)
    at = [spot.at for spot in spots]
    right, *wrong = draw.sample(at, 3)
    world.tell("one_of", person, thing=thing, one=at[0], two=at[1], three=at[2])
    for where in wrong:
        world.tell("not_there", person, thing=thing, where=where)
    asks = [Ask("excluded", f"Where is {thing}?", right, tuple(at))]
    return scene(draw, world, asks, "excluded", [thing.noun] * 3, at, [where == right for where in at], pronouns=True)


def rules(draw: Draw) -> Scene:
    """What holds for everyone of a trade, and who is of which."""
    world, who, work = World(), cast.people(draw, 3), draw.sample(JOBS, 3)
    what = cast.things(draw, 3)
    for job, thing in zip(work, what, strict=True):
        world.tell("every", job=job, a_job=with_article(job), thing=thing)
    for i in draw.sample(range(3), 3):
        world.tell("works", who[i], job=work[i], a_job=with_article(work[i]))
    names, nouns = [person.name for person in who], [with_article(thing.noun) for thing in what]
    asks = [
        *look_up(draw, "rule", ("What does {} need?",), names, nouns),
        *look_up(draw, "who-is", ("Who is the {}?",), work, names),
    ]
    return scene(draw, world, asks, "rules", names, work, nouns)
