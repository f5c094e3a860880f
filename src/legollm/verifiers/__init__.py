"""A question and an answer come in, a verdict goes out: a score, a reason, and where it is known what would be right.

verdict    what is said of an answer, and who says it: Verdict, Verifier
answers    which part of what was said is the answer; the same words as the reference
numbers    the same value as the reference, however it is written

What goes on with a verdict: a reward in reinforcement learning, a second try, a vote among answers. Each verifier has
a row in VERIFIERS; docs/verifiers.md says what each can see and what it cannot.
"""

from collections.abc import Mapping
from typing import NamedTuple

from legollm.errors import ConfigError
from legollm.verifiers.answers import exact, final_answer
from legollm.verifiers.numbers import number
from legollm.verifiers.verdict import Verdict, Verifier


class Row(NamedTuple):
    """A verifier and what it does, in one line."""

    verify: Verifier
    summary: str


VERIFIERS: Mapping[str, Row] = {
    "exact": Row(exact, "the words of the reference answer and no others"),
    "number": Row(number, "the value of the reference answer, however it is written"),
}


def verifier(name: str) -> Verifier:
    """A verifier by its name.

    Raises:
        ConfigError: no such verifier.
    """
    if name not in VERIFIERS:
        raise ConfigError(f"verifier: {name!r} is none of {', '.join(VERIFIERS)}")
    return VERIFIERS[name].verify


__all__ = ["VERIFIERS", "Row", "Verdict", "Verifier", "exact", "final_answer", "number", "verifier"]
