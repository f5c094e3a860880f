"""Mixtures of experts: which of them work on a row, and their matrices."""

import numpy as np

from legollm.kernels.linear import multiply
from legollm.kernels.memory import f32, i64, inner, put_f32, put_i64
from legollm.kernels.numbers import ONE, ZERO, exp32, sigmoid
from legollm.kernels.plan import (
    ADD,
    BEST,
    BIAS,
    CHUNK,
    FACTOR,
    IN,
    IN_STRIDE,
    N_ACTIVE,
    N_EXPERTS,
    OUT,
    OUT_STRIDE,
    ROUTES,
    ROWS,
    RULE,
    SCALE,
    SCALES,
    SHARES,
    SIGMOIDS,
    WEIGHT,
)

TAKEN = np.float32(-np.inf)


@inner
def route(op: int, row: int, room: int) -> None:
    """Choose the experts of a row by their scores, ties for the lower one. room: a number for each expert."""
    n, k, rule = i64(op, N_EXPERTS), i64(op, N_ACTIVE), i64(op, RULE)
    scores, bias = i64(op, IN) + 4 * row * i64(op, IN_STRIDE), i64(op, BIAS)
    chosen = i64(op, ROUTES) + 16 * row * k
    weights = chosen + 8 * k
    for i in range(n):
        score = f32(scores, i) * f32(op, 2 * SCALE)
        put_f32(scores, i, sigmoid(score) if rule == SIGMOIDS else score)
        put_f32(room, i, f32(scores, i) + f32(bias, i) if bias else f32(scores, i))
    for choice in range(k):
        best = 0
        for i in range(1, n):
            if f32(room, i) > f32(room, best):
                best = i
        put_f32(room, best, TAKEN)
        put_i64(chosen, choice, best)
        put_f32(weights, choice, f32(scores, best))
    if rule == BEST:
        put_f32(weights, 0, ONE)
        return
    largest, total = f32(weights, 0), ZERO
    if rule == SIGMOIDS:
        for choice in range(k):
            total += f32(weights, choice)
    elif rule == SHARES:
        for i in range(n):
            total += exp32(f32(scores, i) - largest)
    else:
        for choice in range(k):
            total += exp32(f32(weights, choice) - largest)
    for choice in range(k):
        weight = f32(weights, choice)
        share = weight if rule == SIGMOIDS else exp32(weight - largest)
        put_f32(weights, choice, share / total * f32(op, 2 * FACTOR))


@inner
def experts(op: int, chunk: int, n_rows: int, room: int) -> None:
    """Outputs CHUNK * chunk and following of the experts of all rows."""
    first, end = chunk * i64(op, CHUNK), min(i64(op, ROWS), (chunk + 1) * i64(op, CHUNK))
    k, add = i64(op, N_ACTIVE), i64(op, ADD)
    for row in range(n_rows):
        chosen = i64(op, ROUTES) + 16 * row * k
        for choice in range(k):
            expert, one = i64(chosen, choice), row * k + choice
            scales = i64(i64(op, SCALES), expert) if i64(op, SCALES) else 0
            states = i64(op, IN) + (one if add else row) * i64(op, IN_STRIDE)
            out = i64(op, OUT) + 4 * (row if add else one) * i64(op, OUT_STRIDE)
            factor = f32(chosen + 8 * k, choice) if add else ONE
            multiply(op, i64(i64(op, WEIGHT), expert), scales, first, end, states, 1, out, factor, room)
