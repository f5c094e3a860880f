"""Memory by its address, for kernels that work on weights and states as they lie: loads, stores, and numbers that
threads share.

An address is a whole number of 64 bits, as `Tensor.data_ptr` gives it; an index counts elements. Nothing here checks
bounds, and whoever passes an address keeps alive what lies there.
"""

import ctypes
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types

from legollm.kernels.machine import I64, NOTHING, call, code, intrinsic

F32 = types.float32
PROCESSOR = llvmlite.binding.get_process_triple().partition("-")[0]
"""x86_64, aarch64, ..."""
FEATURES = frozenset(name for name, there in llvmlite.binding.get_host_cpu_features().items() if there)
"""What the processor can do beyond its kind, in LLVM's words: avx512vnni, ..."""
CAN_GIVE_WAY = hasattr(os, "sched_yield")
if CAN_GIVE_WAY:
    _sched_yield = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value
    llvmlite.binding.add_symbol("sched_yield", _sched_yield)

FAST = ("contract", "reassoc", "nsz", "arcp")
"""Sums may be taken in another order, and a product and a sum be one instruction; infinities stay what they are."""

BYTE, HALF, INT, LONG, FLOAT = (*(ir.IntType(bits) for bits in (8, 16, 32, 64)), ir.FloatType())


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of a kernel: compiled into the kernels that call it, and never loaded by itself."""
    compile_it: Callable[..., Any] = partial(numba.njit, fastmath=set(FAST), error_model="numpy", _nrt=False)
    done: Callable[..., Any] = compile_it(function)
    return done


def number(function: Callable[..., Any]) -> Callable[..., Any]:
    """An intrinsic whose result is a float32."""
    return intrinsic(function)


def place(builder: Any, address: Any, index: Any, element: Any) -> Any:
    """The place of element `index` after `address`."""
    return builder.gep(builder.inttoptr(address, element.as_pointer()), [index])


# ---- loads and stores ---------------------------------------------------------------------------------------------


@number
def f32(_: Any, address: Any, index: Any) -> Any:
    """The float32 number there."""
    return F32(I64, I64), code(lambda builder, base, i: builder.load(place(builder, base, i, FLOAT)))


@intrinsic
def put_f32(_: Any, address: Any, index: Any, value: Any) -> Any:
    def build(builder: Any, base: Any, i: Any, number: Any) -> None:
        builder.store(number, place(builder, base, i, FLOAT))

    return NOTHING(I64, I64, F32), code(build)


@number
def bf16(_: Any, address: Any, index: Any) -> Any:
    """The bfloat16 number there, as float32: its bits are the upper half."""

    def build(builder: Any, base: Any, i: Any) -> Any:
        bits = builder.zext(builder.load(place(builder, base, i, HALF)), INT)
        return builder.bitcast(builder.shl(bits, ir.Constant(INT, 16)), FLOAT)

    return F32(I64, I64), code(build)


@intrinsic
def i8(_: Any, address: Any, index: Any) -> Any:
    """The signed byte there."""
    return I64(I64, I64), code(lambda builder, base, i: builder.sext(builder.load(place(builder, base, i, BYTE)), LONG))


@intrinsic
def put_i8(_: Any, address: Any, index: Any, value: Any) -> Any:
    def build(builder: Any, base: Any, i: Any, number: Any) -> None:
        builder.store(builder.trunc(number, BYTE), place(builder, base, i, BYTE))

    return NOTHING(I64, I64, I64), code(build)


@intrinsic
def put_i32(_: Any, address: Any, index: Any, value: Any) -> Any:
    def build(builder: Any, base: Any, i: Any, number: Any) -> None:
        builder.store(builder.trunc(number, INT), place(builder, base, i, INT))

    return NOTHING(I64, I64, I64), code(build)


@intrinsic
def put_i64(_: Any, address: Any, index: Any, value: Any) -> Any:
    def build(builder: Any, base: Any, i: Any, number: Any) -> None:
        builder.store(number, place(builder, base, i, LONG))

    return NOTHING(I64, I64, I64), code(build)


@intrinsic
def i64(_: Any, address: Any, index: Any) -> Any:
    """The whole number there."""
    return I64(I64, I64), code(lambda builder, base, i: builder.load(place(builder, base, i, LONG)))


# ---- what threads share -------------------------------------------------------------------------------------------


@intrinsic
def shared(_: Any, address: Any) -> Any:
    """The whole number there; whatever its writer wrote before it is seen, too."""

    def build(builder: Any, base: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(base, LONG.as_pointer()), "acquire", 8)

    return I64(I64), code(build)


@intrinsic
def publish(_: Any, address: Any, value: Any) -> Any:
    """Write a whole number, after everything written before it."""

    def build(builder: Any, base: Any, number: Any) -> None:
        builder.store_atomic(number, builder.inttoptr(base, LONG.as_pointer()), "seq_cst", 8)

    return NOTHING(I64, I64), code(build)


@intrinsic
def add_shared(_: Any, address: Any, amount: Any) -> Any:
    """Add to the whole number there; returns what it was."""

    def build(builder: Any, base: Any, number: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(base, LONG.as_pointer()), number, "acq_rel")

    return I64(I64, I64), code(build)


@intrinsic
def replace_shared(_: Any, address: Any, expected: Any, value: Any) -> Any:
    """Write `value` if `expected` is there; returns whether it was."""

    def build(builder: Any, base: Any, old: Any, new: Any) -> Any:
        pair = builder.cmpxchg(builder.inttoptr(base, LONG.as_pointer()), old, new, "acq_rel", "acquire")
        return builder.zext(builder.extract_value(pair, 1), LONG)

    return I64(I64, I64, I64), code(build)


@intrinsic
def breathe(_: Any) -> Any:
    """A short wait that leaves a core's units to the other thread on it; nothing, where the processor has none."""

    def build(builder: Any) -> None:
        if PROCESSOR.startswith("x86"):
            call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])

    return NOTHING(), code(build)


@intrinsic
def give_way(_: Any) -> Any:
    """Let another thread have this core if one waits for it; nothing, where the system has no word for it."""

    def build(builder: Any) -> None:
        if CAN_GIVE_WAY:
            call(builder, "sched_yield", INT, [])

    return NOTHING(), code(build)
