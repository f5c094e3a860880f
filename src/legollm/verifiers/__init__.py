"""A question and an answer come in, a verdict goes out: a score, a reason, and where it is known what would be right.

verdict    what is said of an answer, and who says it: Verdict, Verifier
answers    which part of what was said is the answer; the same words as the reference
numbers    the same value as the reference, however it is written
arithmetic the value of an expression in the question: exact, parsed and never run
algebra    the same function as the reference, by its values at several points
pattern    the form of an answer, with a deadline
fallible   verifiers that err, and some that can be gamed, to see what that does
code       unit tests for code, which runs in the sandbox: sandbox starts it, fence is what it runs in

What goes on with a verdict: a reward in reinforcement learning, a second try, a vote among answers. Each verifier has
a row in VERIFIERS; docs/verifiers.md says what each can see and what it cannot.
"""

from collections.abc import Mapping
from typing import NamedTuple

from legollm.errors import ConfigError
from legollm.verifiers.algebra import algebra
from legollm.verifiers.answers import exact, final_answer
from legollm.verifiers.arithmetic import arithmetic
from legollm.verifiers.code import CodeVerifier
from legollm.verifiers.fallible import contains, longer
from legollm.verifiers.numbers import number
from legollm.verifiers.pattern import pattern
from legollm.verifiers.verdict import Verdict, Verifier


class Row(NamedTuple):
    """A verifier and what it does, in one line."""

    verify: Verifier
    summary: str


VERIFIERS: Mapping[str, Row] = {
    "exact": Row(exact, "the words of the reference answer and no others"),
    "number": Row(number, "the value of the reference answer, however it is written"),
    "arithmetic": Row(arithmetic, "the value of the expression in the question, which needs no reference"),
    "algebra": Row(algebra, "the same function as the reference formula"),
    "pattern": Row(pattern, "the form that the reference, a regular expression, describes"),
    "code": Row(CodeVerifier(), "unit tests, run in a sandbox; the reference holds `assert f(1) == 2` and the like"),
    "contains": Row(contains, "the words of the reference anywhere in the answer: easily gamed, to show it"),
    "longer": Row(longer, "the longer the better: easily gamed, to show it"),
}


def verifier(name: str) -> Verifier:
    """A verifier by its name.

    Raises:
        ConfigError: no such verifier.
    """
    if name not in VERIFIERS:
        raise ConfigError(f"verifier: {name!r} is none of {', '.join(VERIFIERS)}")
    return VERIFIERS[name].verify


__all__ = [
    "VERIFIERS",
    "CodeVerifier",
    "Row",
    "Verdict",
    "Verifier",
    "algebra",
    "arithmetic",
    "exact",
    "final_answer",
    "number",
    "pattern",
    "verifier",
]
