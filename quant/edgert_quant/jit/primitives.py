"""The primitives that kernels share: memory by address, atomics, calls by address, waiting, and rows of floats.

Addresses are 64-bit integers; `index` counts elements from there. Loads and stores need no alignment of vectors, but an
element must be aligned to its own size (x86 and AArch64 forgive it, compilers may not).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgert_quant.jit import emit
from edgert_quant.jit.operation import primitive
from edgert_quant.jit.target import host

if TYPE_CHECKING:
    from llvmlite import ir

LANES = 16
"""Partial sums of the row primitives: fixed, so that results are the same on every CPU with fused multiply-add."""


def _int(bits: int) -> Any:
    from llvmlite import ir

    return ir.IntType(bits)


def _float() -> Any:
    from llvmlite import ir

    return ir.FloatType()


@primitive("u8(i64, i64)")
def load_u8(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    """The byte at `index`."""
    return emit.load(b, address, index, _int(8))


@primitive("i32(i64, i64)")
def load_i32(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    """The 32-bit integer at `index`."""
    return emit.load(b, address, index, _int(32))


@primitive("i64(i64, i64)")
def load_i64(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    """The 64-bit integer at `index`."""
    return emit.load(b, address, index, _int(64))


@primitive("f32(i64, i64)")
def load_f32(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    """The float at `index`."""
    return emit.load(b, address, index, _float())


@primitive("f64(i64, i64)")
def load_f64(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    """The double at `index`."""
    from llvmlite import ir

    return emit.load(b, address, index, ir.DoubleType())


@primitive("f32(i64, i64)")
def load_f16(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    """The IEEE half at `index`, as a float; its address may be odd."""
    return emit.half_to_float(b, emit.load(b, address, index, _int(16), align=1))


@primitive("void(i64, i64, u8)")
def store_u8(b: ir.IRBuilder, address: ir.Value, index: ir.Value, value: ir.Value) -> None:
    """Set a byte."""
    emit.store(b, address, index, value)


@primitive("void(i64, i64, i32)")
def store_i32(b: ir.IRBuilder, address: ir.Value, index: ir.Value, value: ir.Value) -> None:
    """Set a 32-bit integer."""
    emit.store(b, address, index, value)


@primitive("void(i64, i64, i64)")
def store_i64(b: ir.IRBuilder, address: ir.Value, index: ir.Value, value: ir.Value) -> None:
    """Set a 64-bit integer."""
    emit.store(b, address, index, value)


@primitive("void(i64, i64, f32)")
def store_f32(b: ir.IRBuilder, address: ir.Value, index: ir.Value, value: ir.Value) -> None:
    """Set a float."""
    emit.store(b, address, index, value)


@primitive("void(i64, i64, f32)")
def store_f16(b: ir.IRBuilder, address: ir.Value, index: ir.Value, value: ir.Value) -> None:
    """Set an IEEE half to the nearest value (ties to even); its address may be odd."""
    emit.store(b, address, index, emit.float_to_half(b, value), align=1)


@primitive("void(i64, i64)")
def zero_bytes(b: ir.IRBuilder, address: ir.Value, count: ir.Value) -> None:
    """Set `count` bytes to zero."""
    from llvmlite import ir

    pointer = b.inttoptr(address, ir.PointerType(_int(8)))
    emit.call(b, "llvm.memset.p0.i64", ir.VoidType(), [pointer, emit.integer(8, 0), count, emit.integer(1, 0)])


@primitive("void(i64, i64, i64)")
def copy_bytes(b: ir.IRBuilder, target: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Copy `count` bytes; the ranges do not overlap."""
    from llvmlite import ir

    pointers = [b.inttoptr(address, ir.PointerType(_int(8))) for address in (target, source)]
    emit.call(b, "llvm.memcpy.p0.p0.i64", ir.VoidType(), [*pointers, count, emit.integer(1, 0)])


@primitive("i64(i64, i64, i64)")
def fetch_add(b: ir.IRBuilder, address: ir.Value, index: ir.Value, value: ir.Value) -> ir.Value:
    """Add to a 64-bit integer atomically (sequentially consistent); its value before."""
    return b.atomic_rmw("add", emit.at(b, address, index, _int(64)), value, "seq_cst")


