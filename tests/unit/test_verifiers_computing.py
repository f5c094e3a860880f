"""Verifiers that compute: arithmetic, algebra and patterns, with hostile inputs."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legollm.data import world
from legollm.errors import VerifierError
from legollm.verifiers import Verdict, algebra, arithmetic, pattern
from legollm.verifiers.arithmetic import NotArithmetic, evaluate, expression_in


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("2+2", "4"),
        ("What is 27 + 58?", "85"),
        ("Q: What is 12 - 30?\nA:", "-18"),
        ("0.1 + 0.2", "3/10"),
        ("1/3 + 1/6 =", "1/2"),
        ("What is 3 \N{MULTIPLICATION SIGN} (4 + 5)?", "27"),
        ("2^10", "1024"),
        ("2 ** -2", "1/4"),
        ("What is 20% of 50?", "10"),
        ("17 % 5", "2"),
        ("7 // 2", "3"),
        ("1,200 - 1", "1199"),
        ("3 x 4", "12"),
        ("What is six, or 6 times 7?", "42"),
        ("100 divided by 8", "25/2"),
        ("1.5e3 + 1", "1501"),
        ("First 1 + 1. Then, what is 2 + 3?", "5"),
        ("-(3 - 5)*2", "4"),
        (r"\frac{1}{2} + 1", "3/2"),
    ],
)
def test_the_expression_of_a_question_is_found_and_computed(question: str, value: str) -> None:
    expression = expression_in(question)
    assert expression is not None
    assert evaluate(expression) == Fraction(value)


@given(
    st.recursive(
        st.integers(0, 999).map(str),
        lambda e: st.tuples(e, st.sampled_from("+-*"), e).map("({0[0]} {0[1]} {0[2]})".format),
        max_leaves=6,
    )
)
def test_whole_numbers_are_computed_as_python_does(expression: str) -> None:
    assert evaluate(expression) == eval(expression)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x + 1",
        "__import__('os').system('ls')",
        "(1).__class__",
        "[1, 2][0]",
        "1 if 1 else 2",
        "lambda: 1",
        "True + 1",
        "1j * 1j",
        "0x10 + 1",
        "'a' * 3",
        "f'{1}'",
        "1 and 2",
        "1 < 2",
        "~1",
        "1 << 99",
        "3 @ 4",
        "1 / 0",
        "0 ** -1",
        "1 % 0",
        "2 ** 0.5",
        "9 ** 9 ** 9",
        "10 ** 100000",
        "2 ** 4097",
        "(10 ** 1000) * (10 ** 1000)",
        "1e9999",
        "1e99999999999",
        "1" + "+1" * 500,
        "-" * 100 + "1",
        "-(" * 100 + "1" + ")" * 100,
        "1" * 401,
        "1; 2",
        "(a := 1)",
        "*1",
        "\N{ARABIC-INDIC DIGIT THREE}",
    ],
)
def test_anything_else_is_refused_at_once(text: str) -> None:
    with pytest.raises(NotArithmetic):
        evaluate(text)


def test_an_answer_is_right_or_corrected() -> None:
    assert arithmetic("2+2", "4").score == 1
    assert arithmetic("2+2", "5") == Verdict(0.0, "2+2 is not 5", "4")
    assert arithmetic("2+2", "5").text == "incorrect: 4"
    assert arithmetic("1/3 + 1/3", "I think\nAnswer: 2/3").score == 1
    assert arithmetic("2+2", "a few").reason == "there is no number in 'a few'"
    assert arithmetic("2+2", "5", "5").score == 0  # it is the question that counts


@pytest.mark.parametrize("question", ["Which is larger, 3 or 5?", "Where is Mira?", "", "in 2024", "+ * -"])
def test_a_question_without_an_expression_cannot_be_judged(question: str) -> None:
    with pytest.raises(VerifierError, match="nothing to compute"):
        arithmetic(question, "5")


def test_every_sum_of_the_world_is_judged_as_its_reference_does() -> None:
    n = 0
    for one in world.sums(5, 0, 400):
        if one.kind in ("add", "subtract", "multiply"):
            n += 1
            assert arithmetic(one.prompt, one.answer).score == 1
            assert arithmetic(one.prompt, str(int(one.answer) + 1)).correction == one.answer
    assert n > 100


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("1 + x", "x + 1"),
        ("y = 2x", "x * 2"),
        ("a^2 + 2ab + b^2", "(a + b)^2"),
        ("(x^2 - 1)/(x - 1)", "x + 1"),
        (r"\frac{x}{2}", "0.5x"),
        ("The answer is 3(x + 1).", "3x + 3"),
        ("x/x", "1"),
        ("6", "2 * 3"),
    ],
)
def test_formulas_that_are_the_same(answer: str, reference: str) -> None:
    assert algebra("Simplify.", answer, reference).score == 1


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("x - 1", "x + 1"),
        ("y + 1", "x + 1"),
        ("x", "x^2"),
        ("x + 1.0001", "x + 1"),
        ("no idea", "x + 1"),
        ("", "x + 1"),
        ("x^99999", "x + 1"),
        ("x.__class__", "x + 1"),
    ],
)
def test_formulas_that_differ(answer: str, reference: str) -> None:
    verdict = algebra("Simplify.", answer, reference)
    assert (verdict.score, verdict.correction) == (0, reference)


def test_a_reference_that_is_no_formula_is_an_error() -> None:
    with pytest.raises(VerifierError, match="not an expression"):
        algebra("Simplify.", "x", "x +")
    with pytest.raises(VerifierError, match="divides by zero"):
        algebra("Simplify.", "x", "1/(x - x)")
    with pytest.raises(VerifierError, match="more than 8 variables"):
        algebra("Simplify.", "x", "a+b+c+d+e+f+g+h+i")


def test_a_pattern_is_about_the_whole_answer() -> None:
    assert pattern("", " 12:30\n", r"\d\d:\d\d").score == 1
    assert pattern("", "at 12:30", r"\d\d:\d\d").score == 0
    with pytest.raises(VerifierError, match="no regular expression"):
        pattern("", "x", "(")
    with pytest.raises(VerifierError, match="at most 2,000"):
        pattern("", "x", "x" * 2001)


NO_MATCH = pattern("", "a" * 5000 + "!", "b")


@pytest.mark.parametrize("bomb", [r"(a+)+$", r"(a|aa)+b", r"(.*)*x", r"(a|a)*b", r"(?:(?:a*)*)*b"])
def test_a_pattern_that_never_ends_is_ended(bomb: str) -> None:
    assert pattern("", "a" * 5000 + "!", bomb) in (Verdict(0.0, "no match within 0.2 s"), NO_MATCH)
