"""The simulated state as a verifier: what was true in the world decides, and no reference answer is needed.

It knows more than a reference: whether a wrong answer is at least one that the story speaks of.
"""

from collections.abc import Iterable

from legollm.data.world.lexicon import NUMBERS
from legollm.data.world.questions import Question
from legollm.data.world.reading import content
from legollm.data.world.sums import Sum
from legollm.errors import VerifierError
from legollm.verifiers.answers import final_answer, normal, shortened
from legollm.verifiers.numbers import number
from legollm.verifiers.verdict import RIGHT, Verdict


class Truth:
    """A verifier of the questions it was made of; of others it knows nothing."""

    def __init__(self, problems: Iterable[Question | Sum]) -> None:
        self.known = {asked(problem.prompt): problem for problem in problems}

    def __call__(self, question: str, answer: str, reference: str | None = None) -> Verdict:
        """Right if it says what the state says: articles, prepositions and figures for number words do not count.

        Raises:
            VerifierError: a question that is not from this world.
        """
        problem = self.known.get(asked(question))
        if problem is None:
            raise VerifierError(
                f"verifier world: {shortened(question)} was not asked about this world; use source=world"
            )
        if isinstance(problem, Sum):
            if problem.answer.isdecimal():
                return number(problem.question, answer, problem.answer)
            said = normal(final_answer(answer))
            right = said == normal(problem.answer)
            return RIGHT if right else Verdict(0.0, f"{shortened(said)} is not so", problem.answer)
        said = final_answer(answer)
        if meant(said) == meant(problem.answer):
            return RIGHT
        spoken_of = any(meant(said) == meant(candidate) for candidate in problem.candidates)
        reason = "is said of something else" if spoken_of else "is nothing that the story offers"
        return Verdict(0.0, f"{shortened(said)} {reason}", problem.answer)


def asked(prompt: str) -> str:
    """A prompt without the signs that mark question and answer, so that a chat may ask the same."""
    return prompt.strip().removesuffix("A:").rstrip().replace("\nQ: ", "\n").removeprefix("Q: ")


def meant(answer: str) -> list[str]:
    """The words that tell one answer from another."""
    return [NUMBERS[int(word)] if word.isdecimal() and int(word) < len(NUMBERS) else word for word in content(answer)]
