"""Attention over what a row's memory holds: keys and values of one head lie one after the other, (columns, Dh).

Where the memory of a row begins, which of its columns the row is, and which positions its keys have, comes with the
row: rows of one step may belong to one text, to many, or be several tokens of each.
"""

import numpy as np

from legollm.kernels.memory import f32, i64, inner, put_f32
from legollm.kernels.numbers import ONE, ZERO, exp32
from legollm.kernels.plan import (
    D_HEAD,
    D_ROTARY,
    DISTANCES,
    EPS,
    IN,
    IN_STRIDE,
    K_NORM_BIAS,
    K_NORM_WEIGHT,
    N_DISTANCES,
    N_HEADS,
    N_KV_HEADS,
    NO_NORM,
    NORM,
    NORM_BIAS,
    NORM_WEIGHT,
    NOT_TURNED,
    OUT,
    OUT_STRIDE,
    SCALE,
    SINKS,
    TURN,
    TURNS,
    WINDOW,
)
from legollm.kernels.products import float32_1x1, float32_4x1, float32_4x2, float32_4x4, mixed
from legollm.kernels.vectors import normalise, turn

LOWEST = np.float32(-np.inf)


@inner
def place_head(op: int, x: int, out: int, position: int, weight: int, bias: int, room: int) -> None:
    """out = one head's query or key, normalised and turned. room: Dh numbers."""
    d = i64(op, D_HEAD)
    if i64(op, NORM) != NO_NORM:
        normalise(x, x, d, i64(op, NORM), weight, bias, f32(op, 2 * EPS))
    if i64(op, TURN) == NOT_TURNED:
        for i in range(d):
            put_f32(out, i, f32(x, i))
        return
    n = i64(op, D_ROTARY)
    turn(x, room, d, n, i64(op, TURN), i64(op, TURNS) + position * 2 * n * 4)
    for i in range(d):
        put_f32(out, i, f32(room, i))


@inner
def store(op: int, row: int, head: int, column: int, position: int, keys: int, values: int, room: int) -> None:
    """One key head of a row goes to memory; the query heads that share it are made ready in place.

    keys, values: where the head's memory begins.
    """
    n_heads, n_kv_heads, d = i64(op, N_HEADS), i64(op, N_KV_HEADS), i64(op, D_HEAD)
    x = i64(op, IN) + 4 * row * i64(op, IN_STRIDE)
    key, value = x + 4 * d * (n_heads + head), x + 4 * d * (n_heads + n_kv_heads + head)
    place_head(op, key, keys + 4 * d * column, position, i64(op, K_NORM_WEIGHT), i64(op, K_NORM_BIAS), room)
    for i in range(d):
        put_f32(values + 4 * d * column, i, f32(value, i))
    group = n_heads // n_kv_heads
    if i64(op, NORM) != NO_NORM or i64(op, TURN) != NOT_TURNED:
        for query in range(head * group, (head + 1) * group):
            place = x + 4 * d * query
            place_head(op, place, place, position, i64(op, NORM_WEIGHT), i64(op, NORM_BIAS), room)


@inner
def in_order(blocks: int, size: int, column: int, last: int) -> int:
    """How many columns lie one after the other in memory from this one on: up to `last`, or across neighbouring blocks.

    blocks: the number of each block of `size` columns; 0 where all columns lie in order.
    """
    if blocks == 0:
        return last - column
    block = column // size
    stop = (block + 1) * size
    while stop < last and i64(blocks, block + 1) == i64(blocks, block) + 1:
        block += 1
        stop += size
    return min(stop, last) - column