@primitive("i64(i64, i64)")
def load_acquire(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    """Read a 64-bit integer atomically; what was written before its `store_release` is visible after."""
    return b.load_atomic(_typed(b, address, index), "acquire", 8, typ=_int(64))


@primitive("void(i64, i64, i64)")
def store_release(b: ir.IRBuilder, address: ir.Value, index: ir.Value, value: ir.Value) -> None:
    """Write a 64-bit integer atomically, after everything written before."""
    b.store_atomic(value, _typed(b, address, index), "release", 8)


def _typed(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    from llvmlite import ir

    place = b.add(address, b.shl(index, emit.integer(64, 3)))
    return b.inttoptr(place, ir.PointerType(_int(64)))


@primitive("void()")
def pause(b: ir.IRBuilder) -> None:
    """Tell the CPU that this is a spinning loop."""
    from llvmlite import ir

    triple = host().triple
    if triple.startswith(("x86_64", "i386", "i686")):
        emit.call(b, "llvm.x86.sse2.pause", ir.VoidType(), [])
    elif triple.startswith(("aarch64", "arm64")):
        emit.call(b, "llvm.aarch64.hint", ir.VoidType(), [emit.integer(32, 1)])


@primitive("void()")
def yield_thread(b: ir.IRBuilder) -> None:
    """Let another thread run on this core."""
    emit.call(b, "SwitchToThread" if sys.platform == "win32" else "sched_yield", _int(32), [])


def _call_address(b: ir.IRBuilder, address: ir.Value, *arguments: ir.Value) -> ir.Value:
    from llvmlite import ir

    kind = ir.FunctionType(_int(64), [_int(64)] * len(arguments))
    return b.call(b.inttoptr(address, ir.PointerType(kind)), list(arguments))


@primitive("i64(i64, i64, i64)")
def call2(b: ir.IRBuilder, address: ir.Value, a: ir.Value, c: ir.Value) -> ir.Value:
    """Call the kernel at an address with two integers."""
    return _call_address(b, address, a, c)


@primitive("i64(i64, i64, i64, i64)")
def call3(b: ir.IRBuilder, address: ir.Value, a: ir.Value, c: ir.Value, d: ir.Value) -> ir.Value:
    """Call the kernel at an address with three integers."""
    return _call_address(b, address, a, c, d)


@primitive("i64(i64, i64, i64, i64, i64)")
def call4(b: ir.IRBuilder, address: ir.Value, a: ir.Value, c: ir.Value, d: ir.Value, e: ir.Value) -> ir.Value:
    """Call the kernel at an address with four integers."""
    return _call_address(b, address, a, c, d, e)


@primitive("i64(i64, i64, i64, i64, i64, i64)")
def call5(
    b: ir.IRBuilder, address: ir.Value, a: ir.Value, c: ir.Value, d: ir.Value, e: ir.Value, f: ir.Value
) -> ir.Value:
    """Call the kernel at an address with five integers."""
    return _call_address(b, address, a, c, d, e, f)


@primitive("i64(i64, i64, i64, i64, i64, i64, i64)")
def call6(b: ir.IRBuilder, address: ir.Value, *arguments: ir.Value) -> ir.Value:
    """Call the kernel at an address with six integers."""
    return _call_address(b, address, *arguments)


@primitive("i64(i64, i64, i64, i64, i64, i64, i64, i64)")
def call7(b: ir.IRBuilder, address: ir.Value, *arguments: ir.Value) -> ir.Value:
    """Call the kernel at an address with seven integers."""
    return _call_address(b, address, *arguments)


def _row(b: ir.IRBuilder, address: ir.Value, index: ir.Value, *, half: bool, lanes: int) -> ir.Value:
    """`lanes` elements from `index` on, as floats."""
    from llvmlite import ir

    size = 2 if half else 4
    place = b.add(address, b.mul(index, emit.integer(64, size)))
    if lanes == 1:
        return (
            emit.half_to_float(b, emit.load(b, place, 0, _int(16), align=1))
            if half
            else emit.load(b, place, 0, _float())
        )
    if half:
        return emit.half_to_float(b, emit.load(b, place, 0, ir.VectorType(_int(16), lanes), align=1))
    return emit.load(b, place, 0, ir.VectorType(_float(), lanes), align=4)


def _dot(b: ir.IRBuilder, x: ir.Value, y: ir.Value, n: ir.Value, *, half: bool) -> ir.Value:
    from llvmlite import ir

    wide = ir.VectorType(_float(), LANES)
    whole = b.and_(n, emit.integer(64, -LANES))
    with emit.loop(b, whole, emit.real(0.0, wide), step=LANES) as body:
        pair = [_row(b, x, body.index, half=False, lanes=LANES), _row(b, y, body.index, half=half, lanes=LANES)]
        body.carry(emit.call(b, f"llvm.fmuladd.v{LANES}f32", wide, [*pair, body.values[0]]))
    total = body.values[0]
    width = LANES
    while width > 1:  # halve the vector: an order of summation that no CPU changes
        width //= 2
        low = ir.Constant(ir.VectorType(_int(32), width), list(range(width)))
        high = ir.Constant(ir.VectorType(_int(32), width), list(range(width, 2 * width)))
        none = ir.Constant(total.type, ir.Undefined)
        total = b.fadd(b.shuffle_vector(total, none, low), b.shuffle_vector(total, none, high))
    first = b.extract_element(total, emit.integer(32, 0))
    with emit.loop(b, n, first, start=whole) as rest:
        pair = [_row(b, x, rest.index, half=False, lanes=1), _row(b, y, rest.index, half=half, lanes=1)]
        rest.carry(emit.call(b, "llvm.fmuladd.f32", _float(), [*pair, rest.values[0]]))
    return rest.values[0]


@primitive("f32(i64, i64, i64)")
def dot_f32(b: ir.IRBuilder, x: ir.Value, y: ir.Value, n: ir.Value) -> ir.Value:
    """Σ x[i]·y[i] of two rows of n floats, in an order that depends on n only."""
    return _dot(b, x, y, n, half=False)


@primitive("f32(i64, i64, i64)")
def dot_f16(b: ir.IRBuilder, x: ir.Value, y: ir.Value, n: ir.Value) -> ir.Value:
    """Σ x[i]·y[i] of n floats and n halves, in an order that depends on n only."""
    return _dot(b, x, y, n, half=True)
