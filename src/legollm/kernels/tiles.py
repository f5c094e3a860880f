"""Products of many rows on a processor that multiplies tiles of bfloat16 (Intel's AMX), 16 x 32 by 32 x 16 at a time.

Weights are bfloat16 and lie as they always do; rows that do not fill a tile are copied to a thread's own room. A state
becomes two bfloat16, its rounding and what that left out, which are multiplied one after the other: together they have
16 bits, so that a text read by tiles is the same to a hundred-thousandth as one read token by token. States lie in
groups of 16 rows: for each two neighbouring numbers 16 rows one after the other. Elsewhere, and for few rows, the
products of products.py do the same.
"""

import ctypes
import sys
from typing import Any

import numpy as np
from llvmlite import ir

from legollm.kernels.linear import put_outputs
from legollm.kernels.machine import I64, NOTHING, call, cgutils, code, intrinsic
from legollm.kernels.memory import (
    BYTE,
    F32,
    FEATURES,
    HALF,
    INT,
    LONG,
    bf16,
    f32,
    i64,
    inner,
    place,
    put_f32,
    put_i64,
)
from legollm.kernels.plan import IN, OUT, OUT_STRIDE, ROWS, WEIGHT_BYTES, WIDTH

SIDE, STEP = 16, 32
"""Rows of a tile, and numbers of one."""
TILE = 1024
"""Bytes of one."""
HAS_TILES = {"amx-tile", "amx-bf16"} <= FEATURES
ROOM_BYTES = 8192
"""What a thread needs beside 2 * SIDE rows: four tiles of sums and how tiles are divided."""

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


def are_allowed() -> bool:
    """Whether this process may use tiles: Linux wants to be asked, because their registers are large."""
    if not HAS_TILES or sys.platform != "linux":
        return False
    answer: int = ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA)
    return answer == 0


@intrinsic
def put_bf16(_: Any, address: Any, index: Any, value: Any) -> Any:
    """Store a number as the nearest bfloat16, ties to even."""

    def build(builder: Any, base: Any, i: Any, number: Any) -> None:
        bits = builder.bitcast(number, INT)
        odd = builder.and_(builder.lshr(bits, ir.Constant(INT, 16)), ir.Constant(INT, 1))
        rounded = builder.add(builder.add(bits, ir.Constant(INT, 0x7FFF)), odd)
        upper = builder.trunc(builder.lshr(rounded, ir.Constant(INT, 16)), HALF)
        builder.store(upper, place(builder, base, i, HALF))

    return NOTHING(I64, I64, F32), code(build)


@intrinsic
def copy_half(_: Any, target: Any, i: Any, source: Any, j: Any) -> Any:
    """Element j of 16 bits becomes element i."""

    def build(builder: Any, to: Any, i: Any, origin: Any, j: Any) -> None:
        builder.store(builder.load(place(builder, origin, j, HALF)), place(builder, to, i, HALF))

    return NOTHING(*(I64,) * 4), code(build)


