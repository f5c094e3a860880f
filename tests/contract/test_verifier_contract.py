"""Every verifier of the table: accepts and rejects its examples, says why, and survives whatever a model may write."""

import pytest

from legollm.errors import SandboxError, VerifierError
from legollm.verifiers import VERIFIERS, Verdict
from legollm.verifiers.sandbox import level

EXAMPLES = {
    "exact": ("Where is Mira?", "In the mill.", "in the barn", "in the mill"),
    "number": ("How much is it?", "It is $1,200.50.", "$1,200.05", "1200.5"),
    "arithmetic": ("What is 27 + 58?", "85", "75", None),
    "algebra": ("Simplify x + x.", "2x", "x^2", "x * 2"),
    "pattern": ("When?", "12:30", "half past twelve", r"\d\d:\d\d"),
    "code": ("Write double.", "def double(x): return 2 * x", "def double(x): return x", "assert double(3) == 6"),
    "contains": ("Where is Mira?", "in the mill or in the barn", "in the barn", "in the mill"),
    "longer": ("Where is Mira?", "I do not know. " * 20, "here", None),
}
"""A question, a right answer, a wrong one, and the reference."""

HOSTILE = {
    "nothing": "",
    "white space": " \n\t ",
    "zero byte": "\0",
    "half a pair": "\ud800",
    "digits": "9" * 100_000,
    "brackets": "(" * 50_000,
    "boxes": "\\boxed{" * 20_000,
    "marks": "Answer: " * 20_000,
    "powers": "9^9^9^9^9^9",
    "exponent": "1e999999999",
    "commas": "1," * 50_000,
    "fences": "```python\n" * 5_000,
    "right to left": "\u202e4\u202c",
    "minus": "-" * 50_000,
    "fraction": "1/0 " * 10_000,
}


def judged(name: str, answer: str) -> Verdict:
    question, _, _, reference = EXAMPLES[name]
    try:
        return VERIFIERS[name].verify(question, answer, reference)
    except SandboxError as error:
        assert level() == "none"
        pytest.skip(str(error))


def test_every_verifier_has_an_example() -> None:
    assert EXAMPLES.keys() == VERIFIERS.keys()


@pytest.mark.parametrize("name", VERIFIERS)
def test_the_right_answer_is_accepted_and_the_wrong_one_is_not(name: str) -> None:
    _, right, wrong, reference = EXAMPLES[name]
    assert judged(name, right).is_right
    verdict = judged(name, wrong)
    assert not verdict.is_right
    assert verdict.reason
    assert "\n" not in verdict.reason
    assert reference is None or reference not in verdict.reason
    assert judged(name, wrong) == verdict


@pytest.mark.parametrize("name", VERIFIERS)
def test_whatever_a_model_writes_gets_a_verdict(name: str) -> None:
    for what, answer in HOSTILE.items():
        verdict = judged(name, answer)
        assert 0 <= verdict.score <= 1, what
        assert len(verdict.reason) < 500, what
        assert name == "longer" or not verdict.is_right, what


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example[3] is not None])
def test_what_needs_a_reference_says_so(name: str) -> None:
    question, right, _, _ = EXAMPLES[name]
    with pytest.raises(VerifierError, match=f"verifier {name}: .*give `answer`"):
        VERIFIERS[name].verify(question, right)
