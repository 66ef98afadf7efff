"""The outer loops of every matmul kernel, over rows as they lie in the file.

Few tokens *stream*: block after block of 16 rows is used at once, while the next rows are fetched. More tokens go in
*tiles*: some panels of 16 rows are packed whole, and stay in the cache for all tokens. Rows that fill no panel are
packed with a row repeated; what comes of it goes to the padding of the outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa import Tile
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import I64, POINTER, Value, fetch, i64, load, pointer, step, store

PANEL_OUTPUT = 4 * LANES
"""Bytes of the outputs of one panel for one token."""

Sums = list[list[Value]]
"""[panel][token], vectors of 16 floats."""


class Matmul(ABC):
    """What a format does inside of the loops. Pointers are to cache lines where they are to packed data."""

    line_bytes: int
    """Room for one packed block, a multiple of 64: the scratch memory starts with it, panels are behind."""

    least = 0
    """Inputs that `emit_stream` can do with; rows that have fewer are always packed."""

    streams: tuple[int, ...] = (1,)
    """The numbers of tokens, rising, that there is a stream for. Up to the last of them it is better than packing;
    numbers between them have the last token repeated.
    """

    @abstractmethod
    def emit_row_bytes(self, b: ir.IRBuilder, k: Value) -> Value:
        """Bytes of a row in the file."""

    @abstractmethod
    def emit_panel_bytes(self, b: ir.IRBuilder, k: Value) -> Value:
        """Bytes of a packed panel."""

    @abstractmethod
    def emit_panel(self, b: ir.IRBuilder, raw: RawRows, ahead: Value, k: Value, lines: Value, panel: Value) -> None:
        """Pack rows; `lines` is room for a block. Meanwhile, fetch half as many bytes from `ahead` on."""

    @abstractmethod
    def emit_tile(self, b: ir.IRBuilder, panels: Sequence[Value], xs: Sequence[Value], k: Value, ahead: Value) -> Sums:
        """Packed panels by tokens. Meanwhile, `fetch_half` of the bytes that the panels' rows have in the file."""

    @abstractmethod
    def emit_stream(
        self,
        b: ir.IRBuilder,
        raw: RawRows,
        ahead: Value,
        xs: Sequence[Value],
        ys: Sequence[Value],
        k: Value,
        lines: Value,
    ) -> None:
        """Sixteen raw rows by a token or some: the same sums, bit for bit, go to `ys`. Meanwhile, fetch as many bytes
        from `ahead` on.
        """


