"""The micro-world itself: who and what there is, where it is, who knows it, and what has happened so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from legollm.data.world.lexicon import with_article


@dataclass(frozen=True, eq=False, slots=True)
class Person:
    """Somebody with a name; `pronouns` are the forms of he, him, his, himself, was."""

    name: str
    pronouns: tuple[str, str, str, str, str]

    def __format__(self, form: str) -> str:
        return self.name

    @property
    def at(self) -> str:
        return f"with {self.name}"


@dataclass(frozen=True, eq=False, slots=True)
class Thing:
    """Something that can be carried, and hold other things if it is a box.

    In a frame, {thing} is "the kite", {thing:a} "a red kite", {thing:full} "the red kite", {thing:noun} "kite",
    {thing:at} "in the kite" and {thing:at_a} "in a red kite".
    """

    noun: str
    look: str

    def __format__(self, form: str) -> str:
        if not form:
            return "the " + self.noun
        if form == "a":
            return with_article(f"{self.look} {self.noun}")
        if form == "a_noun":
            return with_article(self.noun)
        if form == "The":
            return "The " + self.noun
        if form == "full":
            return f"the {self.look} {self.noun}"
        if form == "at":
            return self.at
        if form == "at_a":
            return "in " + with_article(f"{self.look} {self.noun}")
        assert form == "noun"
        return self.noun

    @property
    def at(self) -> str:
        return f"in the {self.noun}"


@dataclass(frozen=True, eq=False, slots=True)
class Spot:
    """A fixed piece of a place, on, under, behind or beside which things lie."""

    prep: str
    noun: str

    def __format__(self, form: str) -> str:
        return self.at if form else "the " + self.noun

    @property
    def at(self) -> str:
        return f"{self.prep} the {self.noun}"


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """A room or a larger place; all of them are places one can be in."""

    noun: str

    def __format__(self, form: str) -> str:
        return "the " + self.noun

    @property
    def at(self) -> str:
        return f"in the {self.noun}"


Holder = Person | Thing | Spot | Place
Slot = Person | Thing | Spot | Place | str | int


class Event(NamedTuple):
    """Something that happened or is worth saying: the name of its frames, who did it, what else is in it."""

    verb: str
    who: tuple[Person, ...]
    slots: Mapping[str, Slot]


@dataclass(slots=True)
class World:
    """What is true now. Every change is an event in the log, so that what is told is what happened."""

    at: dict[Person | Thing | Spot, Holder] = field(default_factory=dict)
    """The next larger thing each is in: a coin in a tin, the tin in a chest, the chest in the attic; a lamp at Mira."""
    seen: dict[tuple[Person, Thing], Holder] = field(default_factory=dict)
    """Where each person last saw each thing put: what they believe, true or not."""
    log: list[Event] = field(default_factory=list)

    def tell(self, verb: str, *who: Person, **slots: Slot) -> None:
        """Something that changes no place."""
        self.log.append(Event(verb, who, slots))

    def go(self, *who: Person, place: Place, how: str = "go", **slots: Slot) -> None:
        for person in who:
            self.at[person] = place
        self.log.append(Event(how, who, {"place": place, **slots}))

    def put(self, who: Person, thing: Thing, into: Thing | Spot, how: str = "put", **slots: Slot) -> None:
        """`into` is where `who` is, unless it has been put elsewhere before."""
        if into not in self.at:
            self.at[into] = self.place_of(who)
        self._lay(thing, into)
        self.log.append(Event(how, (who,), {"thing": thing, "into": into, **slots}))

    def take(self, who: Person, thing: Thing, how: str = "take", **slots: Slot) -> None:
        """`who` goes to no other place for it: what lies elsewhere is reached by `go` first."""
        self._lay(thing, who)
        self.log.append(Event(how, (who,), {"thing": thing, **slots}))

    def give(self, who: Person, thing: Thing, to: Person, how: str = "give", **slots: Slot) -> None:
        self._lay(thing, to)
        self.log.append(Event(how, (who,), {"thing": thing, "other": to, **slots}))

    def place_of(self, x: Person | Thing | Spot) -> Place:
        """The place at the end of the chain of what is in what."""
        holder = self.at[x]
        while not isinstance(holder, Place):
            holder = self.at[holder]
        return holder

    def _lay(self, thing: Thing, holder: Person | Thing | Spot) -> None:
        """Everybody who is there sees it."""
        self.at[thing] = holder
        here = self.place_of(thing)
        for person, place in self.at.items():
            if place is here and isinstance(person, Person):
                self.seen[person, thing] = holder
