"""What the kernels need of the machine and Python has no word for: raw loads, bit counts, 64 bytes at once.

Each is one or a few instructions of LLVM, which also has them for processors without vectors. Whole numbers are signed
and of 64 bits throughout, and byte order is little-endian. Nothing here checks bounds: whoever calls knows them.
"""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped_cgutils
from numpy.typing import NDArray

from legollm.kernels.stamp import stamp

F = TypeVar("F", bound=Callable[..., Any])
Array = NDArray[Any]
cgutils: Any = untyped_cgutils
_tuple: Any = types.Tuple
record: Any = types.NamedTuple
"""numba's type of a NamedTuple class: record([types of the fields], class)."""

# The types of the kernels' arguments.
I64 = types.int64
NOTHING = types.void
TEXT = types.Array(types.uint8, 1, "C", readonly=True)
"""Bytes to read, such as those of a `bytes` object."""
BYTES = types.uint8[::1]
I32S = types.int32[::1]
I64S = types.int64[::1]
TABLE = types.Array(types.int64, 1, "C", readonly=True)
"""Whole numbers to read only, as constant tables are."""

PAIR, TRIPLE, SEVEN, EIGHT = (_tuple((I64,) * n) for n in (2, 3, 7, 8))

_BIT, _BYTE, _INT, _LONG = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_ELEMENT = {types.uint8: _BYTE, types.int32: _INT, types.int64: _LONG}

WINDOW = 64
"""Bytes classified at once by `byte_classes`: one bit for each in a whole number."""


def kernel(signature: Any) -> Callable[[F], F]:
    """Compile a function of this signature now, or load what an earlier process compiled and left on disk.

    Kernels run without the interpreter lock, so threads run them side by side. A function that does not
    name `np` makes no arrays: numba then counts no references to its arguments, which can take half of the time.
    """

    def compiled(function: F) -> F:
        # numba looks for changes in a function's own file only, but other modules' functions are compiled into it: with
        # their hash in its name it has another place on disk when any of them changes.
        function.__qualname__ += "_" + stamp(Path(inspect.getfile(function)))
        counted = "np" in function.__code__.co_names
        compile_it: Callable[..., Any] = partial(numba.njit, signature, nogil=True, error_model="numpy", _nrt=counted)
        try:
            return cast(F, compile_it(cache=True)(function))
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            return cast(F, compile_it()(function))  # no folder to write to: compiled anew in each process

    return compiled


def intrinsic(function: Callable[..., Any]) -> Callable[..., int]:
    done: Callable[..., int] = numba.extending.intrinsic(function)
    return done


def code(build: Callable[..., Any]) -> Callable[..., Any]:
    """numba's generator for `build`, which gets the instruction builder and the operands, arrays as their address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        operands = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, values, strict=True)
        ]
        result = build(builder, *operands)
        return context.get_dummy_value() if result is None else result

    return generate


def _bytes_at(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    """The address `offset` bytes after `address`, as that of a value of `kind`."""
    return builder.bitcast(builder.gep(builder.bitcast(address, _BYTE.as_pointer()), [offset]), kind.as_pointer())


def call(builder: Any, name: str, result: Any, operands: list[Any]) -> Any:
    function_type = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), operands)


# ---- arrays -------------------------------------------------------------------------------------------------------


@intrinsic
def at(_: Any, array: Any, index: Any) -> Any:
    """array[index] for index >= 0, as a whole number: without numba's second look for a negative index."""
    element = _ELEMENT[array.dtype]

    def build(builder: Any, address: Any, where: Any) -> Any:
        value = builder.load(builder.gep(address, [where], inbounds=True))
        if element is _LONG:
            return value
        return builder.zext(value, _LONG) if element is _BYTE else builder.sext(value, _LONG)

    return I64(array, I64), code(build)


