"""The selective scan of one head, for rows one after another: see `ops.Scan`.

Rows of its matrix S do not depend on each other, so a few that stay in the first cache go through all rows of the
batch, in one pass each: S shrinks, takes what enters, and is multiplied by c. Sums over the numbers of a row of S are
16 partial sums, folded by halves, then the rest one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgert_quant.jit import emit, primitive
from llvmlite import ir

from edgert_runtimes.cpu.kernels.vectors import LANES, fold, vector_types

TOGETHER = 4
"""Rows of S that share what is loaded of a row of the batch."""


@primitive("void(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, f32)")
def scan_rows(
    b: ir.IRBuilder,
    before: ir.Value,
    after: ir.Value,
    size: ir.Value,
    numbers: ir.Value,
    shrinks: ir.Value,
    spans: ir.Value,
    x: ir.Value,
    x_bytes: ir.Value,
    entering: ir.Value,
    entering_bytes: ir.Value,
    leaving: ir.Value,
    leaving_bytes: ir.Value,
    out: ir.Value,
    out_bytes: ir.Value,
    count: ir.Value,
    skip: ir.Value,
) -> None:
    """S [size, numbers] at `before` → at `after`, which may be the same, with `count` rows, at least 1, so many bytes
    apart: what S shrinks by (`numbers` floats at `shrinks`), Δ at `spans`, x and out (`size` floats), b at `entering`
    and c at `leaving` (`numbers`).
    """
    single, wide = vector_types()
    two = emit.integer(64, 2)
    pitch = b.shl(numbers, two)
    whole = b.and_(numbers, emit.integer(64, -LANES))

    def at(base: ir.Value, stride: ir.Value, index: ir.Value) -> ir.Value:
        return b.add(base, b.mul(stride, index))

    def some(first: ir.Value, together: int) -> None:
        starts = [b.mul(b.add(first, emit.integer(64, i)), pitch) for i in range(together)]
        with emit.loop(b, count, before) as along:
            source, row = along.values[0], along.index
            shrink, b_row, c_row = (
                at(shrinks, pitch, row),
                at(entering, entering_bytes, row),
                at(leaving, leaving_bytes, row),
            )
            span = emit.load(b, spans, row, single)
            x_row, out_row = (b.add(at(*each, row), b.shl(first, two)) for each in ((x, x_bytes), (out, out_bytes)))
            inputs = [emit.load(b, x_row, i, single) for i in range(together)]
            shares = [b.fmul(span, value) for value in inputs]

            def stretch(sums: Sequence[ir.Value], begin: ir.Value, end: ir.Value, kind: ir.Type) -> list[ir.Value]:
                lanes = LANES if kind == wide else 1
                name = "llvm.fmuladd.v16f32" if kind == wide else "llvm.fmuladd.f32"
                alike = [emit.splat(b, share, LANES) for share in shares] if kind == wide else shares
                with emit.loop(b, end, *sums, start=begin, step=lanes) as each:
                    offset, found = b.shl(each.index, two), []
                    keep, enter, leave = (
                        emit.load(b, b.add(p, offset), 0, kind, align=4) for p in (shrink, b_row, c_row)
                    )
                    for start, share, total in zip(starts, alike, each.values, strict=True):
                        place = b.add(start, offset)
                        old = emit.load(b, b.add(source, place), 0, kind, align=4)
                        new = emit.call(b, name, kind, [share, enter, b.fmul(keep, old)])
                        emit.store(b, b.add(after, place), 0, new, align=4)
                        found.append(emit.call(b, name, kind, [new, leave, total]))
                    each.carry(*found)
                return list(each.values)

            totals = stretch([emit.real(0.0, wide)] * together, emit.integer(64, 0), whole, wide)
            totals = stretch([fold(b, total, b.fadd) for total in totals], whole, numbers, single)
            for i, (value, total) in enumerate(zip(inputs, totals, strict=True)):
                emit.store(b, out_row, i, emit.call(b, "llvm.fmuladd.f32", single, [skip, value, total]))
            along.carry(after)

    done: ir.Value = emit.integer(64, 0)
    for together in (TOGETHER, 1):
        with emit.loop(b, b.sub(size, emit.integer(64, together - 1)), start=done, step=together) as each:
            some(each.index, together)
        done = each.index
