"""Short stretches that many plots share: how a story opens, what is said on the way, how it ends."""

from legollm.data.world.draw import Draw
from legollm.data.world.lexicon import SEASONS, with_article
from legollm.data.world.state import Person, Place, Slot, Thing, World


def maybe(draw: Draw, world: World, p: float, verb: str, *who: Person, **slots: Slot) -> None:
    """Tell it with probability p."""
    if draw.chance(p):
        world.tell(verb, *who, **slots)


def opening(draw: Draw, world: World, *who: Person, place: Place) -> None:
    """The season or the hour, who somebody is, and that all of `who` are in `place`."""
    if draw.chance(0.3):
        season, months, moods = draw.pick(SEASONS)
        weather, sky = draw.sample(moods, 2)
        month, a_weather = draw.pick(months), with_article(weather)
        world.tell("season", season=season, month=month, weather=weather, a_weather=a_weather, sky=sky)
    else:
        maybe(draw, world, 0.3, "setting")
    if len(who) > 1 and draw.chance(0.2):
        world.tell("bond", *who[:2])
    else:
        maybe(draw, world, 0.5, "character", draw.pick(who))
    world.go(*who, place=place, how="are_at")


def aside(draw: Draw, world: World, who: Person) -> None:
    """Something about `who` that changes nothing."""
    maybe(draw, world, 0.4, "aside", who)


def chat(draw: Draw, world: World, one: Person, two: Person) -> None:
    """Two people talk of this and that, or not."""
    if draw.chance(0.25):
        topic = draw.pick(("topic", "food", "family"))
        world.tell("remark_" + topic, one, other=two)
        maybe(draw, world, 0.6, "reply_" + topic, two, other=one)


def where_talk(draw: Draw, world: World, one: Person, two: Person, thing: Thing) -> None:
    """`one` asks where `thing` is; `two` knows and tells the truth."""
    world.tell("asks_where", one, thing=thing, other=two)
    holder = world.at[thing]
    if isinstance(holder, Person):
        world.tell("answers_who", two, thing=thing, other=holder)
    elif isinstance(holder, Thing) and isinstance(world.at.get(holder), Thing) and draw.chance(0.7):
        outer = world.at[holder]
        assert isinstance(outer, Thing)
        world.tell("answers_nested", two, thing=thing, into=holder, outer=outer)
    else:
        world.tell("answers_where", two, thing=thing, where=holder.at, Where=holder.at.capitalize())


def whereabouts_talk(world: World, one: Person, two: Person, missing: Person) -> None:
    """`one` asks where `missing` is; `two` knows and tells the truth."""
    world.tell("asks_where_person", one, missing=missing, other=two)
    at = world.place_of(missing).at
    world.tell("answers_where_person", two, missing=missing, where=at, Where=at.capitalize())


def closing(draw: Draw, world: World, *who: Person) -> None:
    """All ends well, in one or two sentences."""
    world.tell("ends_well", *who)
    maybe(draw, world, 0.2, draw.pick(("moral", "night")), *who)
