"""One vector of states: normalised, activated, turned by its position, and put into the form that products read."""

import math

import numpy as np

from legollm.kernels.memory import bf16, f32, i8, inner, put_f32, put_i8, put_i32
from legollm.kernels.numbers import ONE, ZERO, gelu, gelu_tanh, rounded, sigmoid, silu
from legollm.kernels.plan import (
    BFLOAT16,
    FLOAT32,
    GELU,
    GELU_TANH,
    HALVES,
    INT4,
    INT8,
    LAYER,
    NO_ACTIVATION,
    NO_NORM,
    PLAIN,
    RELU_SQUARED,
    SIGMOID,
    SILU,
)
from legollm.kernels.tiles import to_tiles

_TINY, _LARGEST_BYTE = np.float32(1e-30), np.float32(127)


@inner
def normalise(x: int, out: int, n: int, kind: int, weight: int, bias: int, eps: np.float32) -> None:
    """out = norm(x), n numbers; both may be the same place."""
    mean = ZERO
    if kind == LAYER:
        for i in range(n):
            mean += f32(x, i)
        mean /= np.float32(n)
    squares = ZERO
    for i in range(n):
        squares += (f32(x, i) - mean) * (f32(x, i) - mean)
    scale = ONE / np.float32(math.sqrt(squares / np.float32(n) + eps))
    if kind == LAYER:
        for i in range(n):
            put_f32(out, i, (f32(x, i) - mean) * scale * f32(weight, i) + f32(bias, i))
    else:
        for i in range(n):
            put_f32(out, i, f32(x, i) * scale * f32(weight, i))


@inner
def activate(x: int, gate: int, out: int, n: int, kind: int) -> None:
    """out = activation(x), times the numbers `gate` places behind them if there is a gate."""
    if kind == SILU:  # a loop for each, so that many numbers at once share its instructions
        for i in range(n):
            put_f32(out, i, silu(f32(x, i)))
    elif kind == GELU_TANH:
        for i in range(n):
            put_f32(out, i, gelu_tanh(f32(x, i)))
    elif kind == GELU:
        for i in range(n):
            put_f32(out, i, gelu(f32(x, i)))
    elif kind == SIGMOID:
        for i in range(n):
            put_f32(out, i, sigmoid(f32(x, i)))
    else:
        for i in range(n):
            put_f32(out, i, max(f32(x, i), ZERO))
    if kind == RELU_SQUARED:
        for i in range(n):
            put_f32(out, i, f32(out, i) * f32(out, i))
    if gate:
        for i in range(n):
            put_f32(out, i, f32(out, i) * f32(x, gate + i))


@inner
def turn(x: int, out: int, n: int, n_turned: int, kind: int, turns: int) -> None:
    """Rotary positions: out = x with its first n_turned channels turned. turns: their cosines, then signed sines."""
    half = n_turned // 2
    if kind == HALVES:
        for i in range(half):
            a, b = f32(x, i), f32(x, half + i)
            put_f32(out, i, a * f32(turns, i) + b * f32(turns, n_turned + i))
            put_f32(out, half + i, b * f32(turns, half + i) + a * f32(turns, n_turned + half + i))
    else:
        for i in range(half):
            a, b = f32(x, 2 * i), f32(x, 2 * i + 1)
            put_f32(out, 2 * i, a * f32(turns, 2 * i) + b * f32(turns, n_turned + 2 * i))
            put_f32(out, 2 * i + 1, b * f32(turns, 2 * i + 1) + a * f32(turns, n_turned + 2 * i + 1))
    for i in range(n_turned, n):
        put_f32(out, i, f32(x, i))


@inner
def encode(x: int, out: int, n: int, form: int) -> None:
    """out = the n numbers of x in the form that products of that format read."""
    if form in (FLOAT32, PLAIN):
        for i in range(n):
            put_f32(out, i, f32(x, i))
        if form == FLOAT32:
            for i in range(n, (n + 15) // 16 * 16):
                put_f32(out, i, ZERO)
    elif form == BFLOAT16:
        for start in range(0, n - n % 32, 32):
            for i in range(16):
                put_f32(out, start + i, f32(x, start + 2 * i))
                put_f32(out, start + 16 + i, f32(x, start + 2 * i + 1))
        start = n - n % 32
        if start < n:
            for i in range(32):
                put_f32(out, start + i, ZERO)
            for i in range(n - start):
                put_f32(out, start + i // 2 + 16 * (i % 2), f32(x, start + i))
    else:
        quantise(x, out, n, 64 if form == INT8 else 32)


@inner
def quantise(x: int, out: int, n: int, size: int) -> None:
    """Bytes in groups of `size`, then the scale of each group, then -8 times its sum."""
    groups = (n + size - 1) // size
    scales = out + groups * size
    sums = scales + groups * 4
    for group in range(groups):
        start, stop = group * size, min(n, (group + 1) * size)
        largest = _TINY
        for i in range(start, stop):
            largest = max(largest, abs(f32(x, i)))
        total, inverse = 0, _LARGEST_BYTE / largest
        for i in range(start, stop):
            number = rounded(f32(x, i) * inverse)
            total += number
            put_i8(out, i, number)
        for i in range(stop, (group + 1) * size):
            put_i8(out, i, 0)
        put_f32(scales, group, largest / _LARGEST_BYTE)
        put_i32(sums, group, -8 * total)


@inner
def prepare(
    x: int,
    out: int,
    out_bytes: int,
    n: int,
    norm: int,
    weight: int,
    bias: int,
    eps: np.float32,
    activation: int,
    gate: int,
    form: int,
    add: int,
    room: int,
    row: int,
    for_tiles: int,
) -> None:
    """One row of PREPARE. room: n numbers."""
    if norm != NO_NORM:
        normalise(x, room, n, norm, weight, bias, eps)
        x = room
    if activation != NO_ACTIVATION:
        activate(x, gate, room, n, activation)
        x = room
    if for_tiles:
        to_tiles(x, out, row, n)
    elif add:
        for i in range(n):
            put_f32(out + row * out_bytes, i, f32(out + row * out_bytes, i) + f32(x, i))
    else:
        encode(x, out + row * out_bytes, n, form)


@inner
def gather(
    table: int, row: int, row_bytes: int, scales: int, form: int, n: int, factor: np.float32, out: int, add: int
) -> None:
    """out (+)= factor * table[row], n numbers."""
    start = table + row * row_bytes
    if form == INT4:
        start = table + row // 16 * row_bytes
        scales = start + (n + 31) // 32 * 256
    elif form == INT8:
        factor *= f32(scales, row)
    for i in range(n):
        if form == FLOAT32:
            number = f32(start, i)
        elif form == BFLOAT16:
            number = bf16(start, i)
        elif form == INT8:
            number = np.float32(i8(start, i))
        else:
            # a panel holds, for each group of 32 and each 8 numbers of it, 16 rows of 4 bytes: two halves of 4 numbers
            within = i % 32
            byte = i8(start, i // 32 * 256 + within // 8 * 64 + row % 16 * 4 + within % 4)
            pair = byte & 0xFF
            half = pair >> 4 if within % 8 >= 4 else pair & 0xF
            number = np.float32(half - 8) * bf16(scales, i // 32 * 16 + row % 16)
        put_f32(out, i, f32(out, i) + factor * number if add else factor * number)
