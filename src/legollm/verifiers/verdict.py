"""What a verifier says of an answer: how good it is, why, and what would have been right.

A verifier is trusted by whoever trains or chooses with it, so it says no more than it knows: where it cannot judge it
raises an error, and never guesses.
"""

from typing import NamedTuple, Protocol

from legollm.errors import VerifierError


class Verdict(NamedTuple):
    """One judgement. `reason` never gives the expected answer away, so that it may be shown to whoever tries again."""

    score: float
    """0 wrong .. 1 right; a trained verifier gives probabilities."""
    reason: str
    correction: str | None = None
    """What would have been right, where the verifier knows it."""

    @property
    def is_right(self) -> bool:
        return self.score >= 0.5

    @property
    def text(self) -> str:
        """In two words, as for a reader: `incorrect: 4`."""
        if self.is_right:
            return "correct"
        return f"incorrect: {self.correction or self.reason}"


RIGHT = Verdict(1.0, "right")


class Verifier(Protocol):
    """A question, an answer, and perhaps a reference answer -> a verdict."""

    def __call__(self, question: str, answer: str, reference: str | None = None) -> Verdict:
        """
        Raises:
            VerifierError: it cannot judge this, whatever the answer: no reference, or a question of another kind.
        """
        ...


def needed(reference: str | None, verifier: str) -> str:
    """The reference of a verifier that compares.

    Raises:
        VerifierError: there is none.
    """
    if reference is None:
        raise VerifierError(f"verifier {verifier}: compares with a reference, and there is none; give `answer`")
    return reference
