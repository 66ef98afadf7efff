"""Primitives over rows of floats. What they compute of an element depends on nothing but its operands, and sums have an
order that depends on their length only.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import TYPE_CHECKING, Any

from edgert_quant.jit import emit, primitive

if TYPE_CHECKING:
    from llvmlite import ir

LANES = 16


def vector_types() -> Any:
    """float, and 16 of them."""
    from llvmlite import ir

    return ir.FloatType(), ir.VectorType(ir.FloatType(), LANES)


LOG2E = 1.4426950408889634
LN2_HIGH = 0.693145751953125  # 15 bits: exact times any exponent
LN2_LOW = 1.42860682030941723212e-06
ROUNDER = 12582912.0  # 1.5 · 2^23: adding it leaves the nearest integer in the low bits
LARGEST = 88.3762626647949
SMALLEST = -87.3365447505531
COEFFICIENTS = tuple(1.0 / factorial(n) for n in range(7, -1, -1))


def emit_exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e^x of a float or a vector of them, with a relative error of 1e-7; saturates at e^88.37, is 0 below -87.33, and
    NaN for NaN. Cody-Waite reduction to |r| ≤ ln 2 / 2 and the Taylor polynomial of degree 7, whose error is 5e-9.
    """
    from llvmlite import ir

    kind = x.type
    wide = isinstance(kind, ir.VectorType)
    word = ir.VectorType(ir.IntType(32), kind.count) if wide else ir.IntType(32)

    def number(value: float) -> ir.Value:
        return emit.real(value, kind)

    def whole(value: int) -> ir.Value:
        return ir.Constant(word, [value] * kind.count) if wide else ir.Constant(word, value)

    def fused(u: ir.Value, v: ir.Value, w: ir.Value) -> ir.Value:
        return emit.call(b, f"llvm.fmuladd.v{kind.count}f32" if wide else "llvm.fmuladd.f32", kind, [u, v, w])

    clamped = b.select(b.fcmp_ordered(">", x, number(LARGEST)), number(LARGEST), x)
    small = b.fcmp_ordered("<", x, number(SMALLEST))
    clamped = b.select(small, number(SMALLEST), clamped)
    shifted = fused(clamped, number(LOG2E), number(ROUNDER))
    n = b.fsub(shifted, number(ROUNDER))
    r = fused(n, number(-LN2_LOW), fused(n, number(-LN2_HIGH), clamped))
    total = number(COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        total = fused(total, r, number(coefficient))
    scale = b.bitcast(b.add(b.shl(b.bitcast(shifted, word), whole(23)), whole(0x3F800000)), kind)
    return b.select(small, number(0.0), b.fmul(total, scale))


@primitive("f32(f32)")
def exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e^x; see `emit_exp`."""
    return emit_exp(b, x)


def _each(b: ir.IRBuilder, n: ir.Value, run: Callable[[ir.Value, Any], None]) -> None:
    """run(index, type) for 16 elements at once, and then for one."""
    single, wide = vector_types()
    done: Any = emit.integer(64, 0)
    for kind, width in ((wide, LANES), (single, 1)):
        with emit.loop(b, b.sub(n, emit.integer(64, width - 1)), start=done, step=width) as each:
            run(b.shl(each.index, emit.integer(64, 2)), kind)
        done = each.index


@primitive("void(i64, i64, i64, i64)")
def gate_by_silu(b: ir.IRBuilder, out: ir.Value, gate: ir.Value, up: ir.Value, n: ir.Value) -> None:
    """out[i] = z / (1 + e^-z) · up[i] with z = gate[i], for n floats; out may be gate or up."""

    def run(offset: ir.Value, kind: Any) -> None:
        z, y = (emit.load(b, b.add(row, offset), 0, kind, align=4) for row in (gate, up))
        below = b.fadd(emit.real(1.0, kind), emit_exp(b, b.fneg(z)))
        emit.store(b, b.add(out, offset), 0, b.fmul(b.fdiv(z, below), y), align=4)

    _each(b, n, run)
