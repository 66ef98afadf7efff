"""Primitives over rows of floats that the attention kernels need, each with an order of operations of its own only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgert_quant.jit import emit, primitive

if TYPE_CHECKING:
    from llvmlite import ir

LANES = 16


def _types() -> Any:
    from llvmlite import ir

    return ir.FloatType(), ir.VectorType(ir.FloatType(), LANES)


def _fold(b: ir.IRBuilder, value: ir.Value, combine: Any) -> ir.Value:
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
    single, wide = _types()
    whole = b.and_(n, emit.integer(64, -LANES))
    with emit.loop(b, whole, emit.real(float("-inf"), wide), step=LANES) as body:
        row = emit.load(b, b.add(x, b.shl(body.index, emit.integer(64, 2))), 0, wide, align=4)
        body.carry(emit.call(b, "llvm.maxnum.v16f32", wide, [body.values[0], row]))
    first = _fold(b, body.values[0], lambda x, y: emit.call(b, f"llvm.maxnum.v{x.type.count}f32", x.type, [x, y]))
    with emit.loop(b, n, first, start=whole) as rest:
        rest.carry(emit.call(b, "llvm.maxnum.f32", single, [rest.values[0], emit.load(b, x, rest.index, single)]))
    return rest.values[0]


@primitive("f32(i64, i64)")
def total(b: ir.IRBuilder, x: ir.Value, n: ir.Value) -> ir.Value:
    """The sum of n floats: 16 partial sums, folded by halves, then the rest one by one."""
    single, wide = _types()
    whole = b.and_(n, emit.integer(64, -LANES))
    with emit.loop(b, whole, emit.real(0.0, wide), step=LANES) as body:
        row = emit.load(b, b.add(x, b.shl(body.index, emit.integer(64, 2))), 0, wide, align=4)
        body.carry(b.fadd(body.values[0], row))
    first = _fold(b, body.values[0], b.fadd)
    with emit.loop(b, n, first, start=whole) as rest:
        rest.carry(b.fadd(rest.values[0], emit.load(b, x, rest.index, single)))
    return rest.values[0]


def _lanes(b: ir.IRBuilder, address: ir.Value, *, half: bool, count: int = LANES) -> ir.Value:
    from llvmlite import ir

    if half:
        kind = ir.VectorType(ir.IntType(16), count) if count > 1 else ir.IntType(16)
        return emit.half_to_float(b, emit.load(b, address, 0, kind, align=2))
    kind = ir.VectorType(ir.FloatType(), count) if count > 1 else ir.FloatType()
    return emit.load(b, address, 0, kind, align=4)


def _scores(
    b: ir.IRBuilder,
    q: ir.Value,
    keys: ir.Value,
    stride: ir.Value,
    n: ir.Value,
    scale: ir.Value,
    out: ir.Value,
    *,
    half: bool,
) -> None:
    """Four partial sums, by i mod 4."""
    single, wide = _types()
    size = 2 if half else 4
    whole = b.and_(n, emit.integer(64, -4))
    step = b.mul(stride, emit.integer(64, size))

    def product(index: ir.Value, before: ir.Value) -> ir.Value:
        row = _lanes(b, b.add(keys, b.mul(index, step)), half=half)
        factor = emit.splat(b, emit.load(b, q, index, single), LANES)
        return emit.call(b, "llvm.fmuladd.v16f32", wide, [factor, row, before])

    zero = emit.real(0.0, wide)
    with emit.loop(b, whole, zero, zero, zero, zero, step=4) as body:
        body.carry(*(product(b.add(body.index, emit.integer(64, i)), body.values[i]) for i in range(4)))
    sums = b.fadd(b.fadd(body.values[0], body.values[1]), b.fadd(body.values[2], body.values[3]))
    with emit.loop(b, n, sums, start=whole) as rest:
        rest.carry(product(rest.index, rest.values[0]))
    emit.store(b, out, 0, b.fmul(rest.values[0], emit.splat(b, scale, LANES)), align=4)


@primitive("void(i64, i64, i64, i64, f32, i64)")
def scores_f32(b: ir.IRBuilder, *arguments: ir.Value) -> None:
    """out[0:16] = scale · Σ_i q[i] · keys[i · stride + 0:16] for i < n: (q, keys, stride, n, scale, out)."""
    _scores(b, *arguments, half=False)


@primitive("void(i64, i64, i64, i64, f32, i64)")
def scores_f16(b: ir.IRBuilder, *arguments: ir.Value) -> None:
    """`scores_f32` with keys in halves."""
    _scores(b, *arguments, half=True)


def _add_values(
    b: ir.IRBuilder, out: ir.Value, p: ir.Value, values: ir.Value, count: ir.Value, n: ir.Value, *, half: bool
) -> None:
    """Every element is one chain of additions, position after position."""
    single, wide = _types()
    size = 2 if half else 4
    row_bytes = b.mul(n, emit.integer(64, size))
    done: Any = emit.integer(64, 0)
    for vectors, lanes in ((4, LANES), (1, LANES), (1, 1)):
        kind = wide if lanes > 1 else single
        width = vectors * lanes
        last = b.sub(n, emit.integer(64, width - 1))
        with emit.loop(b, last, start=done, step=width) as columns:
            places = [b.add(columns.index, emit.integer(64, lanes * i)) for i in range(vectors)]
            targets = [b.add(out, b.shl(place, emit.integer(64, 2))) for place in places]
            sources = [b.add(values, b.mul(place, emit.integer(64, size))) for place in places]
            before = [emit.load(b, target, 0, kind, align=4) for target in targets]
            with emit.loop(b, count, *before) as positions:
                factor = emit.load(b, p, positions.index, single)
                factor = emit.splat(b, factor, lanes) if lanes > 1 else factor
                offset = b.mul(positions.index, row_bytes)
                name = "llvm.fmuladd.v16f32" if lanes > 1 else "llvm.fmuladd.f32"
                rows = [_lanes(b, b.add(source, offset), half=half, count=lanes) for source in sources]
                after = [
                    emit.call(b, name, kind, [factor, row, value])
                    for row, value in zip(rows, positions.values, strict=True)
                ]
                positions.carry(*after)
            for target, value in zip(targets, positions.values, strict=True):
                emit.store(b, target, 0, value, align=4)
        done = columns.index


@primitive("void(i64, i64, i64, i64, i64)")
def add_values_f32(b: ir.IRBuilder, *arguments: ir.Value) -> None:
    """out[0:n] += Σ_t p[t] · values[t · n + 0:n] for t < count: (out, p, values, count, n)."""
    _add_values(b, *arguments, half=False)


@primitive("void(i64, i64, i64, i64, i64)")
def add_values_f16(b: ir.IRBuilder, *arguments: ir.Value) -> None:
    """`add_values_f32` with values in halves."""
    _add_values(b, *arguments, half=True)
