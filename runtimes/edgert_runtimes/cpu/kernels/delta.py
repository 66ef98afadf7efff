"""The gated delta rule on some columns of a head's matrix S, for rows one after another: see `ops.DeltaRule`.

Columns do not depend on each other, so a few that stay in the first cache go through all rows. With s = S before a row
and γ a number g,

    change = β (v - g kᵀ s);  out = g qᵀ s + (qᵀ k) change;  S = g s + k changeᵀ

and while S is written, the two products of the next row are added up: one pass over S a row. Forms that take many rows
at once (WY) need as many multiplications as this one, or more, and their results depend on where a text is cut. Where γ
has a number for each row of S, queries and keys of these products are multiplied by them beforehand.
"""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import emit, primitive
from llvmlite import ir

from edgert_runtimes.cpu.kernels.vectors import LANES, vector_types

NUMBERS = 4
"""Floats of a row beside its query and key: β, g, qᵀ k, and one that is not used."""


@primitive("void(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64)")
def delta_rows(b: ir.IRBuilder, *arguments: ir.Value) -> None:
    """S [size, width] at `before` → at `after`, which may be the same, with `count` rows, at least 1: a query and a key
    at `rows` (2 size floats), `numbers`, v at `values` and out, so many bytes apart.
    """
    _emit_rows(b, False, *arguments)


@primitive("void(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64)")
def delta_rows_by_channel(b: ir.IRBuilder, *arguments: ir.Value) -> None:
    """The same with a number for each row of S: at `rows` are γ q, γ k, k and γ (4 size floats)."""
    _emit_rows(b, True, *arguments)


def _emit_rows(
    b: ir.IRBuilder,
    by_channel: bool,
    before: ir.Value,
    after: ir.Value,
    size: ir.Value,
    width: ir.Value,
    rows: ir.Value,
    numbers: ir.Value,
    values: ir.Value,
    value_bytes: ir.Value,
    out: ir.Value,
    out_bytes: ir.Value,
    count: ir.Value,
) -> None:
    single, wide = vector_types()
    none, one, two = (emit.integer(64, value) for value in range(3))
    row_bytes, pair_bytes = b.shl(width, two), b.shl(size, emit.integer(64, 4 if by_channel else 3))
    keys = b.shl(size, one) if by_channel else size

    def columns(first: ir.Value, vectors: int, kind: Any) -> None:
        lanes = LANES if kind == wide else 1
        name = "llvm.fmuladd.v16f32" if kind == wide else "llvm.fmuladd.f32"
        offsets = [b.shl(b.add(first, emit.integer(64, lanes * i)), two) for i in range(vectors)]
        zeros = [emit.real(0.0, kind)] * (2 * vectors)

        def spread(value: ir.Value) -> ir.Value:
            return emit.splat(b, value, LANES) if kind == wide else value

        def fused(x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
            return emit.call(b, name, kind, [x, y, z])

        def load(base: ir.Value, offset: ir.Value) -> ir.Value:
            return emit.load(b, b.add(base, offset), 0, kind, align=4)

        def added(sums: Any, pair: ir.Value, index: ir.Value, row: Any) -> list[ir.Value]:
            """Products of a query, then of a key, and one row of S."""
            factors = [spread(emit.load(b, pair, b.add(index, start), single)) for start in (none, size)]
            products = [(factor, value) for factor in factors for value in row]
            return [fused(*each, total) for each, total in zip(products, sums, strict=True)]

        with emit.loop(b, size, *zeros) as each:
            place = b.add(before, b.mul(each.index, row_bytes))
            each.carry(*added(each.values, rows, each.index, [load(place, offset) for offset in offsets]))
        with emit.loop(b, count, *each.values, before) as along:
            *sums, source = along.values
            own = b.add(numbers, b.mul(along.index, emit.integer(64, 4 * NUMBERS)))
            rate, decay, both = (spread(emit.load(b, own, i, single)) for i in range(3))
            value, target = (
                b.add(base, b.mul(along.index, n)) for base, n in ((values, value_bytes), (out, out_bytes))
            )
            changes = []
            for offset, query, key in zip(offsets, sums[:vectors], sums[vectors:], strict=True):
                if not by_channel:
                    query, key = b.fmul(decay, query), b.fmul(decay, key)
                change = b.fmul(rate, b.fsub(load(value, offset), key))
                emit.store(b, b.add(target, offset), 0, fused(both, change, query), align=4)
                changes.append(change)
            pair = b.add(rows, b.mul(along.index, pair_bytes))
            following = b.select(b.icmp_signed("<", b.add(along.index, one), count), pair_bytes, none)
            with emit.loop(b, size, *zeros) as each:
                below = b.mul(each.index, row_bytes)
                place = b.add(each.index, keys)
                factor, shrink = spread(emit.load(b, pair, place, single)), decay
                if by_channel:
                    shrink = spread(emit.load(b, pair, b.add(place, size), single))
                row = []
                for offset, change in zip(offsets, changes, strict=True):
                    row.append(fused(factor, change, b.fmul(shrink, load(b.add(source, below), offset))))
                    emit.store(b, b.add(b.add(after, below), offset), 0, row[-1], align=4)
                each.carry(*added(each.values, b.add(pair, following), each.index, row))
            along.carry(*each.values, after)

    done: Any = none
    for vectors, kind, columns_at_once in ((2, wide, 2 * LANES), (1, wide, LANES), (1, single, 1)):
        with emit.loop(
            b, b.sub(width, emit.integer(64, columns_at_once - 1)), start=done, step=columns_at_once
        ) as each:
            columns(each.index, vectors, kind)
        done = each.index
