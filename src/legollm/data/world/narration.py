"""From events to English: for each event a frame, for each subject a name or a pronoun."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from legollm.data.world.draw import Draw
from legollm.data.world.frames_deeds import DEEDS
from legollm.data.world.frames_facts import FACTS
from legollm.data.world.frames_talk import TALK
from legollm.data.world.frames_views import VIEWS
from legollm.data.world.lexicon import FILLS, with_article
from legollm.data.world.state import Event, Person

_FILL = re.compile(r"<(a )?(\w+)>")
_PARTS = ("morning", "afternoon", "evening")
_TIME_WORD, _PRONOUN, _JOIN = 0.3, 0.75, 0.75
"""How often a sentence that may begin with a time word, use a pronoun or join the one before does so."""
_THEY = ("they", "them", "their", "themselves", "were")


class _It:
    """What a thing is called the second time in one sentence, whatever form the frame asks for."""

    def __format__(self, form: str) -> str:
        return "it"


_IT = _It()


class Frame(NamedTuple):
    """A sentence with open slots, ready for str.format: the fills are positional, the slots have names."""

    text: str
    fills: tuple[tuple[str, ...], ...]
    is_act: bool
    """Says first of all what {who} did: it may follow a time word."""
    is_plain: bool
    """Does so in one clause: two of them may share a sentence."""
    has_subject: bool


def _frame(line: str, *, is_act: bool) -> Frame:
    found = _FILL.findall(line)
    names = [name for _, name in found]
    fills = []
    for i, (article, name) in enumerate(found):  # a set that is used twice is dealt out, so that no word comes twice
        words = FILLS[name][names[:i].count(name) :: names.count(name)]
        fills.append(tuple(map(with_article, words)) if article else words)
    is_act = is_act and line.startswith("{who} ")
    is_plain = is_act and not re.search(r",| and | that |[!:] ", line)
    return Frame(_FILL.sub("{}", line), tuple(fills), is_act, is_plain, "{who}" in line or "{name}" in line)


def _frames(table: Mapping[str, str], *, is_act: bool) -> dict[str, tuple[Frame, ...]]:
    return {
        verb: tuple(_frame(line.strip(), is_act=is_act) for line in lines.strip().splitlines())
        for verb, lines in table.items()
    }


FRAMES: dict[str, tuple[Frame, ...]] = _frames(DEEDS, is_act=True) | _frames(TALK | FACTS | VIEWS, is_act=False)
_TIME_WORDS = tuple(words.capitalize() + " " for words in FILLS["soon"])


def _names(people: Sequence[Person]) -> str:
    if len(people) == 1:
        return people[0].name
    return ", ".join(person.name for person in people[:-1]) + " and " + people[-1].name


def _clear(event: Event, last: Event) -> bool:
    """Whether a pronoun for the subject of `event` can only mean the subject of `last`."""
    if event.who != last.who:
        return False
    others = [slot for slot in (*event.slots.values(), *last.slots.values()) if isinstance(slot, Person)]
    return len(event.who) > 1 or all(other.pronouns != event.who[0].pronouns for other in others)


def narrate(draw: Draw, events: Iterable[Event], *, fluent: bool = True, pronouns: bool = True) -> list[str]:
    """One sentence for each event, or, if `fluent`, sometimes one for two acts of the same person.

    pronouns: whether they may stand for a name anywhere, or only where somebody's mood is told.
    """
    sentences: list[str] = []
    last: Event | None = None  # the event whose subject a pronoun may take up
    part = draw.pick(_PARTS)
    can_go_on = False
    for event in events:
        if event.verb == "next_day":
            part = draw.pick(_PARTS)
        frame = draw.pick(FRAMES[event.verb])
        goes_on = can_go_on and frame.is_plain and last is not None and event.who == last.who and draw.chance(_JOIN)
        slots: Mapping[str, object] = event.slots
        if goes_on and last is not None and "thing" in slots and slots["thing"] is last.slots.get("thing"):
            slots = {**slots, "thing": _IT}
        earlier = last if pronouns or event.verb == "mood" else None
        text = frame.text.format(
            *map(draw.pick, frame.fills), **_subject(draw, event, earlier, goes_on), part=part, **slots
        )
        if goes_on:
            sentences[-1] = f"{sentences[-1][:-1]} and{text}"
        else:
            if frame.is_act and sentences and draw.chance(_TIME_WORD):
                text = draw.pick(_TIME_WORDS) + text
            sentences.append(text[0].upper() + text[1:])
        can_go_on = fluent and frame.is_plain and not goes_on
        last = event if frame.has_subject else None
    return sentences


def _subject(draw: Draw, event: Event, earlier: Event | None, goes_on: bool) -> dict[str, str]:
    """The slots that agree with the subject; {who} is nothing where the sentence before goes on."""
    if not event.who:
        return {}
    he, him, his, self, was = event.who[0].pronouns if len(event.who) == 1 else _THEY
    name = _names(event.who)
    if goes_on:
        who = ""
    else:
        who = he if earlier and _clear(event, earlier) and draw.chance(_PRONOUN) else name
    return {"who": who, "name": name, "he": he, "him": him, "his": his, "self": self, "was": was}