@intrinsic
def put(_: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value for index >= 0; bits that the element has no room for are dropped."""
    element = _ELEMENT[array.dtype]

    def build(builder: Any, address: Any, where: Any, what: Any) -> None:
        what = what if element is _LONG else builder.trunc(what, element)
        builder.store(what, builder.gep(address, [where], inbounds=True))

    return NOTHING(array, I64, I64), code(build)


@intrinsic
def load64(_: Any, array: Any, offset: Any) -> Any:
    """The 8 bytes at byte `offset` of an array as one whole number; any offset will do."""

    def build(builder: Any, address: Any, where: Any) -> Any:
        return builder.load(_bytes_at(builder, address, where, _LONG), align=1)

    return I64(array, I64), code(build)


@intrinsic
def store64(_: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a whole number to the 8 bytes at byte `offset`."""

    def build(builder: Any, address: Any, where: Any, what: Any) -> None:
        builder.store(what, _bytes_at(builder, address, where, _LONG), align=1)

    return NOTHING(array, I64, I64), code(build)


@intrinsic
def copy16(_: Any, target: Any, target_offset: Any, source: Any, source_offset: Any) -> Any:
    """Copy 16 bytes from byte `source_offset` to byte `target_offset`."""
    pair = ir.VectorType(_LONG, 2)

    def build(builder: Any, to: Any, to_offset: Any, origin: Any, origin_offset: Any) -> None:
        value = builder.load(_bytes_at(builder, origin, origin_offset, pair), align=1)
        builder.store(value, _bytes_at(builder, to, to_offset, pair), align=1)

    return NOTHING(target, I64, source, I64), code(build)


@intrinsic
def prefetch(_: Any, array: Any, offset: Any) -> Any:
    """Start loading the cache line at byte `offset`, and do not wait for it."""

    def build(builder: Any, address: Any, where: Any) -> None:
        reading, keep, data = (ir.Constant(_INT, value) for value in (0, 3, 1))
        line = _bytes_at(builder, address, where, _BYTE)
        call(builder, "llvm.prefetch.p0", ir.VoidType(), [line, reading, keep, data])

    return NOTHING(array, I64), code(build)


# ---- whole numbers as rows of 64 bits -----------------------------------------------------------------------------


@intrinsic
def trailing_zeros(_: Any, bits: Any) -> Any:
    """The position of the lowest bit that is set; 64 if none is."""
    return I64(I64), code(lambda builder, value: builder.cttz(value, ir.Constant(_BIT, 0)))


@intrinsic
def leading_zeros(_: Any, bits: Any) -> Any:
    """63 less the position of the highest bit that is set; 64 if none is."""
    return I64(I64), code(lambda builder, value: builder.ctlz(value, ir.Constant(_BIT, 0)))


@intrinsic
def count_ones(_: Any, bits: Any) -> Any:
    """How many bits are set."""
    return I64(I64), code(lambda builder, value: builder.ctpop(value))


@intrinsic
def shift_right(_: Any, bits: Any, count: Any) -> Any:
    """The bits moved `count` < 64 places down, zeros from above; Python's >> would copy the sign."""
    return I64(I64, I64), code(lambda builder, value, places: builder.lshr(value, places))


@intrinsic
def wrap_add(_: Any, a: Any, b: Any) -> Any:
    """a + b modulo 2**64: what carries beyond the top bit is lost, as bit tricks want it."""
    return I64(I64, I64), code(lambda builder, x, y: builder.add(x, y))


@intrinsic
def wrap_multiply(_: Any, a: Any, b: Any) -> Any:
    """a * b modulo 2**64, as hashes want it."""
    return I64(I64, I64), code(lambda builder, x, y: builder.mul(x, y))


# ---- many values at once ------------------------------------------------------------------------------------------


@intrinsic
def _byte_classes(_: Any, text: Any, offset: Any) -> Any:
    """The ASCII classes of text[offset : offset + 64], each as 64 bits, one for a byte, the lowest for the first.

    In order: letters, digits, whitespace (9 to 13 and 32), blanks (32), newlines (10 and 13), apostrophes, bytes above
    ASCII.
    """
    vector = ir.VectorType(_BYTE, WINDOW)

    def build(builder: Any, address: Any, where: Any) -> Any:
        value = builder.load(_bytes_at(builder, address, where, vector), align=1)

        def each(number: int) -> Any:
            return ir.Constant(vector, [number] * WINDOW)

        def equals(number: int) -> Any:
            return builder.icmp_unsigned("==", value, each(number))

        def within(what: Any, first: int, count: int) -> Any:
            return builder.icmp_unsigned("<", builder.sub(what, each(first)), each(count))

        blank = equals(ord(" "))
        classes = [
            within(builder.or_(value, each(0x20)), ord("a"), 26),
            within(value, ord("0"), 10),
            builder.or_(blank, within(value, ord("\t"), 5)),
            blank,
            builder.or_(equals(ord("\n")), equals(ord("\r"))),
            equals(ord("'")),
            builder.icmp_signed("<", value, each(0)),
        ]
        return cgutils.pack_array(builder, [builder.bitcast(one, _LONG) for one in classes])

    return SEVEN(text, I64), code(build)


byte_classes: Callable[..., Any] = _byte_classes


@intrinsic
def replace16(_: Any, array: Any, index: Any, a: Any, at_a: Any, b: Any, at_b: Any, c: Any, at_c: Any) -> Any:
    """Of the 16 values of an int32 array from `index` on, replace those at places a, b and c; returns the smallest.

    A place counts from `index` and may be none of the 16. Read and written as a whole: a processor waits long to read
    many values of which it has just written one.
    """
    vector = ir.VectorType(_INT, 16)

    def build(builder: Any, address: Any, where: Any, *places_and_values: Any) -> Any:
        start = builder.gep(address, [where], inbounds=True)
        start = builder.bitcast(start, vector.as_pointer())
        value = builder.load(start, align=4)

        def each(number: Any) -> Any:
            narrow = builder.trunc(number, _INT)
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), narrow, ir.Constant(_INT, 0))
            return builder.shuffle_vector(first, first, ir.Constant(vector, [0] * 16))

        numbers = ir.Constant(vector, list(range(16)))
        for place, new in zip(places_and_values[::2], places_and_values[1::2], strict=True):
            value = builder.select(builder.icmp_signed("==", numbers, each(place)), each(new), value)
        builder.store(value, start, align=4)
        return builder.sext(call(builder, "llvm.vector.reduce.smin.v16i32", _INT, [value]), _LONG)

    return I64(array, *(I64,) * 7), code(build)


@intrinsic
def find8(_: Any, array: Any, index: Any, key: Any, places: Any) -> Any:
    """Which of the 8 values of an int64 array from `index` on is `key` once it is moved `places` bits down; or 64."""
    vector = ir.VectorType(_LONG, 8)

    def build(builder: Any, address: Any, where: Any, wanted: Any, count: Any) -> Any:
        start = builder.gep(address, [where], inbounds=True)
        value = builder.load(builder.bitcast(start, vector.as_pointer()), align=8)

        def each(number: Any) -> Any:
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(_INT, 0))
            return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_INT, 8), [0] * 8))

        equal = builder.icmp_unsigned("==", builder.lshr(value, each(count)), each(wanted))
        found = builder.zext(builder.bitcast(equal, _BYTE), _LONG)
        return builder.cttz(found, ir.Constant(_BIT, 0))

    return I64(array, I64, I64, I64), code(build)


@intrinsic
def out_of_line(_: Any) -> Any:
    """Said in a kernel: never copy it into its callers, whose loops then keep the registers."""
    return NOTHING(), code(lambda builder: builder.function.attributes.add("noinline"))
