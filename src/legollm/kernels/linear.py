"""A matrix times all rows of states, a few outputs at a time."""

import numpy as np

from legollm.kernels.memory import f32, i64, inner, put_f32
from legollm.kernels.numbers import ONE
from legollm.kernels.plan import (
    ADD,
    BFLOAT16,
    BIAS,
    CHUNK,
    FLOAT32,
    FORMAT,
    IN,
    IN_STRIDE,
    INT4,
    OUT,
    OUT_STRIDE,
    ROWS,
    SCALES,
    WEIGHT,
    WEIGHT_BYTES,
    WIDTH,
)
from legollm.kernels.products import (
    bfloat16_1x1,
    bfloat16_4x1,
    bfloat16_4x2,
    bfloat16_4x4,
    float32_1x1,
    float32_4x1,
    float32_4x2,
    float32_4x4,
    int4_16x1,
    int4_16x2,
    int4_16x4,
    int8_1x1,
    int8_4x1,
    int8_4x2,
    int8_4x4,
)

STATES = 4
"""States that one product takes at most."""


@inner
def one_by_one(form: int, w: int, w_bytes: int, x: int, x_bytes: int, n: int, out: int) -> None:
    if form == FLOAT32:
        float32_1x1(w, w_bytes, x, x_bytes, n, out)
    elif form == BFLOAT16:
        bfloat16_1x1(w, w_bytes, x, x_bytes, n, out)
    else:
        int8_1x1(w, w_bytes, x, x_bytes, n, out)


@inner
def four_by(form: int, r: int, w: int, w_bytes: int, x: int, x_bytes: int, n: int, out: int) -> None:
    if form == FLOAT32:
        if r == 1:
            float32_4x1(w, w_bytes, x, x_bytes, n, out)
        elif r == 2:
            float32_4x2(w, w_bytes, x, x_bytes, n, out)
        else:
            float32_4x4(w, w_bytes, x, x_bytes, n, out)
    elif form == BFLOAT16:
        if r == 1:
            bfloat16_4x1(w, w_bytes, x, x_bytes, n, out)
        elif r == 2:
            bfloat16_4x2(w, w_bytes, x, x_bytes, n, out)
        else:
            bfloat16_4x4(w, w_bytes, x, x_bytes, n, out)
    elif r == 1:
        int8_4x1(w, w_bytes, x, x_bytes, n, out)
    elif r == 2:
        int8_4x2(w, w_bytes, x, x_bytes, n, out)
    else:
        int8_4x4(w, w_bytes, x, x_bytes, n, out)


@inner
def panel_by(r: int, w: int, x: int, x_bytes: int, n: int, out: int) -> None:
    if r == 1:
        int4_16x1(w, 0, x, x_bytes, n, out)
    elif r == 2:
        int4_16x2(w, 0, x, x_bytes, n, out)
    else:
        int4_16x4(w, 0, x, x_bytes, n, out)


@inner
def linear(op: int, chunk: int, n_rows: int, room: int) -> None:
    """Outputs CHUNK * chunk and following of all rows. room: 64 numbers."""
    first, end = chunk * i64(op, CHUNK), min(i64(op, ROWS), (chunk + 1) * i64(op, CHUNK))
    multiply(op, i64(op, WEIGHT), i64(op, SCALES), first, end, i64(op, IN), n_rows, i64(op, OUT), ONE, room)


@inner
def multiply(
    op: int,
    weight: int,
    scales: int,
    output: int,
    end: int,
    states: int,
    n_rows: int,
    out: int,
    factor: np.float32,
    room: int,
) -> None:
    """out (+)= factor * weight @ states + bias, of outputs `output` to `end` and n_rows rows."""
    form, n = i64(op, FORMAT), i64(op, WIDTH)
    w_bytes, x_bytes = i64(op, WEIGHT_BYTES), i64(op, IN_STRIDE)
    while output < end:
        if form == INT4:
            m, w = 16, weight + output // 16 * w_bytes
        else:
            m, w = 4 if end - output >= 4 else 1, weight + output * w_bytes
        row = 0
        while row < n_rows:
            left, x = n_rows - row, states + row * x_bytes
            if m == 1:
                r = 1
                one_by_one(form, w, w_bytes, x, x_bytes, n, room)
            else:
                r = STATES if left >= STATES else 2 if left >= 2 else 1
                if m == 4:
                    four_by(form, r, w, w_bytes, x, x_bytes, n, room)
                else:
                    panel_by(r, w, x, x_bytes, n, room)
            for j in range(r):
                place = out + 4 * ((row + j) * i64(op, OUT_STRIDE) + output)
                put_outputs(op, output, min(m, end - output), scales, room + j * m * 4, factor, place)
            row += r
        output += m


@inner
def put_outputs(op: int, first: int, m: int, scales: int, sums: int, factor: np.float32, out: int) -> None:
    """Write m sums, scaled and with their bias."""
    bias, add = i64(op, BIAS), i64(op, ADD)
    for i in range(m):
        total = f32(sums, i) * factor
        if scales:
            total *= f32(scales, first + i)
        if bias:
            total += f32(bias, first + i)
        if add:
            total += f32(out, i)
        put_f32(out, i, total)
