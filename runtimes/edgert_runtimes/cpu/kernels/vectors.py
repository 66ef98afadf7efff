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


def fold(b: ir.IRBuilder, value: ir.Value, combine: Any) -> ir.Value:
    """Combine the lanes by halves."""
    from llvmlite import ir

    width = LANES
    while width > 1:
        width //= 2
        none = ir.Constant(value.type, ir.Undefined)
        masks = [
            ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width))) for start in (0, width)
        ]
        value = combine(*(b.shuffle_vector(value, none, mask) for mask in masks))
    return b.extract_element(value, emit.integer(32, 0))


@primitive("f32(i64, i64)")
def largest(b: ir.IRBuilder, x: ir.Value, n: ir.Value) -> ir.Value:
    """The largest of n floats; NaNs are passed over, -inf if there is nothing else."""
    single, wide = vector_types()
    whole = b.and_(n, emit.integer(64, -LANES))
    with emit.loop(b, whole, emit.real(float("-inf"), wide), step=LANES) as body:
        row = emit.load(b, b.add(x, b.shl(body.index, emit.integer(64, 2))), 0, wide, align=4)
        body.carry(emit.call(b, "llvm.maxnum.v16f32", wide, [body.values[0], row]))
    first = fold(b, body.values[0], lambda x, y: emit.call(b, f"llvm.maxnum.v{x.type.count}f32", x.type, [x, y]))
    with emit.loop(b, n, first, start=whole) as rest:
        rest.carry(emit.call(b, "llvm.maxnum.f32", single, [rest.values[0], emit.load(b, x, rest.index, single)]))
    return rest.values[0]


@primitive("i64(i64, i64, f32)")
def first_equal(b: ir.IRBuilder, x: ir.Value, n: ir.Value, value: ir.Value) -> ir.Value:
    """The index of the first of n floats (fewer than 2^31) that equals `value`; n where none does."""
    from llvmlite import ir

    single, wide = vector_types()
    word = ir.IntType(32)
    words = ir.VectorType(word, LANES)
    whole = b.and_(n, emit.integer(64, -LANES))
    none = b.trunc(n, word)
    with emit.loop(b, whole, emit.splat(b, none, LANES), step=LANES) as body:
        row = emit.load(b, b.add(x, b.shl(body.index, emit.integer(64, 2))), 0, wide, align=4)
        places = b.add(emit.splat(b, b.trunc(body.index, word), LANES), ir.Constant(words, list(range(LANES))))
        equal = b.select(b.fcmp_ordered("==", row, emit.splat(b, value, LANES)), places, body.values[0])
        body.carry(emit.call(b, "llvm.smin.v16i32", words, [body.values[0], equal]))
    first = emit.call(b, "llvm.vector.reduce.smin.v16i32", word, [body.values[0]])
    with emit.loop(b, n, first, start=whole) as rest:
        equal = b.fcmp_ordered("==", emit.load(b, x, rest.index, single), value)
        place = b.select(equal, b.trunc(rest.index, word), none)
        rest.carry(emit.call(b, "llvm.smin.i32", word, [rest.values[0], place]))
    return b.zext(rest.values[0], ir.IntType(64))


@primitive("f32(i64, i64)")
def total(b: ir.IRBuilder, x: ir.Value, n: ir.Value) -> ir.Value:
    """The sum of n floats: 16 partial sums, folded by halves, then the rest one by one."""
    single, wide = vector_types()
    whole = b.and_(n, emit.integer(64, -LANES))
    with emit.loop(b, whole, emit.real(0.0, wide), step=LANES) as body:
        row = emit.load(b, b.add(x, b.shl(body.index, emit.integer(64, 2))), 0, wide, align=4)
        body.carry(b.fadd(body.values[0], row))
    first = fold(b, body.values[0], b.fadd)
    with emit.loop(b, n, first, start=whole) as rest:
        rest.carry(b.fadd(rest.values[0], emit.load(b, x, rest.index, single)))
    return rest.values[0]


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


def emit_tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """tanh of a float or a vector of them, with an absolute error of 1e-7: (1 - u) / (1 + u) with u = e^(-2|x|), and
    the sign of x. NaN for NaN.
    """
    one = emit.real(1.0, x.type)
    suffix = f"v{x.type.count}f32" if hasattr(x.type, "count") else "f32"
    size = emit.call(b, f"llvm.fabs.{suffix}", x.type, [x])
    u = emit_exp(b, b.fmul(size, emit.real(-2.0, x.type)))
    return emit.call(b, f"llvm.copysign.{suffix}", x.type, [b.fdiv(b.fsub(one, u), b.fadd(one, u)), x])


