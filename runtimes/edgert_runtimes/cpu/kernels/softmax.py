"""Softmax by tiles. What attention makes of a tile of positions is a *part*:

    m    the largest score, or LOWEST                   float 0
    l    Σ e^(score - m)                                float 1
    o    Σ e^(score - m) · value                        from float HEADER on, in whole vectors

and parts are merged in the order of the tiles: with M = max(m, m'), l e^(m - M) + l' e^(m' - M), and the same for o.
The result is o / l. It depends on a row's own scores and values only, however tiles are divided among threads.
"""

from __future__ import annotations

from edgert_quant.jit import emit, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import vectors
from edgert_runtimes.cpu.formats.vectors import fetch
from edgert_runtimes.cpu.kernels import vectors as rows
from edgert_runtimes.cpu.kernels.vectors import LANES, emit_exp, vector_types

HEADER = LANES
"""Floats of a part before its output."""

SOURCES = (emit, rows, vectors)
"""The modules that the kernels are emitted by, beside this one."""

FETCHED = 256
"""Bytes that are fetched for every 16 scores, while the memory would idle."""

LOWEST = -3.4028234663852886e38
"""The maximum of nothing: finite, so that scores of minus infinity have the weight 0."""


def _floats(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    """The address of float `index`."""
    return b.add(address, b.shl(index, emit.integer(64, 2)))


def _output(b: ir.IRBuilder, part: ir.Value, vector: ir.Value) -> ir.Value:
    """The address of a vector of output."""
    return _floats(b, part, b.add(b.mul(vector, emit.integer(64, LANES)), emit.integer(64, HEADER)))


@ir_kernel(name="attend.weigh", key=SOURCES)
def weigh(
    b: ir.IRBuilder,
    x: ir.Value,
    n: ir.Value,
    part: ir.Value,
    vectors: ir.Value,
    ahead: ir.Value,
    size: ir.Value,
) -> None:
    """x[i] = e^(x[i] - m) for n scores, and a part with m, l and `vectors` of zeros as output; up to 15 floats behind
    the scores become 0.

    The first `size` bytes at `ahead` are fetched meanwhile, 16 for a score at most.

    NaNs are passed over in m, and so get into l. l is 16 partial sums, folded by halves.
    """
    single, wide = vector_types()
    emit.store(b, _floats(b, x, n), 0, emit.real(float("-inf"), wide), align=4)
    with emit.loop(b, n, emit.real(LOWEST, wide), step=LANES) as body:
        row = emit.load(b, _floats(b, x, body.index), 0, wide, align=4)
        body.carry(emit.call(b, "llvm.maxnum.v16f32", wide, [body.values[0], row]))
    highest = emit.call(b, "llvm.vector.reduce.fmax.v16f32", single, [body.values[0]])
    shift = emit.splat(b, highest, LANES)
    with emit.loop(b, n, emit.real(0.0, wide), step=LANES) as body:
        offset = b.mul(body.index, emit.integer(64, FETCHED // LANES))
        with b.if_then(b.icmp_signed("<", offset, size)):
            fetch(b, b.inttoptr(b.add(ahead, offset), ir.PointerType()), FETCHED)
        place = _floats(b, x, body.index)
        weights = emit_exp(b, b.fsub(emit.load(b, place, 0, wide, align=4), shift))
        emit.store(b, place, 0, weights, align=4)
        body.carry(b.fadd(body.values[0], weights))
    emit.store(b, part, 0, highest)
    emit.store(b, part, 1, _fold(b, body.values[0]))
    with emit.loop(b, vectors) as each:
        emit.store(b, _output(b, part, each.index), 0, emit.real(0.0, wide), align=4)


@ir_kernel(name="attend.merge_part", key=SOURCES)
def merge_part(b: ir.IRBuilder, total: ir.Value, part: ir.Value, vectors: ir.Value) -> None:
    """Merge a part into the total of those before it; `vectors` of output."""
    single, wide = vector_types()
    parts = (total, part)
    maxima = [emit.load(b, each, 0, single) for each in parts]
    highest = emit.call(b, "llvm.maxnum.f32", single, maxima)
    factors = [emit_exp(b, b.fsub(maximum, highest)) for maximum in maxima]
    sums = [b.fmul(emit.load(b, each, 1, single), factor) for each, factor in zip(parts, factors, strict=True)]
    emit.store(b, total, 0, highest)
    emit.store(b, total, 1, b.fadd(*sums))
    spread = [emit.splat(b, factor, LANES) for factor in factors]
    with emit.loop(b, vectors) as each:
        outputs = [emit.load(b, _output(b, address, each.index), 0, wide, align=4) for address in parts]
        scaled = b.fmul(outputs[0], spread[0])
        merged = emit.call(b, "llvm.fmuladd.v16f32", wide, [outputs[1], spread[1], scaled])
        emit.store(b, _output(b, total, each.index), 0, merged, align=4)


@ir_kernel(name="attend.finish_part", key=SOURCES)
def finish_part(b: ir.IRBuilder, total: ir.Value, out: ir.Value, n: ir.Value) -> None:
    """out = o / l, n floats."""
    single, wide = vector_types()
    factor = b.fdiv(emit.real(1.0), emit.load(b, total, 1, single))
    start = _floats(b, total, emit.integer(64, HEADER))
    done: ir.Value = emit.integer(64, 0)
    for kind, width in ((wide, LANES), (single, 1)):
        scale = emit.splat(b, factor, LANES) if kind == wide else factor
        with emit.loop(b, b.sub(n, emit.integer(64, width - 1)), start=done, step=width) as each:
            value = emit.load(b, _floats(b, start, each.index), 0, kind, align=4)
            emit.store(b, _floats(b, out, each.index), 0, b.fmul(value, scale), align=4)
        done = each.index


def _fold(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The sum of 16 lanes, by halves."""
    width = LANES
    while width > 1:
        width //= 2
        none = ir.Constant(value.type, ir.Undefined)
        masks = [
            ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width))) for start in (0, width)
        ]
        value = b.fadd(*(b.shuffle_vector(value, none, mask) for mask in masks))
    return b.extract_element(value, emit.integer(32, 0))
