"""Who and what a document is about, drawn without repetition so that each name means one thing."""

from legollm.data.world.draw import Draw
from legollm.data.world.lexicon import (
    BIG_BOXES,
    COLOURS,
    COUNTRY,
    FURNITURE,
    HARD,
    HARD_LOOKS,
    INDOOR_SPOTS,
    MEN,
    OUTDOOR_SPOTS,
    PLACES,
    SMALL,
    SMALL_BOXES,
    SOFT,
    SOFT_LOOKS,
    WOMEN,
)
from legollm.data.world.state import Person, Place, Spot, Thing

IT = ("it", "it", "its", "itself", "was")
SHE = ("she", "her", "her", "herself", "was")
HE = ("he", "him", "his", "himself", "was")

PEOPLE = tuple(Person(name, SHE) for name in WOMEN) + tuple(Person(name, HE) for name in MEN)
BOXES = SMALL_BOXES + BIG_BOXES
_SOFT, _OUTDOORS = frozenset(SOFT), frozenset(COUNTRY)


def people(draw: Draw, n: int) -> list[Person]:
    return draw.sample(PEOPLE, n)


def places(draw: Draw, n: int, among: tuple[str, ...] = PLACES) -> list[Place]:
    return [Place(noun) for noun in draw.sample(among, n)]


def things(draw: Draw, n: int, among: tuple[str, ...] = SMALL + HARD + SOFT) -> list[Thing]:
    """Different nouns, each with a look that suits what it is made of."""
    return [Thing(noun, draw.pick(SOFT_LOOKS if noun in _SOFT else HARD_LOOKS)) for noun in draw.sample(among, n)]


def coloured_things(draw: Draw, n: int) -> list[Thing]:
    """Different nouns in different colours."""
    nouns = draw.sample(SMALL + HARD + SOFT, n)
    return [Thing(noun, colour) for noun, colour in zip(nouns, draw.sample(COLOURS, n), strict=True)]


def boxes(draw: Draw, n: int, among: tuple[str, ...] = BOXES) -> list[Thing]:
    return [Thing(noun, draw.pick(HARD_LOOKS)) for noun in draw.sample(among, n)]


def spots(draw: Draw, n: int, place: Place | None = None) -> list[Spot]:
    """Spots that `place` may have, or any place with a roof."""
    outdoors = place is not None and place.noun in _OUTDOORS
    return [Spot(prep, noun) for prep, noun in draw.sample(OUTDOOR_SPOTS if outdoors else INDOOR_SPOTS, n)]


def hiding_places(draw: Draw, n: int, place: Place) -> list[Thing | Spot]:
    """Boxes or spots that `place` may have, all of one kind."""
    if draw.chance(0.5):
        return [*spots(draw, n, place)]
    return [*boxes(draw, n, BOXES if place.noun in _OUTDOORS else BOXES + FURNITURE)]
