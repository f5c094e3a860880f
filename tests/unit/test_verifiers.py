"""What verifiers say: texts, numbers, and every reference answer of a public data set, right and spoilt."""

import json
import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import pytest

from legollm.data import world
from legollm.errors import ConfigError, VerifierError
from legollm.verifiers import VERIFIERS, Verdict, exact, final_answer, number, verifier
from legollm.verifiers.numbers import quantities, spelled


def test_a_verdict_reads_as_two_words() -> None:
    assert Verdict(0.0, "2 + 2 is not 5", "4").text == "incorrect: 4"
    assert Verdict(0.2, "too long").text == "incorrect: too long"
    assert Verdict(1.0, "right").text == "correct"


def test_a_verifier_is_found_by_its_name() -> None:
    assert verifier("exact") is exact
    with pytest.raises(ConfigError, match=r"'numbr' is none of exact, number"):
        verifier("numbr")
    assert all(row.summary and len(row.summary) < 90 for row in VERIFIERS.values())


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("  in the mill ", "in the mill"),
        ("Mira went to the mill.\nAnswer: in the mill", "in the mill"),
        ("Answer: 3\nno, wait\nAnswer: 4\nand more", "4"),
        ("3 + 4 = <<3+4=7>>7\n#### 7", "7"),
        ("So the answer is 12.", "12."),
        (r"Thus $\boxed{\frac{3}{4}}$ holds", r"\frac{3}{4}"),
        (r"\boxed{unclosed", "unclosed"),
        ("", ""),
    ],
)
def test_the_last_marked_answer_counts(said: str, answer: str) -> None:
    assert final_answer(said) == answer


@pytest.mark.parametrize("said", ["in the mill", " In the  mill. ", "It says so.\nAnswer: in the mill"])
def test_exact_accepts_the_same_words(said: str) -> None:
    assert exact("Where?", said, "in the mill").score == 1


@pytest.mark.parametrize("said", ["", "the mill", "in the mill or in the barn", "in the mill\nAnswer: in the barn"])
def test_exact_rejects_others_and_keeps_the_answer_to_itself(said: str) -> None:
    verdict = exact("Where?", said, "in the old mill" if said == "the mill" else "in the mill")
    assert verdict.score == 0
    assert verdict.correction is not None
    assert verdict.correction not in verdict.reason or verdict.correction in said


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("72", "#### 72"),
        ("#### 72", "72"),
        ("72 dollars", "$72"),
        ("$1,200.50", "1200.5"),
        ("1,200.50 USD", "$1200.50"),
        ("The answer is 72.", "72"),
        ("3/4", "0.75"),
        ("0.75", "75%"),
        ("75 percent", "75%"),
        ("75", "75%"),
        ("1 1/2", "1.5"),
        ("1e3", "1,000"),
        ("-5", "\N{MINUS SIGN}5"),
        ("$-5", "-$5"),
        (r"\boxed{72}", "72"),
        (r"\boxed{\frac{3}{4}}", "3/4"),
        (r"so it is $\boxed{\$18}$", "18"),
        ("2 hours", "120 minutes"),
        ("500 cents", "$5"),
        ("It was 5 + 3 = 8", "8"),
        ("5 - 3 = 2", "2"),
        ("**72** eggs", "72"),
        ("72 eggs", "72"),
        (".5", "1/2"),
        ("7.", "7"),
        ("7.0", "7"),
        ("+7", "7"),
    ],
)
def test_number_accepts_the_same_value(given: str, wanted: str) -> None:
    assert number("How much?", given, wanted).score == 1


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("", "72"),
        ("seventy", "72"),
        ("73", "72"),
        ("-72", "72"),
        ("27", "72"),
        ("7.2", "72"),
        ("72 cents", "72 dollars"),
        ("72%", "72 dollars"),
        ("75", "0.75"),
        ("0.333", "1/3"),
        ("72 or 73", "72"),
        ("72 minutes", "72 hours"),
        ("1,20", "120"),
        ("1e400", "10"),
        ("9" * 5000, "9"),
        ("1/0", "1"),
        ("x72", "72"),
        ("8 = 5 + 3", "8"),
    ],
)
def test_number_rejects_another_value(given: str, wanted: str) -> None:
    verdict = number("How much?", given, wanted)
    assert verdict.score == 0
    assert verdict.correction == wanted


def test_the_unit_that_is_asked_for_counts() -> None:
    question = "She walks for 2 hours. How many minutes does she walk?"
    assert number(question, "120", "120").score == number(question, "2 hours", "120").score == 1
    assert number(question, "120 hours", "120").score == 0
    assert "unit" in number(question, "120 hours", "120").reason


def test_what_cannot_be_judged_is_an_error() -> None:
    with pytest.raises(VerifierError, match="give `answer`"):
        exact("Where?", "here")
    with pytest.raises(VerifierError, match="no number in the reference 'six'"):
        number("How many?", "6", "six")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("16 - 3 - 4 = 9", [16, 3, 4, 9]),
        ("from 5 to -3", [5, -3]),
        ("1, 2,3", [1, 2, 3]),
        ("version 3.5.2", [Fraction(7, 2)]),
        ("COVID-19, x2 and 2x3", [2]),
        ("none", []),
    ],
)
def test_numbers_in_a_text(text: str, values: list[int]) -> None:
    assert [found.value for found in quantities(text)] == values


@pytest.mark.parametrize("text", ["4", "-4", "0.5", "-0.125", "1/3", "-10/3", "0.05", "1000000"])
def test_a_value_is_spelled_as_one_writes_it(text: str) -> None:
    assert spelled(Fraction(text)) == text


def test_every_task_of_the_world_has_a_verifier_that_accepts_its_answer_and_no_other() -> None:
    tasks = list(world.tasks(3, 0, 300))
    for task, other in pairwise(tasks):
        verify = verifier(task.verifier)
        assert verify(task.prompt, task.answer, task.answer).score == 1
        if other.answer != task.answer:
            assert verify(task.prompt, other.answer, task.answer).score == 0


def rows(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield row["question"], row["answer"]


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_the_references_of_gsm8k_are_right_in_many_spellings_and_wrong_when_spoilt(
    every: int, shared_data: Path
) -> None:
    draw = random.Random(0)
    chosen = list(islice(rows(shared_data / "tasks" / "gsm8k"), 0, None, every))
    assert len(chosen) > 8000 // every
    for question, worked in chosen:
        bare = worked.rpartition("####")[2].strip()
        value = Fraction(bare.replace(",", ""))
        right = [worked, bare, f"The answer is {bare}.", rf"\boxed{{{bare}}}", f"{float(value):,.2f}", f"{value} eggs"]
        spoilt = [value + 1, value - 1, -value, value * 10]
        wrong = [f"#### {one}" for one in spoilt if one != value]
        digits = str(abs(value))
        swapped = "".join(draw.sample(digits, len(digits)))
        if "/" not in swapped and Fraction(swapped) != abs(value):
            wrong.append(swapped)
        wrong += [] if value == 0 else [f"{bare} square meters is wrong, it is {value + 7}"]
        if every == 1:  # of all rows the essential
            right, wrong = right[:2], wrong[:2]
        for one in right:
            assert number(question, one, worked).score == 1, (question, one, bare)
        for one in wrong:
            assert number(question, one, worked).score == 0, (question, one, bare)
        assert number("How much?", f"{bare} dollars", f"${bare}").score == 1
        assert number("How much?", f"{bare} cents", f"${bare}").score == (value == 0)