def for_each(b: ir.IRBuilder, n: ir.Value, run: Callable[[ir.Value, Any], None]) -> None:
    """run(index, type) for 16 elements at once, and then for one."""
    single, wide = vector_types()
    done: Any = emit.integer(64, 0)
    for kind, width in ((wide, LANES), (single, 1)):
        with emit.loop(b, b.sub(n, emit.integer(64, width - 1)), start=done, step=width) as each:
            run(b.shl(each.index, emit.integer(64, 2)), kind)
        done = each.index


@primitive("void(i64, i64, f32)")
def exponentials(b: ir.IRBuilder, x: ir.Value, n: ir.Value, shift: ir.Value) -> None:
    """x[i] = e^(x[i] - shift) for n floats."""

    def run(offset: ir.Value, kind: Any) -> None:
        place = b.add(x, offset)
        amount = shift if kind == shift.type else emit.splat(b, shift, LANES)
        emit.store(b, place, 0, emit_exp(b, b.fsub(emit.load(b, place, 0, kind, align=4), amount)), align=4)

    for_each(b, n, run)


@primitive("void(i64, i64, i64, f32)")
def soft_capped(b: ir.IRBuilder, out: ir.Value, x: ir.Value, n: ir.Value, cap: ir.Value) -> None:
    """out[i] = cap · tanh(x[i] / cap) for n floats; out may be x."""

    def run(offset: ir.Value, kind: Any) -> None:
        limit = cap if kind == cap.type else emit.splat(b, cap, LANES)
        value = emit.load(b, b.add(x, offset), 0, kind, align=4)
        emit.store(b, b.add(out, offset), 0, b.fmul(limit, emit_tanh(b, b.fdiv(value, limit))), align=4)

    for_each(b, n, run)


