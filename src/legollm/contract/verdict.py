"""What a check says, and how checks are run."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor

from legollm.errors import LegoLLMError

CRASHES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a part raises when it is given a tensor it was not written for. Anything else is no verdict on the part."""


class Outcome(NamedTuple):
    """The result of one check."""

    passed: bool
    measured: str
    """What was found, and where it matters what is allowed."""


class Verdict(NamedTuple):
    """The result of one check, with the name of what was checked."""

    name: str
    passed: bool
    measured: str


Check = Callable[[Any], Outcome]


def verdicts(checks: Iterable[Check], subject: Any) -> list[Verdict]:
    """Run every check; one that crashes has failed, and says with what."""
    return [verdict(check, subject) for check in checks]


def verdict(check: Check, subject: Any) -> Verdict:
    """Run one check; its name is the function's."""
    name = check.__name__.replace("_", " ")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch's own making, about the compiler above all
            return Verdict(name, *check(subject))
    except (*CRASHES, LegoLLMError) as error:
        first = next(iter(str(error).strip().splitlines()), "")
        return Verdict(name, False, f"{type(error).__name__}: {first}")


def within(error: float, allowed: float, what: str = "off by") -> Outcome:
    """Passed if `error` is at most `allowed`; NaN is not."""
    return Outcome(error <= allowed, f"{what} {error:.1e}, allowed {allowed:.0e}")


def difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference of two tensors of one shape; 0 if they are empty, infinite if NaN is in them."""
    assert a.shape == b.shape, f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    if not a.numel():
        return 0.0
    worst = (a - b).abs().max().item()
    return worst if worst == worst else float("inf")


def relative(a: Tensor, exact: Tensor) -> float:
    """|a - exact| / |exact|, over all their numbers."""
    return float(((a.double() - exact).norm() / exact.norm()).item())
