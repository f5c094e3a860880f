"""Exact arithmetic for questions that hold their own answer: "What is 27 + 58?" needs no reference.

An expression is parsed and its tree walked; nothing of it is run. Values are fractions, so 0.1 + 0.2 is 0.3. What a
hostile text could make large has a budget: the length of the text, the depth of the tree, the bits of every number.
"""

import ast
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from legollm.errors import VerifierError
from legollm.verifiers.answers import final_answer, shortened
from legollm.verifiers.numbers import plain, spelled, stated
from legollm.verifiers.verdict import RIGHT, Verdict

MAX_LENGTH = 400
"""Characters of an expression."""
MAX_DEPTH = 40
MAX_BITS = 4096
"""Of a numerator or a denominator, also on the way."""
MAX_QUESTION = 4000
"""Characters of a question that are searched, from its end."""

LITERAL = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?")
RUN = re.compile(r"[\d.()+\-*/%\s]*\d[\d.()+\-*/%\s]*(?:[eE][-+]?\d+[\d.()+\-*/%\s]*)*")
WORDS = (
    (re.compile(r"(?<=\d),(?=\d{3}\b)"), ""),
    (re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|percent)\s+of\b"), r"\1 / 100 *"),
    (re.compile(r"(?<=[\d)])\s*(?:\bx\b|x(?=\s*\d)|\btimes\b|\bmultiplied by\b)", re.IGNORECASE), " *"),
    (re.compile(r"\bdivided by\b|\bover\b", re.IGNORECASE), "/"),
    (re.compile(r"\bplus\b", re.IGNORECASE), "+"),
    (re.compile(r"\bminus\b", re.IGNORECASE), "-"),
    (re.compile(r"\s*\bsquared\b", re.IGNORECASE), "**2"),
    (re.compile(r"\s*\^\s*|\s*\bto the power of\b\s*", re.IGNORECASE), "**"),
)
"""How operations are said and typeset, and how they are parsed."""
SIGNS = str.maketrans({"\N{MULTIPLICATION SIGN}": "*", "\N{DIVISION SIGN}": "/", "\N{MIDDLE DOT}": "*"})


class NotArithmetic(ValueError):
    """Why a text has no value: it is no expression, or one beyond the budget."""


def evaluate(expression: str, values: Mapping[str, Fraction] | None = None) -> Fraction:
    """The value of an expression: numbers, + - * / // % **, brackets, and the names that `values` gives a value.

    Raises:
        NotArithmetic: it is something else, divides by zero, or exceeds a budget.
    """
    expression = expression.strip()
    if len(expression) > MAX_LENGTH or not expression.isascii():
        raise NotArithmetic(f"longer than {MAX_LENGTH} characters, or with signs that are none of arithmetic")
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
        raise NotArithmetic(f"not an expression: {shortened(expression)}") from error
    return value_of(tree, " ".join(expression.splitlines()), values or {}, MAX_DEPTH)


def value_of(node: ast.expr, text: str, values: Mapping[str, Fraction], depth: int) -> Fraction:
    if depth == 0:
        raise NotArithmetic(f"nested deeper than {MAX_DEPTH} levels")
    match node:
        case ast.Constant():
            literal = text[node.col_offset : node.end_col_offset]
            if not LITERAL.fullmatch(literal):
                raise NotArithmetic(f"no number: {shortened(literal)}")
            return bounded(Fraction(literal))
        case ast.Name():
            if node.id not in values:
                raise NotArithmetic(f"no value for {shortened(node.id)}")
            return values[node.id]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            value = value_of(node.operand, text, values, depth - 1)
            return -value if isinstance(node.op, ast.USub) else value
        case ast.BinOp():
            left, right = (value_of(side, text, values, depth - 1) for side in (node.left, node.right))
            if type(node.op) not in OPERATIONS:
                raise NotArithmetic(f"no operation of arithmetic: {type(node.op).__name__}")
            try:
                return bounded(OPERATIONS[type(node.op)](left, right))
            except ZeroDivisionError as error:
                raise NotArithmetic("a division by zero") from error
    raise NotArithmetic(f"not arithmetic: {type(node).__name__}")


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """base ** exponent, if it is exact and small enough to be written down."""
    if exponent.denominator != 1:
        raise NotArithmetic("a power that is no whole number")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * max(1, bits - 1) > MAX_BITS:
        raise NotArithmetic(f"a power of more than {MAX_BITS} bits")
    return base**exponent.numerator


def bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise NotArithmetic(f"a number of more than {MAX_BITS} bits")
    return value


OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: lambda a, b: a % b,
    ast.Pow: power,
}


def as_typed(text: str) -> str:
    """An expression as it is parsed, out of one as people write it."""
    text = plain(text).translate(SIGNS)
    for pattern, typed in WORDS:
        text = pattern.sub(typed, text)
    return text


def expression_in(question: str) -> str | None:
    """The last expression of a question that has an operation in it; None if there is none."""
    for run in reversed(RUN.findall(as_typed(question[-MAX_QUESTION:]))):
        text = " ".join(run.split()).strip("*/%. ").rstrip("+-")
        text = text.strip("*/%. ")
        if len(text) <= MAX_LENGTH and re.search(r"[\d)]\s*[-+*/%]", text) and has_value(text):
            return text
    return None


def has_value(text: str) -> bool:
    try:
        evaluate(text)
    except NotArithmetic:
        return False
    return True


def arithmetic(question: str, answer: str, reference: str | None = None) -> Verdict:
    """The value of the expression in the question; a reference is not needed and not looked at.

    Raises:
        VerifierError: the question has no expression that can be computed.
    """
    expression = expression_in(question)
    if expression is None:
        raise VerifierError(f"verifier arithmetic: nothing to compute in {shortened(question)}; use another verifier")
    wanted = evaluate(expression)
    given = stated(answer)
    if given is None:
        return Verdict(0.0, f"there is no number in {shortened(final_answer(answer))}", spelled(wanted))
    if given.value == wanted:
        return RIGHT
    return Verdict(0.0, f"{expression} is not {spelled(given.value)}", spelled(wanted))