def emit_softplus(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """log(1 + e^x) by a series in (t / (2 + t))² ≤ 1/9 with t = e^-|x|: log(1 + t) = 2 artanh(t / (2 + t))."""

    def real(value: float) -> ir.Value:
        return emit.real(value, x.type)

    positive = b.fcmp_unordered(">", x, real(0.0))
    t = emit_exp(b, b.select(positive, b.fneg(x), x))
    s = b.fdiv(t, b.fadd(t, real(2.0)))
    z, total = b.fmul(s, s), real(1.0 / 17.0)
    for k in range(7, -1, -1):
        total = b.fadd(b.fmul(total, z), real(1.0 / (2 * k + 1)))
    return b.fadd(b.select(positive, x, real(0.0)), b.fmul(b.fmul(s, total), real(2.0)))


@primitive("void(i64, i64, i64, i64, f32, f32)")
def delta_decays(
    b: ir.IRBuilder, out: ir.Value, a: ir.Value, d: ir.Value, n: ir.Value, slope: ir.Value, floor: ir.Value
) -> None:
    """γ of n channels of a head, at `out`: see `ops.DeltaRule`."""
    bounded = b.fcmp_ordered("<", floor, emit.real(0.0, floor.type))

    def run(offset: ir.Value, kind: Any) -> None:
        factor, least = (x if kind == x.type else emit.splat(b, x, kind.count) for x in (slope, floor))
        z = b.fadd(*(emit.load(b, b.add(row, offset), 0, kind, align=4) for row in (a, d)))
        share = b.fadd(emit.real(1.0, kind), emit_exp(b, b.fneg(b.fmul(factor, z))))
        exponent = b.select(bounded, b.fdiv(least, share), b.fmul(factor, emit_softplus(b, z)))
        emit.store(b, b.add(out, offset), 0, emit_exp(b, exponent), align=4)

    for_each(b, n, run)


@primitive("void(i64, i64)")
def sigmoids(b: ir.IRBuilder, x: ir.Value, n: ir.Value) -> None:
    """x[i] = 1 / (1 + e^-x[i]) for n floats."""

    def run(offset: ir.Value, kind: Any) -> None:
        place, one = b.add(x, offset), emit.real(1.0, kind)
        inverse = b.fadd(one, emit_exp(b, b.fneg(emit.load(b, place, 0, kind, align=4))))
        emit.store(b, place, 0, b.fdiv(one, inverse), align=4)

    for_each(b, n, run)


@primitive("void(i64, i64, f32)")
def divide_by(b: ir.IRBuilder, x: ir.Value, n: ir.Value, divisor: ir.Value) -> None:
    """x[i] /= divisor for n floats."""

    def run(offset: ir.Value, kind: Any) -> None:
        place = b.add(x, offset)
        amount = divisor if kind == divisor.type else emit.splat(b, divisor, LANES)
        emit.store(b, place, 0, b.fdiv(emit.load(b, place, 0, kind, align=4), amount), align=4)

    for_each(b, n, run)


@primitive("void(i64, i64, f32)")
def multiply_by(b: ir.IRBuilder, x: ir.Value, n: ir.Value, factor: ir.Value) -> None:
    """x[i] *= factor for n floats."""

    def run(offset: ir.Value, kind: Any) -> None:
        place = b.add(x, offset)
        amount = factor if kind == factor.type else emit.splat(b, factor, LANES)
        emit.store(b, place, 0, b.fmul(emit.load(b, place, 0, kind, align=4), amount), align=4)

    for_each(b, n, run)


@primitive("void(i64, i64, i64)")
def silu(b: ir.IRBuilder, out: ir.Value, x: ir.Value, n: ir.Value) -> None:
    """out[i] = x[i] / (1 + e^-x[i]) for n floats; out may be x."""

    def run(offset: ir.Value, kind: Any) -> None:
        z = emit.load(b, b.add(x, offset), 0, kind, align=4)
        below = b.fadd(emit.real(1.0, z.type), emit_exp(b, b.fneg(z)))
        emit.store(b, b.add(out, offset), 0, b.fdiv(z, below), align=4)

    for_each(b, n, run)


@primitive("void(i64, i64, i64)")
def add_to(b: ir.IRBuilder, out: ir.Value, x: ir.Value, n: ir.Value) -> None:
    """out[i] += x[i] for n floats."""

    def run(offset: ir.Value, kind: Any) -> None:
        before, more = (emit.load(b, b.add(row, offset), 0, kind, align=4) for row in (out, x))
        emit.store(b, b.add(out, offset), 0, b.fadd(before, more), align=4)

    for_each(b, n, run)


def _weighted_sum(
    b: ir.IRBuilder,
    out: ir.Value,
    y: ir.Value | None,
    x: ir.Value,
    stride: ir.Value,
    shares: ir.Value,
    count: ir.Value,
    n: ir.Value,
) -> None:
    """Every element is one chain of additions, row after row, to which that of y comes last."""
    single, wide = vector_types()
    row_bytes = b.shl(stride, emit.integer(64, 2))

    def columns(first: ir.Value, vectors: int, kind: Any) -> None:
        lanes = LANES if kind == wide else 1
        name = "llvm.fmuladd.v16f32" if kind == wide else "llvm.fmuladd.f32"
        offsets = [b.shl(b.add(first, emit.integer(64, lanes * i)), emit.integer(64, 2)) for i in range(vectors)]
        sources = [b.add(x, offset) for offset in offsets]
        with emit.loop(b, count, *[emit.real(0.0, kind)] * vectors) as rows:
            weight = emit.load(b, shares, rows.index, single)
            factor = emit.splat(b, weight, LANES) if kind == wide else weight
            below = b.mul(rows.index, row_bytes)
            values = [emit.load(b, b.add(source, below), 0, kind, align=4) for source in sources]
            pairs = zip(values, rows.values, strict=True)
            rows.carry(*(emit.call(b, name, kind, [factor, value, before]) for value, before in pairs))
        for offset, value in zip(offsets, rows.values, strict=True):
            if y is not None:
                value = b.fadd(emit.load(b, b.add(y, offset), 0, kind, align=4), value)
            emit.store(b, b.add(out, offset), 0, value, align=4)

    done: Any = emit.integer(64, 0)
    for vectors, kind, width in ((4, wide, 4 * LANES), (1, wide, LANES), (1, single, 1)):
        with emit.loop(b, b.sub(n, emit.integer(64, width - 1)), start=done, step=width) as each:
            columns(each.index, vectors, kind)
        done = each.index


@primitive("void(i64, i64, i64, i64, i64, i64)")
def weighted_sum(b: ir.IRBuilder, out: ir.Value, *arguments: ir.Value) -> None:
    """(out, x, stride, shares, count, n): out[0:n] = Σ_t shares[t] · x[t · stride + 0:n] for t < count."""
    _weighted_sum(b, out, None, *arguments)


@primitive("void(i64, i64, i64, i64, i64, i64, i64)")
def add_weighted_sum(b: ir.IRBuilder, *arguments: ir.Value) -> None:
    """(out, y, x, stride, shares, count, n): y + `weighted_sum`; out may be y."""
    _weighted_sum(b, *arguments)
