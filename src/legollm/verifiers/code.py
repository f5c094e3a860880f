"""Unit tests for code that a model wrote, run in the sandbox.

`assert add(2, 3) == 5` is taken apart: only `add(2, 3)` goes into the sandbox, and its value is compared with 5 out
here, where the code cannot reach: it can neither read what is expected nor redefine what equal means. Any other
assertion comes down to True or False inside, beside the code that it tests, and that can be forged by code that is
written to do so; it is for code that is merely wrong.
"""

import ast
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from legollm.errors import VerifierError
from legollm.verifiers.answers import shortened
from legollm.verifiers.sandbox import SandboxConfig, run_code
from legollm.verifiers.verdict import RIGHT, Verdict, needed

FENCED = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)(?:^```|\Z)", re.MULTILINE | re.DOTALL)
MAX_VALUE = 20_000
"""Characters of a value that are read back."""


class Case(NamedTuple):
    """An expression, and the value it has to have."""

    expression: str
    expected: object


def code_in(answer: str) -> str:
    """The code of an answer: its last fenced block, or all of it where there is none."""
    blocks = FENCED.findall(answer)
    return blocks[-1] if blocks else answer


def cases_of(tests: str) -> tuple[str, list[Case]]:
    """Assertions as cases, and the other statements, which are run before them.

    Raises:
        VerifierError: this is not Python, or asserts nothing.
    """
    try:
        statements = ast.parse(tests).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise VerifierError(f"verifier code: the tests {shortened(tests)} are no Python: {error}") from error
    before = [ast.unparse(one) for one in statements if not isinstance(one, ast.Assert)]
    cases = [case_of(one.test) for one in statements if isinstance(one, ast.Assert)]
    if not cases:
        raise VerifierError(f"verifier code: no assertion in {shortened(tests)}; write `assert f(1) == 2`, one a line")
    return "\n".join(before), cases


def case_of(test: ast.expr) -> Case:
    """`f(1) == 2` is f(1) with the value 2; of anything else the truth counts."""
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        left, right = test.left, test.comparators[0]
        for asked, literal in ((left, right), (right, left)):
            try:
                return Case(ast.unparse(asked), ast.literal_eval(literal))
            except ValueError:
                continue
    return Case(f"bool({ast.unparse(test)})", True)


def value_of(text: str) -> object:
    """A value as Python writes it; one that is no literal stays text, and equals none."""
    try:
        return ast.literal_eval(text) if len(text) <= MAX_VALUE else object()
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return object()


@dataclass(frozen=True)
class CodeVerifier:
    """Whether the code in an answer passes the tests in the reference: all of them, or it is wrong."""

    sandbox: SandboxConfig = field(default_factory=SandboxConfig)

    def __call__(self, question: str, answer: str, reference: str | None = None) -> Verdict:
        """
        Raises:
            VerifierError: the reference has no tests.
            SandboxError: this machine cannot fence the code in.
        """
        before, cases = cases_of(needed(reference, "code"))
        outcome = run_code(f"{code_in(answer)}\n\n{before}\n", [case.expression for case in cases], self.sandbox)
        if outcome.stopped:
            return Verdict(0.0, f"the code was stopped: {outcome.stopped}")
        failed = [
            (case, result)
            for case, result in zip(cases, outcome.results, strict=True)
            if "error" in result or value_of(result["value"]) != case.expected
        ]
        if not failed:
            return RIGHT
        case, result = failed[0]
        gave = f"ended with {result['error']}" if "error" in result else f"gave {shortened(result['value'])}"
        passed = f"{len(cases) - len(failed)} of {len(cases)} tests pass"
        return Verdict(0.0, f"{passed}; {shortened(case.expression)} {gave}")
