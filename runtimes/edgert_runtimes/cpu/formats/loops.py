"""The outer loops of every matmul kernel: panels by panels, tokens by tokens, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa import Tile
from edgert_runtimes.cpu.formats.vectors import I64, POINTER, Value, i64, load, pointer, step, store

PANEL_OUTPUT = 4 * LANES
"""Bytes of the outputs of one panel for one token."""

TileBody = Callable[[ir.IRBuilder, Sequence[Value], Sequence[Value], Value], list[list[Value]]]
"""(builder, pointers to panels, pointers to activations, k) → sums[panel][token], vectors of 16 floats."""


def emit_gemm(
    b: ir.IRBuilder,
    tile: Tile,
    decode_panels: int,
    panel_bytes: Value,
    body: TileBody,
    panels: Value,
    n_panels: Value,
    xs: Value,
    ys: Value,
    n_tokens: Value,
    k: Value,
) -> None:
    """The whole kernel: one token runs down the panels, `decode_panels` at once; more run in tiles, where the panels
    of one tile stay in the cache for all tokens.
    """
    first = pointer(b, panels)

    def cover(heights: Sequence[int], at_once: int) -> None:
        """All panels, `at_once` and then one by one; all tokens, in tiles of these heights."""
        done = i64(0)
        for width in (at_once, 1) if at_once > 1 else (1,):
            with emit.loop(b, b.sub(n_panels, i64(width - 1)), start=done, step=width) as down:
                place = step(b, first, b.mul(down.index, panel_bytes))
                column = b.mul(down.index, i64(PANEL_OUTPUT))
                token = i64(0)
                for height in heights:
                    function = _tile_function(b, width, height, body)
                    with emit.loop(b, b.sub(n_tokens, i64(height - 1)), start=token, step=height) as along:
                        rows = [b.add(table, b.shl(along.index, i64(3))) for table in (xs, ys)]
                        b.call(function, [place, panel_bytes, *rows, column, k])
                    token = along.index
            done = down.index

    with b.if_else(b.icmp_signed("==", n_tokens, i64(1))) as (one, several):
        with one:
            cover((1,), decode_panels)
        with several:
            cover(tile.tokens, tile.panels)


def _tile_function(b: ir.IRBuilder, width: int, height: int, body: TileBody) -> ir.Function:
    """The function (panel, panel bytes, xs, ys, column, k) for one size of tile, made once in a module."""
    name = f"tile_{width}x{height}"
    known = b.module.globals.get(name)
    if known is not None:
        return known
    kind = ir.FunctionType(ir.VoidType(), [POINTER, I64, I64, I64, I64, I64])
    function = ir.Function(b.module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    panel, panel_bytes, xs, ys, column, k = function.args
    inner = ir.IRBuilder(function.append_basic_block("entry"))
    places = [step(inner, panel, inner.mul(panel_bytes, i64(i)) if i else 0) for i in range(width)]
    rows = [
        [pointer(inner, load(inner, pointer(inner, table), 8 * t, I64, align=8)) for t in range(height)]
        for table in (xs, ys)
    ]
    sums = body(inner, places, rows[0], k)
    for t, row in enumerate(rows[1]):
        outputs = step(inner, row, column)
        for i in range(width):
            store(inner, outputs, PANEL_OUTPUT * i, sums[i][t], align=4)
    inner.ret_void()
    return function
