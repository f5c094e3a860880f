"""Functions of one float32 number in the few instructions that many numbers at once can share."""

import math
from typing import Any

import numpy as np
from llvmlite import ir

from legollm.kernels.machine import call, code
from legollm.kernels.memory import F32, FLOAT, INT, inner, number

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
_ROOT_HALF = np.float32(math.sqrt(0.5))
_TANH_SCALE, _TANH_CUBE = np.float32(math.sqrt(8 / math.pi)), np.float32(0.044715)

_LOWEST, _HIGHEST = -87.3, 88.7
"""exp of anything outside is taken as exp of these: still a normal number, still finite."""
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
"""ln 2 in two parts, of which the first has zeros at its end: n times it is exact."""
_SERIES = [1 / math.factorial(n) for n in range(7, -1, -1)]


@number
def exp32(_: Any, x: Any) -> Any:
    """e^x to about one unit in the last place: 2^n e^r, with n whole, |r| <= ln(2)/2 and eight terms for e^r."""

    def build(builder: Any, number: Any) -> Any:
        def constant(value: float) -> Any:
            return ir.Constant(FLOAT, float(np.float32(value)))

        def times_plus(a: Any, b: Any, c: Any) -> Any:
            return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

        for limit, sign in ((_LOWEST, "<"), (_HIGHEST, ">")):
            beyond = builder.fcmp_ordered(sign, number, constant(limit))
            number = builder.select(beyond, constant(limit), number)
        n = call(builder, "llvm.rint.f32", FLOAT, [builder.fmul(number, constant(1 / math.log(2)))])
        r = times_plus(n, constant(-_LN2_HIGH), number)
        r = times_plus(n, constant(-_LN2_LOW), r)
        power = constant(_SERIES[0])
        for term in _SERIES[1:]:
            power = times_plus(power, r, constant(term))
        exponent = builder.add(builder.fptosi(n, INT), ir.Constant(INT, 127))
        return builder.fmul(power, builder.bitcast(builder.shl(exponent, ir.Constant(INT, 23)), FLOAT))

    return F32(F32), code(build)


@inner
def sigmoid(x: Any) -> Any:
    return ONE / (ONE + exp32(-x))


@inner
def silu(x: Any) -> Any:
    return x * sigmoid(x)


@inner
def gelu_tanh(x: Any) -> Any:
    """x (1 + tanh(u)) / 2, which is x times the sigmoid of 2u."""
    return x * sigmoid(_TANH_SCALE * (x + _TANH_CUBE * x * x * x))


@inner
def gelu(x: Any) -> Any:
    return HALF * x * (ONE + np.float32(math.erf(_ROOT_HALF * x)))


@inner
def rounded(x: Any) -> int:
    """The nearest whole number."""
    return int(np.rint(x))
