"""Whether two small formulas are the same: x + 1 and 1 + x, (a + b)^2 and a^2 + 2ab + b^2.

Both are computed exactly at several points that are drawn once and for all. Formulas that agree at all of them are
taken for the same: two different polynomials of degree d agree at a random one of n points with a chance of at most
d / n (Schwartz 1980, Zippel 1979), and the points are many.
"""

import random
import re
from fractions import Fraction

from legollm.errors import VerifierError
from legollm.verifiers.answers import final_answer, shortened
from legollm.verifiers.arithmetic import MAX_LENGTH, NotArithmetic, as_typed, evaluate
from legollm.verifiers.verdict import RIGHT, Verdict, needed

N_POINTS = 8
MAX_VARIABLES = 8
VARIABLE = re.compile(r"[A-Za-z]")


def formula(text: str) -> str:
    """A formula as it is parsed: what stands after the last `=`, with the products that algebra leaves out."""
    text = as_typed(final_answer(text)[: MAX_LENGTH + 1].strip("$. ")).rpartition("=")[2].strip("$. ")
    text = re.sub(r"\\(?:cdot|times)", "*", text).replace("{", "(").replace("}", ")")
    return re.sub(r"(?<=[\dA-Za-z)])\s*(?=[A-Za-z(])|(?<=[)A-Za-z])\s*(?=\d)", "*", text)


def points(names: list[str]) -> list[dict[str, Fraction]]:
    """Where formulas with these variables are compared."""
    draw = random.Random(20_260_801)
    return [
        {name: Fraction(draw.randint(-10_000, 10_000), draw.randint(1, 97)) for name in names} for _ in range(N_POINTS)
    ]


def algebra(question: str, answer: str, reference: str | None = None) -> Verdict:
    """The same function as the reference formula; letters are variables, `2x` is a product.

    Raises:
        VerifierError: the reference is no formula that can be computed.
    """
    wanted, given = formula(needed(reference, "algebra")), formula(answer)
    assert reference is not None
    names = sorted(set(VARIABLE.findall(wanted + given)))
    if len(set(VARIABLE.findall(wanted))) > MAX_VARIABLES:
        raise VerifierError(f"verifier algebra: {shortened(reference)} has more than {MAX_VARIABLES} variables")
    wrong = Verdict(0.0, f"{shortened(final_answer(answer))} is not the expected formula", final_answer(reference))
    n_compared = 0
    for point in points(names):
        try:
            value = evaluate(wanted, point)
        except NotArithmetic as error:
            if "division by zero" in str(error):
                continue
            raise VerifierError(f"verifier algebra: {shortened(reference)}: {error}") from error
        try:
            if evaluate(given, point) != value:
                return wrong
        except NotArithmetic as error:
            return wrong._replace(reason=f"{shortened(final_answer(answer))}: {error}")
        n_compared += 1
    if n_compared < N_POINTS // 2:
        raise VerifierError(f"verifier algebra: {shortened(reference)} divides by zero nearly everywhere")
    return RIGHT
