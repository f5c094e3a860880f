"""Rows of a matrix times rows of states: the loops in which nearly all the time of inference passes.

Each function below multiplies M rows of a weight matrix, as they lie one after the other, with R prepared states and
writes M * R sums. What a prepared state looks like depends on the format of the weights:

format    weights of a row               a state of K numbers                                        n counts
float32   K float32                      float32, then zeros up to a multiple of 16                  numbers
bfloat16  K bfloat16                     blocks of 32: those at even places, then those at odd ones  numbers
int8      K bytes                        bytes in groups of 64, then scales, then sums               numbers
int4      16 rows together, `pack_int4`  bytes in groups of 32, then scales, then sums               numbers

Quantised states have one float32 scale for each group, and one int32 that undoes the shift which makes weights
positive: -8 times the sum of the group. The plain definitions are in tests/unit/test_steps.py.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from legollm.kernels.machine import I64, NOTHING, call, cgutils, code, intrinsic
from legollm.kernels.memory import BYTE, F32, FAST, FEATURES, FLOAT, HALF, INT, LONG

FLOATS, INTS, HALVES, BYTES = (ir.VectorType(kind, n) for kind, n in ((FLOAT, 16), (INT, 16), (HALF, 32), (BYTE, 64)))
AHEAD = 8192
"""Bytes that weights are asked for before they are needed: rows read side by side look like no order to a processor.
Without it, two threads read int8 and bfloat16 rows of 768 numbers at 13 to 15 GB/s, with it at 20 to 22."""
HAS_BYTE_DOT = "avx512vnni" in FEATURES


def vector(kind: Any, number: float) -> Any:
    return ir.Constant(kind, [number] * kind.count)


def load(builder: Any, address: Any, kind: Any, align: int = 1) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def each(builder: Any, number: Any, kind: Any) -> Any:
    """The number in all places of a vector."""
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, first, vector(ir.VectorType(INT, kind.count), 0))


def load_first(builder: Any, address: Any, kind: Any, count: Any) -> Any:
    """The first `count` elements there, and zeros; what lies behind them is not touched."""
    places = ir.Constant(ir.VectorType(LONG, kind.count), list(range(kind.count)))
    wanted = builder.icmp_signed("<", places, each(builder, count, places.type))
    name = {FLOATS: "v16f32", HALVES: "v32i16", BYTES: "v64i8"}[kind]
    pointer = builder.inttoptr(address, kind.as_pointer())
    operands = [pointer, ir.Constant(INT, 1), wanted, vector(kind, 0)]
    return call(builder, f"llvm.masked.load.{name}.p0", kind, operands)


def store_first(builder: Any, value: Any, address: Any, count: Any) -> None:
    """The first `count` of 16 numbers."""
    places = ir.Constant(ir.VectorType(LONG, 16), list(range(16)))
    wanted = builder.icmp_signed("<", places, each(builder, count, places.type))
    pointer = builder.inttoptr(address, FLOATS.as_pointer())
    call(builder, "llvm.masked.store.v16f32.p0", ir.VoidType(), [value, pointer, ir.Constant(INT, 4), wanted])


def multiply_add(builder: Any, a: Any, b: Any, total: Any) -> Any:
    return builder.fadd(total, builder.fmul(a, b, flags=FAST), flags=FAST)


def byte_dot(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """total (16 int32) plus the sums of four neighbouring products each of 64 unsigned and 64 signed bytes."""
    if HAS_BYTE_DOT:
        return call(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, [total, unsigned, signed])
    unsigned, signed = builder.bitcast(unsigned, INTS), builder.bitcast(signed, INTS)
    for place in range(4):
        up, down = vector(INTS, 24 - 8 * place), vector(INTS, 24)
        a = builder.lshr(builder.shl(unsigned, up), down)
        b = builder.ashr(builder.shl(signed, up), down)
        total = builder.add(total, builder.mul(a, b))
    return total


class Block:
    """The code of one block of M x R sums while it is built."""

    def __init__(self, builder: Any, m: int, r: int, operands: Any) -> None:
        self.b, self.m, self.r = builder, m, r
        self.weights, self.weight_stride, self.states, self.state_stride, self.n, self.out = operands
        self.sums = [[self.room() for _ in range(r)] for _ in range(m)]

    def room(self) -> Any:
        room = cgutils.alloca_once(self.b, FLOATS)
        self.b.store(vector(FLOATS, 0.0), room)
        return room

    def row(self, base: Any, stride: Any, i: int, offset: Any) -> Any:
        """The address `offset` bytes into row i."""
        return self.b.add(self.b.add(base, self.b.mul(stride, ir.Constant(LONG, i))), offset)

    def add(self, i: int, j: int, a: Any, b: Any) -> None:
        """sums[i][j] += a * b."""
        room = self.sums[i][j]
        self.b.store(multiply_add(self.b, a, b, self.b.load(room)), room)

    def over(self, per_step: int, step: Callable[[Any, Any], None]) -> None:
        """`step(number, None)` for each whole step of the row, then `step(number, how many)` for what is left."""
        b, size = self.b, ir.Constant(LONG, per_step)
        whole, left = b.sdiv(self.n, size), b.srem(self.n, size)
        with cgutils.for_range(b, whole) as loop:
            step(loop.index, None)
        with b.if_then(b.icmp_signed("!=", left, ir.Constant(LONG, 0))):
            step(whole, left)

    def read(self, address: Any, kind: Any, count: Any = None) -> Any:
        """Weights: all places of a vector, or the first `count`."""
        if count is not None:
            return load_first(self.b, address, kind, count)
        ahead = self.b.inttoptr(self.b.add(address, long(AHEAD)), BYTE.as_pointer())
        reading, near, data = (ir.Constant(INT, value) for value in (0, 2, 1))
        call(self.b, "llvm.prefetch.p0", ir.VoidType(), [ahead, reading, near, data])
        return load(self.b, address, kind)

    def finish(self) -> None:
        """Write the sums of all places, row after row."""
        b = self.b
        for j in range(self.r):
            for i in range(self.m):
                function = "llvm.vector.reduce.fadd.v16f32"
                kind = ir.FunctionType(FLOAT, [FLOAT, FLOATS])
                reduce = cgutils.get_or_insert_function(b.module, kind, function)
                total = b.call(reduce, [ir.Constant(FLOAT, -0.0), b.load(self.sums[i][j])], fastmath=FAST)
                b.store(total, b.gep(b.inttoptr(self.out, FLOAT.as_pointer()), [ir.Constant(LONG, j * self.m + i)]))


def long(number: int) -> Any:
    return ir.Constant(LONG, number)


def float32_block(builder: Any, m: int, r: int, operands: Any) -> None:
    block = Block(builder, m, r, operands)

    def step(number: Any, count: Any) -> None:
        offset = builder.mul(number, long(64))
        states = [load(builder, block.row(block.states, block.state_stride, j, offset), FLOATS) for j in range(r)]
        for i in range(m):
            weights = block.read(block.row(block.weights, block.weight_stride, i, offset), FLOATS, count)
            for j in range(r):
                block.add(i, j, weights, states[j])

    block.over(16, step)
    block.finish()


def bfloat16_block(builder: Any, m: int, r: int, operands: Any) -> None:
    block = Block(builder, m, r, operands)

    def step(number: Any, count: Any) -> None:
        offset, at_states = builder.mul(number, long(64)), builder.mul(number, long(128))
        for half in (0, 1):  # the even places are the lower halves of 32 bits, and a number's bits are an upper half
            here = builder.add(at_states, long(64 * half))
            states = [load(builder, block.row(block.states, block.state_stride, j, here), FLOATS) for j in range(r)]
            for i in range(m):
                pairs = block.read(block.row(block.weights, block.weight_stride, i, offset), HALVES, count)
                pairs = builder.bitcast(pairs, INTS)
                bits = builder.and_(pairs, vector(INTS, -65536)) if half else builder.shl(pairs, vector(INTS, 16))
                for j in range(r):
                    block.add(i, j, builder.bitcast(bits, FLOATS), states[j])

    block.over(32, step)
    block.finish()


def int8_block(builder: Any, m: int, r: int, operands: Any) -> None:
    block = Block(builder, m, r, operands)
    groups = builder.sdiv(builder.add(block.n, long(63)), long(64))
    at_scales = builder.mul(groups, long(64))
    at_sums = builder.add(at_scales, builder.mul(groups, long(4)))

    def step(number: Any, count: Any) -> None:
        offset, at_group = builder.mul(number, long(64)), builder.mul(number, long(4))
        states: list[Any] = []
        scales: list[Any] = []
        shifts: list[Any] = []
        for j in range(r):
            states.append(load(builder, block.row(block.states, block.state_stride, j, offset), BYTES))
            for kind, start, found in ((FLOAT, at_scales, scales), (INT, at_sums, shifts)):
                where = block.row(block.states, block.state_stride, j, builder.add(start, at_group))
                found.append(each(builder, load(builder, where, kind, 4), FLOATS if kind is FLOAT else INTS))
        for i in range(m):
            weights = block.read(block.row(block.weights, block.weight_stride, i, offset), BYTES, count)
            weights = builder.xor(weights, vector(BYTES, -128))  # plus 128: from signed to unsigned
            for j in range(r):
                total = byte_dot(builder, shifts[j], weights, states[j])
                block.add(i, j, builder.sitofp(total, FLOATS), scales[j])

    block.over(64, step)
    block.finish()


def int4_block(builder: Any, m: int, r: int, operands: Any) -> None:
    """m == 16: the rows of a panel, one in each place of a vector, so that nothing is left to sum at the end."""
    block = Block(builder, 1, r, operands)
    groups = builder.sdiv(builder.add(block.n, long(31)), long(32))
    at_scales = builder.mul(groups, long(32))
    at_sums = builder.add(at_scales, builder.mul(groups, long(4)))
    weight_scales = builder.add(block.weights, builder.mul(groups, long(256)))
    low = vector(INTS, 0x0F0F0F0F)

    with cgutils.for_range(builder, groups) as loop:
        group = loop.index
        offset, at_group = builder.mul(group, long(32)), builder.mul(group, long(4))
        totals = []
        for j in range(r):
            where = block.row(block.states, block.state_stride, j, builder.add(at_sums, at_group))
            totals.append(each(builder, load(builder, where, INT, 4), INTS))
        for part in range(4):
            where = builder.add(block.weights, builder.add(builder.mul(group, long(256)), long(64 * part)))
            pairs = block.read(where, INTS)
            halves = builder.and_(pairs, low), builder.and_(builder.lshr(pairs, vector(INTS, 4)), low)
            for side, weights in enumerate(halves):
                for j in range(r):
                    at_four = builder.add(offset, long(8 * part + 4 * side))
                    four = load(builder, block.row(block.states, block.state_stride, j, at_four), INT, 4)
                    states = builder.bitcast(each(builder, four, INTS), BYTES)
                    totals[j] = byte_dot(builder, totals[j], builder.bitcast(weights, BYTES), states)
        halves = load(builder, builder.add(weight_scales, builder.mul(group, long(32))), ir.VectorType(HALF, 16), 2)
        scales = builder.bitcast(builder.shl(builder.zext(halves, INTS), vector(INTS, 16)), FLOATS)
        for j in range(r):
            where = block.row(block.states, block.state_stride, j, builder.add(at_scales, at_group))
            both = builder.fmul(scales, each(builder, load(builder, where, FLOAT, 4), FLOATS))
            block.add(0, j, builder.sitofp(totals[j], FLOATS), both)
    for j in range(r):
        where = builder.add(block.out, long(64 * j))
        builder.store(builder.load(block.sums[0][j]), builder.inttoptr(where, FLOATS.as_pointer()), align=4)


@intrinsic
def mixed(_: Any, weights: Any, values: Any, value_bytes: Any, n: Any, width: Any, scale: Any, out: Any) -> Any:
    """out[:width] = scale * the sum of weights[i] * row i of n values."""

    def build(
        builder: Any, weights: Any, values: Any, value_bytes: Any, n: Any, width: Any, scale: Any, out: Any
    ) -> None:
        def part(n_vectors: int, start: Any, count: Any) -> None:
            """64 numbers at once, or up to 16."""
            places = [builder.add(start, long(64 * i)) for i in range(n_vectors)]
            sums = [cgutils.alloca_once(builder, FLOATS) for _ in places]
            for one in sums:
                builder.store(vector(FLOATS, 0.0), one)
            with cgutils.for_range(builder, n) as loop:
                weight = each(
                    builder, load(builder, builder.add(weights, builder.mul(loop.index, long(4))), FLOAT, 4), FLOATS
                )
                row = builder.add(values, builder.mul(loop.index, value_bytes))
                for place, one in zip(places, sums, strict=True):
                    where = builder.add(row, place)
                    value = (
                        load(builder, where, FLOATS, 4) if count is None else load_first(builder, where, FLOATS, count)
                    )
                    builder.store(multiply_add(builder, weight, value, builder.load(one)), one)
            for place, one in zip(places, sums, strict=True):
                total = builder.fmul(builder.load(one), each(builder, scale, FLOATS))
                where = builder.add(out, place)
                if count is None:
                    builder.store(total, builder.inttoptr(where, FLOATS.as_pointer()), align=4)
                else:
                    store_first(builder, total, where, count)

        with cgutils.for_range(builder, builder.sdiv(width, long(64))) as loop:
            part(4, builder.mul(loop.index, long(256)), None)
        done = builder.mul(builder.sdiv(width, long(64)), long(64))
        left = builder.sub(width, done)
        with cgutils.for_range(builder, builder.sdiv(builder.add(left, long(15)), long(16))) as loop:
            start = builder.add(done, builder.mul(loop.index, long(16)))
            part(1, builder.mul(start, long(4)), builder.sub(width, start))

    return NOTHING(I64, I64, I64, I64, I64, F32, I64), code(build)


def product(block: Callable[[Any, int, int, Any], None], m: int, r: int) -> Callable[..., Any]:
    """(weights, bytes to the next row, states, bytes to the next state, n, out) -> out[j * m + i]."""

    @intrinsic
    def multiply(_: Any, weights: Any, weight_stride: Any, states: Any, state_stride: Any, n: Any, out: Any) -> Any:
        return NOTHING(*(I64,) * 6), code(lambda builder, *operands: block(builder, m, r, operands))

    return multiply


float32_4x1, float32_4x2, float32_4x4, float32_1x1 = (
    product(float32_block, m, r) for m, r in ((4, 1), (4, 2), (4, 4), (1, 1))
)
bfloat16_4x1, bfloat16_4x2, bfloat16_4x4, bfloat16_1x1 = (
    product(bfloat16_block, m, r) for m, r in ((4, 1), (4, 2), (4, 4), (1, 1))
)
int8_4x1, int8_4x2, int8_4x4, int8_1x1 = (product(int8_block, m, r) for m, r in ((4, 1), (4, 2), (4, 4), (1, 1)))
int4_16x1, int4_16x2, int4_16x4 = (product(int4_block, 16, r) for r in (1, 2, 4))