@intrinsic
def four_tiles(_: Any, config: Any, w0: Any, w1: Any, w_bytes: Any, x0: Any, x1: Any, n_steps: Any, out: Any) -> Any:
    """The sums of w0 x0, w0 x1, w1 x0 and w1 x1, four tiles of 16 x 16 float32: rows are weights, columns states."""

    def build(
        builder: Any, config: Any, w0: Any, w1: Any, w_bytes: Any, x0: Any, x1: Any, n_steps: Any, out: Any
    ) -> None:
        if not HAS_TILES:  # then nobody calls it
            return

        def tile(number: int) -> Any:
            return ir.Constant(BYTE, number)

        def do(name: str, *operands: Any) -> None:
            call(builder, f"llvm.x86.{name}", ir.VoidType(), list(operands))

        def at(base: Any, offset: Any) -> Any:
            return builder.inttoptr(builder.add(base, offset), BYTE.as_pointer())

        line, nothing = ir.Constant(LONG, 64), ir.Constant(LONG, 0)
        do("ldtilecfg", at(config, nothing))
        for sums in range(4):
            do("tilezero", tile(sums))
        with cgutils.for_range(builder, n_steps) as loop:
            along, group = builder.mul(loop.index, line), builder.mul(loop.index, ir.Constant(LONG, 2 * TILE))
            for number, weight in ((4, w0), (5, w1)):
                do("tileloadd64", tile(number), at(weight, along), w_bytes)
            for half in range(2):
                for number, states in ((6, x0), (7, x1)):
                    do(
                        "tileloadd64",
                        tile(number),
                        at(states, builder.add(group, ir.Constant(LONG, TILE * half))),
                        line,
                    )
                for sums in range(4):
                    do("tdpbf16ps", tile(sums), tile(4 + sums // 2), tile(6 + sums % 2))
        for sums in range(4):
            do("tilestored64", tile(sums), at(out, ir.Constant(LONG, TILE * sums)), line)
        do("tilerelease")

    return NOTHING(*(I64,) * 8), code(build)


@inner
def to_tiles(x: int, base: int, row: int, n: int) -> None:
    """A row of states where tiles are read from; zeros up to a multiple of STEP."""
    padded = (n + STEP - 1) // STEP * STEP
    out = base + row // SIDE * SIDE * 4 * padded + row % SIDE * 4
    for i in range(padded):
        number = f32(x, i) if i < n else np.float32(0)
        here = out + i // STEP * 2 * TILE + i % STEP // 2 * 64
        put_bf16(here, i % 2, number)
        put_bf16(here + TILE, i % 2, number - bf16(here, i % 2))


@inner
def fill_tile(op: int, weight: int, output: int, out: int) -> None:
    """16 rows of weights from `output` on, with zeros behind them and in place of those there are not."""
    n, row_bytes = i64(op, WIDTH), i64(op, WEIGHT_BYTES)
    here, left = weight + output * row_bytes, min(SIDE, i64(op, ROWS) - output)
    padded = (n + STEP - 1) // STEP * STEP
    for row in range(SIDE):
        source, target = here + row * row_bytes, out + row * 2 * padded
        there = n if row < left else 0
        for i in range(there):
            copy_half(target, i, source, i)
        for i in range(there, padded):
            put_bf16(target, i, np.float32(0))


@inner
def divide_tiles(config: int) -> None:
    """How tiles are divided: all eight have 16 rows of 64 bytes."""
    for i in range(8):
        put_i64(config, i, 0)
    put_i64(config, 0, 1)
    for i in range(2):
        put_i64(config, 2 + i, 64 * 0x0001000100010001)
    put_i64(config, 6, 16 * 0x0101010101010101)


@inner
def tiled(op: int, weight: int, output: int, end: int, n_rows: int, room: int) -> None:
    """out (+)= weight @ states + bias, of outputs `output` to `end` and all rows."""
    n = i64(op, WIDTH)
    padded = (n + STEP - 1) // STEP * STEP
    config, sums, wide = room, room + 64, room + ROOM_BYTES
    column = room + 64 + 4 * TILE
    divide_tiles(config)
    while output < end:
        m = min(2 * SIDE, end - output)
        if m == 2 * SIDE and n == padded:
            w_bytes = i64(op, WEIGHT_BYTES)
            first = weight + output * w_bytes
        else:
            w_bytes, first = 2 * padded, wide
            fill_tile(op, weight, output, wide)
            if m > SIDE:
                fill_tile(op, weight, output + SIDE, wide + SIDE * w_bytes)
        second = first + SIDE * w_bytes if m > SIDE else first
        for row in range(0, n_rows, 2 * SIDE):
            x = i64(op, IN) + row * 4 * padded
            other = x + SIDE * 4 * padded if n_rows - row > SIDE else x
            four_tiles(config, first, second, w_bytes, x, other, padded // STEP, sums)
            for j in range(min(2 * SIDE, n_rows - row)):
                tile = sums + j // SIDE * TILE + j % SIDE * 4
                for i in range(m):
                    put_f32(column, i, f32(tile + i // SIDE * 2 * TILE + i % SIDE * 64, 0))
                place = i64(op, OUT) + 4 * ((row + j) * i64(op, OUT_STRIDE) + output)
                put_outputs(op, output, m, 0, column, np.float32(1), place)
        output += 2 * SIDE
