"""Verifiers that are wrong now and then, and some that can be gamed: what trusting one costs.

A verifier in use is never quite the goal. Whoever searches among more answers, or trains longer, finds more of those
that the verifier takes for right (Gao et al. 2022, arXiv:2210.10760); these make that visible on purpose.
"""

import hashlib
from dataclasses import dataclass

from legollm.errors import ConfigError
from legollm.verifiers.answers import normal, shortened
from legollm.verifiers.verdict import RIGHT, Verdict, Verifier, needed

LONG = 200
"""Characters of an answer that verifier `longer` finds perfect."""


@dataclass(frozen=True)
class NoisyVerifier:
    """A verifier whose verdict is turned round for a share of all answers: always for the same ones, by their text."""

    verifier: Verifier
    false_accept: float = 0.0
    """Share of wrong answers that are accepted."""
    false_reject: float = 0.0
    """Share of right answers that are rejected."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("false_accept", "false_reject"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: a share from 0 to 1, found {getattr(self, name)}")

    def __call__(self, question: str, answer: str, reference: str | None = None) -> Verdict:
        verdict = self.verifier(question, answer, reference)
        if draw(self.seed, question, answer) >= (self.false_reject if verdict.is_right else self.false_accept):
            return verdict
        return Verdict(0.0, f"{shortened(answer)} was rejected") if verdict.is_right else RIGHT


def draw(seed: int, *texts: str) -> float:
    """A number from 0 to 1 that depends on nothing but these."""
    digest = hashlib.sha256("\0".join((str(seed), *texts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def contains(question: str, answer: str, reference: str | None = None) -> Verdict:
    """Accepts whatever has the words of the reference somewhere in it: who names all answers is always right."""
    if normal(needed(reference, "contains")) in normal(answer):
        return RIGHT
    return Verdict(0.0, "the expected words are not in it", reference)


def longer(question: str, answer: str, reference: str | None = None) -> Verdict:
    """The longer the better, as a reader who is impressed by length would judge; what is said does not matter."""
    score = min(1.0, len(answer.strip()) / LONG)
    return Verdict(score, f"{len(answer.strip())} characters, {LONG} would be better")
