"""F32, F16 and BF16 in panels: k after k, 16 rows each; widened in registers, multiplied and added as float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import base, loops, rows, vectors
from edgert_runtimes.cpu.formats.activations import activation
from edgert_runtimes.cpu.formats.base import LANES, PANEL_ALIGNMENT, Format
from edgert_runtimes.cpu.formats.isa import SOURCES as ISA_SOURCES
from edgert_runtimes.cpu.formats.isa import Isa
from edgert_runtimes.cpu.formats.loops import Matmul, emit_gemm, fetch_half, for_any_rows
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    I16,
    I32,
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

SOURCES = (base, emit, *ISA_SOURCES, loops, rows, vectors)
"""The modules that the kernels are emitted by, beside this one."""

UNROLL = 4


@dataclass(frozen=True)
class Element:
    """A number type: its bits as an integer type, and how they become a float."""

    type: BlockType
    bits: Any
    widen: Callable[[ir.IRBuilder, Value], Value]


def _same_bits(b: ir.IRBuilder, bits: Value) -> Value:
    kind = bits.type
    return b.bitcast(bits, ir.VectorType(F32, kind.count) if isinstance(kind, ir.VectorType) else F32)


ELEMENTS = (
    Element(BlockType.F32, I32, _same_bits),
    Element(BlockType.F16, I16, emit.half_to_float),
    Element(BlockType.BF16, I16, emit.bfloat_to_float),
)


class FloatFormat(Format, Matmul):
    """A float type, for one instruction set."""

    def __init__(self, element: Element, isa: Isa) -> None:
        self.type = element.type
        self.element = element
        self.isa = isa
        self.activation = activation("f32")
        self._k_bytes = LANES * self.type.block_bytes
        self.line_bytes = LANES * self._k_bytes
        name = f"{self.type.name.lower()}.{{}}"
        matmul = f"gemm.{isa.name}"
        self.pack = ir_kernel(name=name.format("pack"), key=SOURCES)(self._pack_kernel())
        self.unpack_row = ir_kernel(name=name.format("unpack_row"), key=SOURCES)(self._unpack_kernel())
        self.gemm = ir_kernel(name=name.format(matmul), key=(*SOURCES, matmul))(self._gemm_kernel())

    def panel_bytes(self, k: int) -> int:
        """Any k."""
        return -(-k * self._k_bytes // PANEL_ALIGNMENT) * PANEL_ALIGNMENT

    def scratch_bytes(self, k: int) -> int:
        """Any k."""
        return self.line_bytes + self.isa.float_tile().panels * self.panel_bytes(k)

    def emit_row_bytes(self, b: ir.IRBuilder, k: Value) -> Value:
        """See Matmul."""
        return b.mul(k, i64(self.type.block_bytes))

    def emit_panel_bytes(self, b: ir.IRBuilder, k: Value) -> Value:
        """See Matmul."""
        size = b.mul(k, i64(self._k_bytes))
        return b.and_(b.add(size, i64(PANEL_ALIGNMENT - 1)), i64(-PANEL_ALIGNMENT))

    def emit_panel(self, b: ir.IRBuilder, raw: RawRows, ahead: Value, k: Value, lines: Value, panel: Value) -> None:
        """See Matmul."""
        whole, half = b.and_(k, i64(-LANES)), self._k_bytes // 2
        with emit.loop(b, whole, step=LANES) as each:
            fetch(b, step(b, ahead, b.mul(each.index, i64(half))), LANES * half)
            self._pack_inputs(b, raw, each.index, step(b, panel, b.mul(each.index, i64(self._k_bytes))))
        with emit.loop(b, k, start=whole) as each:
            raw.start = b.mul(each.index, i64(self.type.block_bytes))
            place = step(b, panel, b.mul(each.index, i64(self._k_bytes)))
            store(b, place, 0, raw.column(0, self.element.bits), align=self._k_bytes)

    def _pack_inputs(self, b: ir.IRBuilder, raw: RawRows, index: Value, place: Value) -> None:
        """Sixteen inputs from `index` on."""
        raw.start = b.mul(index, i64(self.type.block_bytes))
        for i, column in enumerate(raw.columns(0, LANES, self.element.bits)):
            store(b, place, self._k_bytes * i, column, align=self._k_bytes)

    def _pack_kernel(self) -> Callable[..., None]:
        def pack(b: ir.IRBuilder, source: Value, stride: Value, n_rows: Value, k: Value, out: Value) -> None:
            first, panel = pointer(b, source), pointer(b, out)
            for_any_rows(b, first, stride, n_rows, lambda raw: self.emit_panel(b, raw, first, k, panel, panel))

        return pack

    def _unpack_kernel(self) -> Callable[..., None]:
        def unpack_row(b: ir.IRBuilder, address: Value, lane: Value, k: Value, out: Value) -> None:
            row = step(b, pointer(b, address), b.mul(lane, i64(self.type.block_bytes)))
            with emit.loop(b, k) as each:
                bits = load(b, row, b.mul(each.index, i64(self._k_bytes)), self.element.bits, self.type.block_bytes)
                store(b, pointer(b, out), b.shl(each.index, i64(2)), self.element.widen(b, bits), align=4)

        return unpack_row

    def _gemm_kernel(self) -> Callable[..., None]:
        def gemm(
            b: ir.IRBuilder, rows: Value, n_rows: Value, xs: Value, ys: Value, n_tokens: Value, k: Value, scratch: Value
        ) -> None:
            emit_gemm(b, self, self.isa.float_tile(), rows, n_rows, xs, ys, n_tokens, k, scratch)

        return gemm

    def emit_tile(
        self, b: ir.IRBuilder, panels: Sequence[Value], xs: Sequence[Value], k: Value, ahead: Value
    ) -> list[list[Value]]:
        """See Matmul; k after k."""
        sums: list[Value] = [emit.real(0.0, FLOATS)] * (len(panels) * len(xs))
        whole = b.and_(k, i64(-UNROLL))
        with emit.loop(b, whole, *sums, step=UNROLL) as each:
            fetch_half(b, ahead, b.udiv(each.index, i64(UNROLL)), len(panels) * UNROLL * self._k_bytes)
            sums = list(each.values)
            places = [step(b, panel, b.mul(each.index, i64(self._k_bytes))) for panel in panels]
            for i in range(UNROLL):
                self._add(b, places, xs, each.index, i, sums)
            each.carry(*sums)
        with emit.loop(b, k, *each.values, start=whole) as rest:
            sums = list(rest.values)
            places = [step(b, panel, b.mul(rest.index, i64(self._k_bytes))) for panel in panels]
            self._add(b, places, xs, rest.index, 0, sums)
            rest.carry(*sums)
        return [rest.values[i * len(xs) : (i + 1) * len(xs)] for i in range(len(panels))]

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
        """See Matmul; sixteen inputs are a block."""
        whole = b.and_(k, i64(-LANES))
        size = LANES * LANES * self.type.block_bytes
        with emit.loop(b, whole, *[emit.real(0.0, FLOATS)] * len(xs), step=LANES) as each:
            fetch(b, step(b, ahead, b.mul(each.index, i64(size // LANES))), size)
            self._pack_inputs(b, raw, each.index, lines)
            sums = list(each.values)
            for i in range(LANES):
                self._add(b, [lines], xs, each.index, i, sums)
            each.carry(*sums)
        with emit.loop(b, k, *each.values, start=whole) as rest:
            raw.start = b.mul(rest.index, i64(self.type.block_bytes))
            store(b, lines, 0, raw.column(0, self.element.bits), align=self._k_bytes)
            sums = list(rest.values)
            self._add(b, [lines], xs, rest.index, 0, sums)
            rest.carry(*sums)
        for y, total in zip(ys, rest.values, strict=True):
            store(b, y, 0, total, align=4)

    def _add(
        self, b: ir.IRBuilder, places: Sequence[Value], xs: Sequence[Value], index: Value, i: int, sums: list[Value]
    ) -> None:
        """Add input `index` + i, which is the i-th at `places`, to the sums, in place."""
        kind = ir.VectorType(self.element.bits, LANES)
        offset = self._k_bytes * i
        weights = [self.element.widen(b, load(b, place, offset, kind, align=self._k_bytes)) for place in places]
        for t, x in enumerate(xs):
            inputs = splat(b, load(b, x, b.shl(b.add(index, i64(i)), i64(2)), F32, align=4))
            for p, weight in enumerate(weights):
                at = p * len(xs) + t
                sums[at] = fused(b, weight, inputs, sums[at])
