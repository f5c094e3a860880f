"""Sums of the micro-world, worked out again from the text of the problem."""

import re

import pytest

from legollm.data.world import split_of, sums


def solve(question):
    """The answer, from the words of the problem alone."""
    numbers = [int(n) for n in re.findall(r"\d+", question)]
    if found := re.fullmatch(r"What is (\d+) ([-+*]) (\d+)\?", question):
        a, sign, b = int(found[1]), found[2], int(found[3])
        return str({"+": a + b, "-": a - b, "*": a * b}[sign])
    if question.startswith("Which is larger"):
        return str(max(numbers))
    if question.startswith("Put in order"):
        return " ".join(map(str, sorted(numbers)))
    if "even or odd" in question:
        return ("even", "odd")[numbers[0] % 2]
    if found := re.fullmatch(r"Which letter is (\d) places? after (\w)\?", question):
        return "abcdefghijklmnopqrstuvwxyz"["abcdefghijklmnopqrstuvwxyz".index(found[2]) + int(found[1])]
    words = re.fullmatch(r"From left to right, (.+) is what\?", question)[1].replace("not true", "false*")
    words = words.replace("not false", "true").replace("false*", "false").split()
    value = words[0] == "true"
    for link, word in zip(words[1::2], words[2::2], strict=True):
        value = (value and word == "true") if link == "and" else (value or word == "true")
    return "true" if value else "false"


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_answers(difficulty):
    kinds = set()
    for problem in sums(1, 0, 1500, difficulty=difficulty):
        assert solve(problem.question) == problem.answer, problem
        assert problem.difficulty == difficulty
        kinds.add(problem.kind)
    assert len(kinds) == 8


def test_steps_are_true_and_end_at_the_answer():
    for problem in sums(2, 0, 3000):
        for left, right in re.findall(r"([\d][\d +*-]*) = (\d+)", problem.scratch):
            terms = left.split()
            value = int(terms[0])
            for sign, term in zip(terms[1::2], terms[2::2], strict=True):
                value = {"+": value + int(term), "-": value - int(term), "*": value * int(term)}[sign]
            assert value == int(right), problem
        if problem.kind == "add":
            written = re.findall(r"write (\d)", problem.scratch)
            carried = "1" if problem.scratch.endswith("carry 1.") else ""
            assert int(carried + "".join(reversed(written))) == int(problem.answer), problem
        assert problem.worked_text.endswith(f"Steps: {problem.scratch}\nA: {problem.answer}\n")


def test_no_validation_operands_in_training():
    """Whichever way round: 3 + 5 and 5 + 3 are one problem."""
    sides = {}
    for problem in sums(3, 0, 20_000):
        numbers = re.findall(r"\d+|true|false|not|and|or|after \w", problem.question)
        same = (
            problem.kind,
            tuple(sorted(numbers)) if problem.kind in ("add", "larger", "order-numbers") else tuple(numbers),
        )
        assert sides.setdefault(same, split_of(problem.key)) == split_of(problem.key)
    assert 0.02 < sum(side == "val" for side in sides.values()) / len(sides) < 0.08


def test_three_levels_differ_in_size():
    longest = [
        max(int(n) for p in sums(1, 0, 400, difficulty=d) for n in re.findall(r"\d+", p.question)) for d in (1, 2, 3)
    ]
    assert longest[0] < 10 <= longest[1] < 100 <= longest[2] < 1000


def test_split_and_cuts():
    whole = list(sums(5, 0, 200))
    assert [*sums(5, 0, 71), *sums(5, 71, 200)] == whole
    assert {split_of(p.key) for p in sums(5, 0, 2000, split="val")} == {"val"}
