"""The product of queries by keys that lie in rows, as where values are the beginning of their keys: see `tiles`.

A score is sixteen chains of additions, of every sixteenth element each, that are added up by halves at the end: it does
not depend on how tokens and positions are put together. Rows are whole vectors, and so are queries [tokens][row]: what
is behind the end of a key is zero in both (the cache's memory begins as zeros, and nothing writes there).
"""

from __future__ import annotations

from collections.abc import Callable

from edgert_quant.jit import Kernel, emit, host, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import FLOATS, I64, Value, fused, i64, load, pointer, shuffle, step, store
from edgert_runtimes.cpu.kernels import tiles
from edgert_runtimes.cpu.kernels.caches import GROUP, LAYOUTS, CacheLayout
from edgert_runtimes.cpu.kernels.tiles import (
    BLOCK_SIZE,
    ENTRIES,
    HIGH,
    LOW,
    MARGIN,
    QUERIES,
    ROW_SIZE,
    SCORE_STRIDE,
    SCORES,
    Shapes,
    cover,
    entry,
    function_of,
)


def _shapes() -> Shapes:
    """(queries, keys) of the tiles, whose sums stay in registers."""
    if host().vector_bits >= 512:
        return [(4, (4, 1)), (2, (4, 1)), (1, (4, 1))]
    return [(2, (2, 1)), (1, (2, 1))]


def _scores_kernel(name: str, layout: CacheLayout) -> Kernel:
    def tile(height: int, width: int) -> Callable[..., None]:
        def body(b: ir.IRBuilder, keys: Value, queries: Value, out: Value, size: Value) -> None:
            row_bytes, pitch = layout.row_bytes(b, size), b.shl(size, i64(2))
            rows = [step(b, keys, b.mul(row_bytes, i64(n))) for n in range(width)]
            tokens = [step(b, queries, b.mul(pitch, i64(t))) for t in range(height)]
            sums: list[Value] = [emit.real(0.0, FLOATS)] * (height * width)
            done = i64(0)
            for count in (2,) if layout.span == GROUP else (2, 1):  # heads are whole groups, or whole vectors
                with emit.loop(b, b.sub(size, i64(count * LANES - 1)), *sums, start=done, step=count * LANES) as each:
                    found = list(each.values)
                    vectors = [layout.values(b, row, size, each.index, count) for row in rows]
                    for i in range(count):
                        for t, token in enumerate(tokens):
                            place = step(b, token, b.shl(each.index, i64(2)))
                            query = load(b, place, 4 * LANES * i, FLOATS, align=4)
                            for n, vector in enumerate(vectors):
                                found[t * width + n] = fused(b, vector[i], query, found[t * width + n])
                    each.carry(*found)
                sums, done = list(each.values), each.index
            for t in range(height):
                for n in range(width):
                    store(b, out, 4 * (SCORE_STRIDE * t + n), _sum(b, sums[t * width + n]), align=4)

        return body

    @ir_kernel(name=name, key=(*tiles.SOURCES, tiles, name))
    def scores(b: ir.IRBuilder, record: Value, scratch: Value, blocks: Value, tokens: Value) -> None:
        fields, memory = pointer(b, record), pointer(b, scratch)
        size, block_size = (load(b, fields, 8 * f, I64, align=8) for f in (ROW_SIZE, BLOCK_SIZE))
        low, high = (load(b, memory, 8 * word, I64, align=8) for word in (LOW, HIGH))
        queries = step(b, memory, load(b, fields, 8 * QUERIES, I64, align=8))
        with emit.loop(b, blocks) as each:
            place = entry(b, step(b, memory, ENTRIES), each.index)
            block, origin = (load(b, place, offset, I64, align=8) for offset in (0, 8))
            first, end = b.sub(low, origin), b.sub(high, origin)
            first = b.select(b.icmp_signed(">", first, i64(0)), first, i64(0))
            end = b.select(b.icmp_signed("<", end, block_size), end, block_size)

            def run(token: Value, height: int, key: Value, width: int) -> None:
                function = function_of(b, f"tile_{height}x{width}", 4, tile(height, width))
                row = b.add(first, key)
                keys = step(b, pointer(b, block), b.mul(row, layout.row_bytes(b, size)))
                position = b.add(b.mul(token, i64(SCORE_STRIDE)), b.add(origin, row))
                out = step(b, step(b, memory, SCORES + 4 * MARGIN), b.shl(position, i64(2)))
                query = step(b, queries, b.shl(b.mul(token, size), i64(2)))
                b.call(function, [keys, query, out, size])

            cover(b, tokens, b.sub(end, first), _shapes(), run)

    return scores


def _sum(b: ir.IRBuilder, x: Value) -> Value:
    """Sixteen lanes, by halves."""
    width = LANES
    while width > 1:
        width //= 2
        x = b.fadd(shuffle(b, x, x, range(width)), shuffle(b, x, x, range(width, 2 * width)))
    return b.extract_element(x, emit.integer(32, 0))


ROW_SCORE_KERNELS = {name: _scores_kernel(f"attend.row_scores.{name}", layout) for name, layout in LAYOUTS.items()}
"""(record, scratch, blocks, tokens): the tokens' queries by the keys of positions LOW … HIGH of a tile, which lie in
the first blocks, into the scores."""