def fetch_half(b: ir.IRBuilder, ahead: Value, index: Value, size: int) -> None:
    """The `index`-th part of half of what comes next, `size` bytes of the whole, from `ahead` on if it is not null."""
    with b.if_then(b.icmp_unsigned("!=", ahead, ir.Constant(POINTER, None))):
        fetch(b, step(b, ahead, b.mul(index, i64(size // 2))), size // 2)


def emit_gemm(
    b: ir.IRBuilder,
    form: Matmul,
    tile: Tile,
    rows: Value,
    n_rows: Value,
    xs: Value,
    ys: Value,
    n_tokens: Value,
    k: Value,
    scratch: Value,
) -> None:
    """The whole kernel; see `base`."""
    first, lines = pointer(b, rows), pointer(b, scratch)
    panels = step(b, lines, form.line_bytes)
    stride = form.emit_row_bytes(b, k)
    panel_raw, panel_bytes = b.mul(stride, i64(LANES)), form.emit_panel_bytes(b, k)
    whole = b.lshr(n_rows, i64(4))

    def place(panel: Value) -> Value:
        return step(b, first, b.mul(panel, panel_raw))

    def tokens(column: Value, width: int, ahead: Value) -> None:
        """All tokens, in tiles, by the packed panels. The first tile fetches from `ahead` on."""
        token = i64(0)
        for height in tile.tokens:
            function = _tile_function(b, width, height, form)
            with emit.loop(b, b.sub(n_tokens, i64(height - 1)), start=token, step=height) as along:
                tables = [b.add(table, b.shl(along.index, i64(3))) for table in (xs, ys)]
                once = b.select(b.icmp_signed("==", along.index, i64(0)), ahead, ir.Constant(POINTER, None))
                b.call(function, [panels, panel_bytes, *tables, column, k, once])
            token = along.index

    def pack(panel: Value, count: Value, at: int, ahead: Value) -> None:
        target = step(b, panels, b.mul(panel_bytes, i64(at)) if at else 0)
        b.call(_pack_function(b, form), [place(panel), stride, count, ahead, k, lines, target])

    most = i64(form.streams[-1])
    if form.least:
        most = b.select(b.icmp_signed(">=", k, i64(form.least)), most, i64(0))
    with b.if_else(b.icmp_signed("<=", n_tokens, most)) as (few, several):
        with few:
            for below, count in zip((0, *form.streams), form.streams, strict=False):
                function = _stream_function(b, form, count)
                wanted = b.and_(b.icmp_signed(">", n_tokens, i64(below)), b.icmp_signed("<=", n_tokens, i64(count)))
                with b.if_then(wanted), emit.loop(b, whole) as down:
                    column = b.mul(down.index, i64(PANEL_OUTPUT))
                    b.call(function, [place(down.index), stride, xs, ys, n_tokens, column, k, lines])
        with several:
            done = i64(0)
            for width in range(tile.panels, 0, -1):
                with emit.loop(b, b.sub(whole, i64(width - 1)), start=done, step=width) as down:
                    # Of the rows that come next, packing fetches the first half and multiplying the other: memory
                    # is asked as evenly as that.
                    ahead = place(b.add(down.index, i64(width)))
                    for i in range(width):
                        pack(b.add(down.index, i64(i)), i64(LANES), i, ahead)
                        ahead = step(b, ahead, b.lshr(panel_raw, i64(1)))
                    tokens(b.mul(down.index, i64(PANEL_OUTPUT)), width, ahead)
                done = down.index
    rest = b.and_(n_rows, i64(LANES - 1))
    with b.if_then(b.icmp_signed("!=", rest, i64(0))):
        behind = place(b.add(whole, i64(1)))
        pack(whole, rest, 0, behind)
        tokens(b.mul(whole, i64(PANEL_OUTPUT)), 1, behind)


def _function(b: ir.IRBuilder, name: str, kinds: Sequence[ir.Type], body: Callable[..., None]) -> ir.Function:
    """An internal function, made once in a module."""
    known = b.module.globals.get(name)
    if known is not None:
        return known
    function = ir.Function(b.module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    inner = ir.IRBuilder(function.append_basic_block("entry"))
    body(inner, *function.args)
    inner.ret_void()
    return function


def _pack_function(b: ir.IRBuilder, form: Matmul) -> ir.Function:
    """(first row, stride, rows, ahead, k, lines, panel), with a loop of its own for sixteen rows."""

    def body(
        b: ir.IRBuilder, first: Value, stride: Value, rows: Value, ahead: Value, k: Value, lines: Value, panel: Value
    ) -> None:
        for_any_rows(b, first, stride, rows, lambda raw: form.emit_panel(b, raw, ahead, k, lines, panel))

    return _function(b, "pack_panel", [POINTER, I64, I64, POINTER, I64, POINTER, POINTER], body)


def for_any_rows(b: ir.IRBuilder, first: Value, stride: Value, rows: Value, body: Callable[[RawRows], None]) -> None:
    """Emit a body twice: for sixteen rows, and for fewer."""
    with b.if_else(b.icmp_signed("==", rows, i64(LANES))) as branches:
        for branch, count in zip(branches, (None, rows), strict=True):
            with branch:
                body(RawRows(b, first, stride, count))


def _stream_function(b: ir.IRBuilder, form: Matmul, count: int) -> ir.Function:
    """(first row, stride, xs, ys, tokens, column, k, lines), for up to `count` tokens."""

    def body(
        b: ir.IRBuilder,
        first: Value,
        stride: Value,
        xs: Value,
        ys: Value,
        n_tokens: Value,
        column: Value,
        k: Value,
        lines: Value,
    ) -> None:
        last = b.sub(n_tokens, i64(1))
        places = [b.shl(emit.call(b, "llvm.smin.i64", I64, [i64(t), last]), i64(3)) for t in range(count)]
        inputs, outputs = (
            [pointer(b, load(b, pointer(b, table), place, I64, align=8)) for place in places] for table in (xs, ys)
        )
        ahead = step(b, first, b.mul(stride, i64(LANES)))
        form.emit_stream(b, RawRows(b, first, stride), ahead, inputs, [step(b, y, column) for y in outputs], k, lines)

    return _function(b, f"stream_{count}", [POINTER, I64, I64, I64, I64, I64, I64, POINTER], body)


def _tile_function(b: ir.IRBuilder, width: int, height: int, form: Matmul) -> ir.Function:
    """(panels, panel bytes, xs, ys, column, k, ahead), for one size of tile."""

    def body(
        b: ir.IRBuilder, panel: Value, panel_bytes: Value, xs: Value, ys: Value, column: Value, k: Value, ahead: Value
    ) -> None:
        places = [step(b, panel, b.mul(panel_bytes, i64(i)) if i else 0) for i in range(width)]
        rows = [
            [pointer(b, load(b, pointer(b, table), 8 * t, I64, align=8)) for t in range(height)] for table in (xs, ys)
        ]
        sums = form.emit_tile(b, places, rows[0], k, ahead)
        for t, row in enumerate(rows[1]):
            outputs = step(b, row, column)
            for i in range(width):
                store(b, outputs, PANEL_OUTPUT * i, sums[i][t], align=4)

    return _function(b, f"tile_{width}x{height}", [POINTER, I64, I64, I64, I64, I64, POINTER], body)
