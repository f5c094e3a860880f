"""Numbers in text: what value was stated, in which unit, and whether it is the expected one.

Values are exact fractions: 0.75, 3/4 and 75% are the same, 0.333 is not 1/3. What is understood: signs, thousands
(1,200.50), currency signs, fractions and mixed numbers (1 1/2), powers of ten (1e3), percent, LaTeX's frac, and the
units of the table below, which are converted. Other nouns are not read: 5 apples and 5 pears are both 5.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from legollm.errors import VerifierError
from legollm.verifiers.answers import MAX_CHARACTERS, final_answer, shortened
from legollm.verifiers.verdict import RIGHT, Verdict, needed

MAX_DIGITS = 300
MAX_EXPONENT = 300


class Unit(NamedTuple):
    """What is measured, and how much of its smallest unit this one is."""

    dimension: str
    size: Fraction


UNITS = {
    name: Unit(dimension, Fraction(size))
    for dimension, sizes in {
        "money": {"cent cents": 1, "dollar dollars usd $": 100},
        "euros": {"euro euros eur \N{EURO SIGN}": 1},
        "time": {
            "second seconds sec secs": 1,
            "minute minutes min mins": 60,
            "hour hours hr hrs": 3600,
            "day days": 86400,
            "week weeks": 604800,
        },
        "length": {"millimeter millimeters mm": 1, "centimeter centimeters cm": 10}
        | {"meter meters metre metres m": 1000, "kilometer kilometers kilometre kilometres km": 1_000_000},
        "feet": {"inch inches": 1, "foot feet ft": 12, "yard yards": 36, "mile miles": 63360},
        "mass": {"gram grams g": 1, "kilogram kilograms kg": 1000},
        "pounds": {"ounce ounces oz": 1, "pound pounds lb lbs \N{POUND SIGN}": 16},  # the sign is money, the name alike
    }.items()
    for names, size in sizes.items()
    for name in names.split()
}
PERCENT = Unit("share", Fraction(1, 100))

DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)"
NUMBER = re.compile(
    rf"(?P<sign>[-+])?(?:(?P<currency>[$\N{{EURO SIGN}}\N{{POUND SIGN}}])\s?(?P<inner>-)?)?"
    rf"(?P<whole>{DIGITS}(?:\.\d+)?|\.\d+)(?:[eE](?P<exponent>[-+]?\d+)(?!\w))?"
    r"(?:(?P<mixed>\s\d+)?\s?/\s?(?P<below>\d+)(?![\d.]))?"
    r"(?:\s?(?P<percent>%|percent\b|per cent\b)|[\s-]?(?P<unit>[A-Za-z]+))?"
)
ASKED = re.compile(r"\bhow many ([a-z]+)|\bin (dollars|cents|[a-z]*meters|[a-z]*metres|[a-z]*grams|minutes|hours)\b")


class Quantity(NamedTuple):
    """A number as it stands in a text."""

    value: Fraction
    unit: Unit | None

    @property
    def in_units(self) -> Fraction:
        """In the smallest unit of what is measured."""
        return self.value * (self.unit.size if self.unit else 1)


def quantities(text: str) -> list[Quantity]:
    """Every number of a text, in order; those that are too long to be meant are left out."""
    text = plain(text[-MAX_CHARACTERS:]).replace("**", "")  # bold
    found = []
    position = 0
    while match := NUMBER.search(text, position):
        position = max(match.end(), match.start() + 1)
        if match["unit"]:
            position = match.start("unit")  # `2x3`: what follows is looked at again
        before = text[max(0, match.start() - 2) : match.start()]
        if before[-1:].isalpha() or (match["whole"][0] == "." and re.search(r"[\d.]$", before[-1:])):
            continue
        is_operator = match["sign"] is not None and re.search(r"[\d)%]\s?$", before) is not None
        if (value := value_of(match, is_operator=is_operator)) is not None:
            found.append(Quantity(value, unit_of(match)))
    return found


def plain(text: str) -> str:
    """LaTeX and typographic signs as a keyboard has them."""
    if "\\" in text:
        text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
        text = re.sub(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}", r" \1", text)
        text = re.sub(r"\\[,;! ]", "", text).replace("\\$", "$").replace("\\%", "%")
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{NO-BREAK SPACE}", " ")


def value_of(match: re.Match[str], *, is_operator: bool) -> Fraction | None:
    """The value of a match of NUMBER; None if it has none. is_operator: its sign stands between two numbers."""
    whole, exponent = match["whole"].replace(",", ""), int((match["exponent"] or "0")[:6])
    if len(whole) > MAX_DIGITS or abs(exponent) > MAX_EXPONENT:
        return None
    value = Fraction(int(whole)) if whole.isdigit() else Fraction(whole)
    if exponent:
        value *= Fraction(10) ** exponent
    if below := match["below"]:
        if len(below) > MAX_DIGITS or not int(below) or len(match["mixed"] or "") > MAX_DIGITS:
            return None
        value = value + Fraction(int(match["mixed"]), int(below)) if match["mixed"] else value / int(below)
    negative = match["inner"] or (match["sign"] == "-" and not is_operator)
    return -value if negative else value


def unit_of(match: re.Match[str]) -> Unit | None:
    if match["percent"]:
        return PERCENT
    return UNITS.get(match["currency"] or (match["unit"] or "").lower())


def stated(answer: str) -> Quantity | None:
    """The number an answer comes to: the last one of its final part."""
    found = quantities(final_answer(answer))
    return found[-1] if found else None


def asked_unit(question: str) -> Unit | None:
    """The unit in which a question wants its answer, if it says so: how many minutes, how much in dollars."""
    asked = [one or other for one, other in ASKED.findall(question.lower())]
    return UNITS.get(asked[-1]) if asked else None


def same(given: Quantity, wanted: Quantity) -> bool:
    """Whether two quantities are the same; where only one names a unit, its number counts.

    A share is written in two ways: 75%, for which also 75 is said, and 0.75.
    """
    if given.unit and wanted.unit:
        return given.unit.dimension == wanted.unit.dimension and given.in_units == wanted.in_units
    if PERCENT in (given.unit, wanted.unit) and given.in_units == wanted.in_units:
        return True
    return given.value == wanted.value


def number(question: str, answer: str, reference: str | None = None) -> Verdict:
    """The value of the reference, however it is written; a unit must agree where both name one."""
    wanted = stated(needed(reference, "number"))
    assert reference is not None
    given = stated(answer)
    correction = final_answer(reference)
    if wanted is None:
        raise VerifierError(f"verifier number: no number in the reference {shortened(reference)}; use verifier=exact")
    if given is None:
        return Verdict(0.0, f"there is no number in {shortened(final_answer(answer))}", correction)
    if wanted.unit is None:
        wanted = wanted._replace(unit=asked_unit(question))
    if same(given, wanted):
        return RIGHT
    if given.value == wanted.value:
        return Verdict(0.0, "the number is right, but not in this unit", correction)
    return Verdict(0.0, f"{spelled(given.value)} is not the expected number", correction)


def spelled(value: Fraction) -> str:
    """A fraction as one writes it: 4, 0.5, 1/3."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    while rest % 10 == 0 or rest % 2 == 0 or rest % 5 == 0:
        rest //= 10 if rest % 10 == 0 else 2 if rest % 2 == 0 else 5
        places += 1
    if rest > 1 or places > 12:
        return str(value)
    digits = str(abs(value) * 10**places)
    digits = digits.rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