@inner
def lies_at(blocks: int, size: int, column: int) -> int:
    """Where in memory a column is."""
    return i64(blocks, column // size) * size + column % size if blocks else column


@inner
def attend(
    op: int,
    row: int,
    head: int,
    last: int,
    position: int,
    key_positions: int,
    keys: int,
    values: int,
    blocks: int,
    block_size: int,
    room: int,
) -> None:
    """The query heads of a row that share one key head. room: numbers for 4 scores of each column, Dh more, and 16.

    last: how many columns are looked at.
    key_positions: where each key stands, -1 at padding; 0 where that is its column.
    blocks: see `in_order`.
    """
    d = i64(op, D_HEAD)
    group = i64(op, N_HEADS) // i64(op, N_KV_HEADS)
    first, window = 0, i64(op, WINDOW)
    if window and not key_positions:
        first = max(0, last - window)
    n = last - first
    size = (n + 15) // 16 * 16
    query = head * group
    while query < (head + 1) * group:
        left = (head + 1) * group - query
        r = 4 if left >= 4 else 2 if left >= 2 else 1
        x = i64(op, IN) + 4 * (row * i64(op, IN_STRIDE) + query * d)
        out = i64(op, OUT) + 4 * (row * i64(op, OUT_STRIDE) + query * d)
        scores, column = room + 64, first
        while column < last:
            together = in_order(blocks, block_size, column, last)
            at = keys + 4 * d * lies_at(blocks, block_size, column)
            compare(x, 4 * d, r, at, d, together, scores + 4 * (column - first), 4 * size, room)
            column += together
        for j in range(r):
            total = weigh(op, query + j, scores + 4 * size * j, first, n, position, key_positions)
            scale = ONE / total if total > ZERO else ZERO
            mix(scores + 4 * size * j, values, d, first, last, blocks, block_size, scale, out + 4 * d * j, room)
        query += r


@inner
def mix(
    weights: int,
    values: int,
    d: int,
    first: int,
    last: int,
    blocks: int,
    block_size: int,
    scale: np.float32,
    out: int,
    room: int,
) -> None:
    """out = scale * the sum of weights times values of the columns from first on."""
    column = first
    part = room + 64 + 16 * ((last - first + 15) // 16 * 16)  # behind the scores
    while column < last or column == first:
        together = in_order(blocks, block_size, column, last)
        place = out if column == first else part
        at = values + 4 * d * lies_at(blocks, block_size, column)
        mixed(weights + 4 * (column - first), at, 4 * d, together, d, scale, place)
        if column > first:
            for i in range(d):
                put_f32(out, i, f32(out, i) + f32(part, i))
        column += max(together, 1)


@inner
def compare(x: int, x_bytes: int, r: int, keys: int, d: int, n: int, scores: int, stride: int, room: int) -> None:
    """scores[j][i] = query j times key i, for r queries and n keys."""
    i = 0
    while i < n:
        key, m = keys + 4 * d * i, 4
        if n - i < 4:
            m = 1
            for j in range(r):
                float32_1x1(key, 4 * d, x + j * x_bytes, 0, d, room + 4 * j)
        elif r == 1:
            float32_4x1(key, 4 * d, x, x_bytes, d, room)
        elif r == 2:
            float32_4x2(key, 4 * d, x, x_bytes, d, room)
        else:
            float32_4x4(key, 4 * d, x, x_bytes, d, room)
        for j in range(r):
            for one in range(m):
                put_f32(scores + j * stride, i + one, f32(room, j * m + one))
        i += m


@inner
def weigh(op: int, query: int, scores: int, first: int, n: int, position: int, key_positions: int) -> np.float32:
    """From scores to weights that are not divided by their sum yet; returns the sum."""
    scale, window = f32(op, 2 * SCALE), i64(op, WINDOW)
    distances, sinks = i64(op, DISTANCES), i64(op, SINKS)
    for i in range(n):
        put_f32(scores, i, f32(scores, i) * scale)
    if distances:
        of_head = distances + 4 * query * i64(op, N_DISTANCES)
        for i in range(n):
            distance = position - (i64(key_positions, first + i) if key_positions else first + i)
            if distance >= 0:
                put_f32(scores, i, f32(scores, i) + f32(of_head, distance))
    if key_positions:
        for i in range(n):
            at = i64(key_positions, first + i)
            if at < 0 or at > position or (window and position - at >= window):
                put_f32(scores, i, LOWEST)
    largest = f32(sinks, query) if sinks else LOWEST
    for i in range(n):
        largest = max(largest, f32(scores, i))
    if largest == LOWEST:  # padding, which nobody looks at
        largest = ZERO
    total = exp32(f32(sinks, query) - largest) if sinks else ZERO
    for i in range(n):
        score = f32(scores, i)
        weight = exp32(score - largest) if score > LOWEST else ZERO
        put_f32(scores, i, weight)
        total += weight
    return total
