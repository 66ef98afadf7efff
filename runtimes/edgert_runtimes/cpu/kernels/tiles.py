"""The two matrix products of attention, over one tile of positions: queries by keys, and weights by values.

*Tokens* are pairs of a row and a query head that see the same keys. A tile of tokens and vectors stays in registers
while keys or values stream by, so what is read once serves all its tokens. A score is one chain of additions, element
after element; an output is one chain, position after position: neither depends on how tokens are put together.

Both kernels work in a thread's scratch memory, which `attend` fills:

    words       VALUE_ENTRIES: the address of the first entry of values; for keys in rows LOW and HIGH: which positions
                of the tile are seen
    entries     (address, position within the tile of what lies there) of every panel of keys, then of every block of
                values, then of what will be read next: only to fetch it ahead
    scores      float32 [tokens][SCORE_STRIDE], from SCORES on; the tile's first position is element MARGIN
    parts       float32 [tokens][part], from the record's PARTS on; a part is PART_HEADER floats and the output
    queries     float32 [key size][tokens], from the record's QUERIES on; for keys in rows [tokens][row size]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgert_quant.jit import Kernel, emit, host, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import base
from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    I64,
    LINE,
    POINTER,
    Value,
    fetch,
    fused,
    i64,
    load,
    pointer,
    splat,
    step,
    store,
)
from edgert_runtimes.cpu.kernels import caches, table
from edgert_runtimes.cpu.kernels.caches import GROUP, LAYOUTS, CacheLayout
from edgert_runtimes.cpu.kernels.table import OPERANDS

VALUE_SIZE = OPERANDS + 10
BLOCK_SIZE = OPERANDS + 11
PART = OPERANDS + 12  # floats of a part
PARTS = OPERANDS + 13  # bytes from the start of the scratch memory
QUERIES = OPERANDS + 14
KEY_SIZE = OPERANDS + 32
ROW_SIZE = OPERANDS + 33  # elements of a row of values, which may be keys as well

TILE = 256
"""Positions that go through the products together. Softmax is computed tile by tile, from multiples of this on."""

TOKENS = 48
"""Most tokens that share a tile."""

AHEAD = 4
"""Entries behind those of a tile: as many as panels go together."""

BLOCKS_AHEAD = 2
"""Blocks between the values that are read and those that are fetched."""

MARGIN = LANES
"""Scores before the first and behind the last of a tile: panels reach over the ends."""

SCORE_STRIDE = TILE + 2 * MARGIN
PART_HEADER = LANES
"""Floats before the output of a part: maximum, sum, and nothing."""

VALUE_ENTRIES, LOW, HIGH = 0, 1, 2
ENTRY = 16
"""Bytes of an entry."""
ENTRIES = 64
MAX_ENTRIES = 2 * (TILE + 1 + AHEAD)
"""Panels and blocks of a single position each."""
SCORES = -(-(ENTRIES + ENTRY * MAX_ENTRIES) // LINE) * LINE
SCRATCH = SCORES + 4 * TOKENS * SCORE_STRIDE
"""Bytes from the start to the parts."""

STRIP = 32
"""Positions whose values stay in the cache while all their columns are added."""

UNROLL = 4
SOURCES = (base, *caches.SOURCES, table)
"""The modules that the kernels are emitted by, beside this one."""

Shapes = Sequence[tuple[int, Sequence[int]]]
"""(tokens, vectors) of the tiles: as many tokens at once as possible, and for each, as many vectors."""


def _score_shapes(layout: CacheLayout) -> Shapes:
    """Sized for 32 registers of 512 bits, 16 of 256, or 32 of 128; few tokens need several panels to hide the latency
    of the addition. Scales take registers too.
    """
    if host().vector_bits >= 512:
        return [(12, (2, 1)), (8, (2, 1)), (4, (2, 1)), (2, (4, 1)), (1, (4, 1))]
    if host().vector_bits == 256:
        return [(6, (1,)), (4, (1,)), (2, (2, 1)), (1, (2 if layout.span == GROUP else 4, 1))]
    return [(4, (1,)), (1, (1,))]


def _value_shapes() -> Shapes:
    """As `_score_shapes`. A single token takes more of a row than fits
    into 16 registers: memory that is read from end to end is worth more.
    """
    if host().vector_bits >= 512:
        return [(12, (2, 1)), (8, (2, 1)), (4, (4, 2, 1)), (2, (8, 4, 2, 1)), (1, (8, 4, 2, 1))]
    return [(6, (1,)), (4, (1,)), (2, (2, 1)), (1, (8, 4, 2, 1))]


def cover(
    b: ir.IRBuilder, tokens: Value, columns: Value, shapes: Shapes, tile: Callable[[Value, int, Value, int], None]
) -> None:
    """tile(first token, tokens, first column, columns) over everything: columns by some tokens, then by others."""
    token = i64(0)
    for height, widths in shapes:
        with emit.loop(b, b.sub(tokens, i64(height - 1)), start=token, step=height) as along:
            column = i64(0)
            for width in widths:
                with emit.loop(b, b.sub(columns, i64(width - 1)), start=column, step=width) as down:
                    tile(along.index, height, down.index, width)
                column = down.index
        token = along.index


def function_of(b: ir.IRBuilder, name: str, arguments: int, body: Callable[..., None]) -> ir.Function:
    """A function of two pointers and some integers, made once in a module."""
    known = b.module.globals.get(name)
    if known is not None:
        return known
    kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, POINTER, *[I64] * (arguments - 3)])
    function = ir.Function(b.module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    inner = ir.IRBuilder(function.append_basic_block("entry"))
    body(inner, *function.args)
    inner.ret_void()
    return function


def entry(b: ir.IRBuilder, entries: Value, index: Value | int) -> Value:
    """The entry of that number."""
    return step(b, entries, b.mul(i64(index), i64(ENTRY)))


def _scores_kernel(name: str, layout: CacheLayout) -> Kernel:
    def tile(height: int, width: int) -> Callable[..., None]:
        def body(b: ir.IRBuilder, entries: Value, queries: Value, out: Value, pitch: Value, size: Value) -> None:
            panels, ahead = (
                [pointer(b, load(b, entry(b, entries, i + far), 0, I64, align=8)) for i in range(width)]
                for far in (0, width)
            )

            def add(sums: Sequence[Value], offset: Value, first: Value, i: int, scales: Sequence[Value]) -> list[Value]:
                """Add element `first` + i, which is element i behind the place at `offset` of every panel."""
                keys = [layout.key(b, step(b, p, offset), i, s) for p, s in zip(panels, scales, strict=True)]
                place = step(b, queries, b.mul(b.add(first, i64(i)), pitch))
                found = []
                for t in range(height):
                    query = splat(b, load(b, place, 4 * t, F32, align=4))
                    found += [fused(b, key, query, sums[t * width + n]) for n, key in enumerate(keys)]
                return found

            def several(sums: Sequence[Value], start: Value, span: Value, first: Value, scales: list[Value]) -> Value:
                offset = b.add(start, layout.key_offset(b, first))
                for place in ahead:
                    fetch(b, step(b, place, offset), layout.key_bytes * UNROLL // layout.span)
                for i in range(UNROLL):
                    sums = add(sums, offset, b.add(b.mul(span, i64(layout.span)), first), i, scales)
                return sums

            zero = emit.real(0.0, FLOATS)
            spans = b.sdiv(size, i64(layout.span))
            with emit.loop(b, spans, *[zero] * (height * width)) as each:
                start = b.mul(each.index, i64(layout.key_bytes))
                scales = [layout.key_scale(b, step(b, panel, start)) for panel in panels]
                if layout.span == UNROLL:
                    each.carry(*several(each.values, start, each.index, i64(0), scales))
                else:
                    with emit.loop(b, i64(layout.span), *each.values, step=UNROLL) as inner:
                        inner.carry(*several(inner.values, start, each.index, inner.index, scales))
                    each.carry(*inner.values)
            sums = each.values
            if layout.span == UNROLL:  # heads are whole groups otherwise
                with emit.loop(b, size, *sums, start=b.mul(spans, i64(layout.span))) as rest:
                    offset = layout.key_offset(b, rest.index)
                    rest.carry(*add(rest.values, offset, rest.index, 0, [None] * width))
                sums = rest.values
            for n in range(width):  # one panel after another: the next one is right where this one reaches too far
                position = load(b, entry(b, entries, n), 8, I64, align=8)
                place = step(b, out, b.shl(position, i64(2)))
                for t in range(height):
                    store(b, place, 4 * SCORE_STRIDE * t, sums[t * width + n], align=4)

        return body

    @ir_kernel(name=name, key=(*SOURCES, name))
    def scores(b: ir.IRBuilder, record: Value, scratch: Value, panels: Value, tokens: Value) -> None:
        fields, memory = pointer(b, record), pointer(b, scratch)
        size = load(b, fields, 8 * KEY_SIZE, I64, align=8)
        queries = step(b, memory, load(b, fields, 8 * QUERIES, I64, align=8))
        pitch = b.shl(tokens, i64(2))

        def run(token: Value, height: int, panel: Value, width: int) -> None:
            function = function_of(b, f"tile_{height}x{width}", 5, tile(height, width))
            entries = entry(b, step(b, memory, ENTRIES), panel)
            out = b.mul(token, i64(4 * SCORE_STRIDE))
            out = step(b, step(b, memory, SCORES + 4 * MARGIN), out)
            b.call(function, [entries, step(b, queries, b.shl(token, i64(2))), out, pitch, size])

        cover(b, tokens, panels, _score_shapes(layout), run)

    return scores


def _values_kernel(name: str, layout: CacheLayout) -> Kernel:
    def tile(height: int, width: int) -> Callable[..., None]:
        def body(
            b: ir.IRBuilder,
            entries: Value,
            weights: Value,
            out: Value,
            begin: Value,
            end: Value,
            count: Value,
            column: Value,
            size: Value,
            block_size: Value,
            part: Value,
        ) -> None:
            outs = [step(b, out, b.mul(part, i64(t)) if t else 0) for t in range(height)]
            sums = [load(b, place, 4 * LANES * i, FLOATS, align=4) for place in outs for i in range(width)]
            row_bytes, column_bytes = layout.row_bytes(b, size), layout.row_bytes(b, column)
            origin = load(b, entries, 8, I64, align=8)
            with emit.loop(b, count, *sums) as blocks:
                place = entry(b, entries, blocks.index)
                block = pointer(b, load(b, place, 0, I64, align=8))
                ahead = pointer(b, load(b, place, ENTRY * BLOCKS_AHEAD, I64, align=8))
                position = b.add(origin, b.mul(blocks.index, block_size))
                low, high = b.sub(begin, position), b.sub(end, position)
                low = b.select(b.icmp_signed(">", low, i64(0)), low, i64(0))
                high = b.select(b.icmp_signed("<", high, block_size), high, block_size)
                with emit.loop(b, high, *blocks.values, start=low) as rows:
                    offset = b.mul(rows.index, row_bytes)
                    # All tiles of columns together fetch a block from end to end.
                    size_ahead = layout.type.row_bytes(GROUP) * width // 2
                    offset_ahead = b.add(b.mul(column_bytes, block_size), b.mul(rows.index, i64(size_ahead)))
                    fetch(b, step(b, ahead, offset_ahead), size_ahead)
                    values = layout.values(b, step(b, block, offset), size, column, width)
                    place = step(b, weights, b.shl(b.add(position, rows.index), i64(2)))
                    found = []
                    for t in range(height):
                        weight = splat(b, load(b, place, 4 * SCORE_STRIDE * t, F32, align=4))
                        found += [fused(b, v, weight, rows.values[t * width + i]) for i, v in enumerate(values)]
                    rows.carry(*found)
                blocks.carry(*rows.values)
            for t, place in enumerate(outs):
                for i in range(width):
                    store(b, place, 4 * LANES * i, blocks.values[t * width + i], align=4)

        return body

    @ir_kernel(name=name, key=(*SOURCES, name))
    def values(
        b: ir.IRBuilder, record: Value, scratch: Value, first: Value, tokens: Value, begin: Value, end: Value
    ) -> None:
        fields, memory = pointer(b, record), pointer(b, scratch)
        size, block_size, part = (load(b, fields, 8 * f, I64, align=8) for f in (ROW_SIZE, BLOCK_SIZE, PART))
        part = b.shl(part, i64(2))
        entries = pointer(b, load(b, memory, 8 * VALUE_ENTRIES, I64, align=8))
        weights = step(b, step(b, memory, SCORES + 4 * MARGIN), b.mul(first, i64(4 * SCORE_STRIDE)))
        parts = step(b, memory, load(b, fields, 8 * PARTS, I64, align=8))
        outs = step(b, step(b, parts, 4 * PART_HEADER), b.mul(first, part))
        value_size = load(b, fields, 8 * VALUE_SIZE, I64, align=8)
        columns = b.sdiv(b.add(value_size, i64(LANES - 1)), i64(LANES))
        with emit.loop(b, end, start=begin, step=STRIP) as strips:
            stop = b.add(strips.index, i64(STRIP))
            stop = b.select(b.icmp_signed("<", stop, end), stop, end)
            origin = load(b, entries, 8, I64, align=8)
            block = b.sdiv(b.sub(strips.index, origin), block_size)
            place = entry(b, entries, block)
            passed = b.add(origin, b.mul(block, block_size))
            count = b.sdiv(b.add(b.sub(stop, passed), b.sub(block_size, i64(1))), block_size)

            def run(token: Value, height: int, column: Value, width: int) -> None:
                function = function_of(b, f"tile_{height}x{width}", 10, tile(height, width))
                weight = step(b, weights, b.mul(token, i64(4 * SCORE_STRIDE)))
                out = step(b, outs, b.add(b.mul(token, part), b.mul(column, i64(4 * LANES))))
                element = b.mul(column, i64(LANES))
                numbers = [strips.index, stop, count, element, size, block_size, part]
                b.call(function, [place, weight, out, *numbers])

            cover(b, tokens, columns, _value_shapes(), run)

    return values


SCORE_KERNELS = {name: _scores_kernel(f"attend.scores.{name}", layout) for name, layout in LAYOUTS.items()}
"""(record, scratch, panels, tokens): the tokens' queries by the first panels' keys, into the scores."""

VALUE_KERNELS = {name: _values_kernel(f"attend.values.{name}", layout) for name, layout in LAYOUTS.items()}
"""(record, scratch, first, tokens, begin, end): add the values of positions begin … end of the tile, weighted by the
scores, to the parts of some tokens."""
