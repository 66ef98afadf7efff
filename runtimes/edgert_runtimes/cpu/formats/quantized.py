"""The kernels of all block types, written once over a `Layout` that says where scales and codes lie.

For output row i and a token, with codes q (unsigned) of the weights and codes c of the inputs:

    y_i = Σ_blocks d (Σ_halves f_i Σ (q - offset) c) - d m_i Σ c

where d is the scale of 32 inputs, f_i and m_i factor and minimum of the row's 32 weights (two factors where a type
scales every 16). Sums over codes are exact integers; the floats are added block after block, in every kernel alike.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import activations, base, loops, rows, vectors
from edgert_runtimes.cpu.formats.activations import BLOCK, Codes
from edgert_runtimes.cpu.formats.base import LANES, PANEL_ALIGNMENT, Format
from edgert_runtimes.cpu.formats.isa import SOURCES as ISA_SOURCES
from edgert_runtimes.cpu.formats.isa import Isa
from edgert_runtimes.cpu.formats.loops import Matmul, emit_gemm
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    I8,
    I32,
    LINE,
    WORDS,
    Offset,
    Value,
    fetch,
    fused,
    i64,
    load,
    pointer,
    same,
    shift_left,
    splat,
    step,
    store,
)

SOURCES = (activations, base, emit, *ISA_SOURCES, loops, rows, vectors)
"""The modules that the kernels are emitted by, beside this one and that of the layout."""

STEPS = BLOCK // 4
"""Words of four codes in a block of 32."""
ALIGNMENT = 32
"""Of the blocks and codes in a panel: blocks of half scales and codes are an odd multiple of it."""


@dataclass(frozen=True)
class Scales:
    """Of 32 weights of 16 rows: one factor, or one for each 16, and the minimum that is subtracted (or None)."""

    factors: Sequence[Value]
    minimum: Value | None = None


Word = Callable[[Offset], Value]
"""Reads the word(s) at an offset of the block: of all 16 rows in a matmul, of one row when unpacking."""


class Layout(ABC):
    """How the blocks of one type lie in a panel: one behind the other, each `bytes` for 16 rows, scales first.

    A block of the file is walked in `groups` rounds of `blocks` times 32 weights.
    """

    type: BlockType
    bytes: int
    bits: int
    """Of a stored code: all are below 2^bits."""
    groups: int = 1
    blocks: int = 1
    halves: int = 1
    offset_bits: int | None = None
    """The stored codes are 2^offset_bits too large; None: they are not offset."""

    @abstractmethod
    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Move one block of 16 rows from the file's layout to ours."""

    @abstractmethod
    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """Of the 32 weights `block` in round `group`."""

    @abstractmethod
    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, step: int) -> Value:
        """Codes 4 step … 4 step + 3 of those 32 weights, as words of four unsigned bytes."""


class BlockFormat(Format, Matmul):
    """A block type, for one instruction set."""

    def __init__(self, layout: Layout, isa: Isa, activation: Codes) -> None:
        self.type = layout.type
        self.layout = layout
        self.isa = isa
        self.activation = activation
        self.codes = activation
        self.panels = isa.code_tile(activation.planes).panels
        name = f"{self.type.name.lower()}.{{}}"
        sources = (*SOURCES, sys.modules[type(layout).__module__])
        matmul = f"gemm.{activation.name}.{isa.name}"
        self.pack = ir_kernel(name=name.format("pack"), key=sources)(self._pack_kernel())
        self.unpack_row = ir_kernel(name=name.format("unpack_row"), key=sources)(self._unpack_kernel())
        self.gemm = ir_kernel(name=name.format(matmul), key=(*sources, matmul))(self._gemm_kernel())

    def panel_bytes(self, k: int) -> int:
        """`k` is a multiple of the type's block size."""
        size = self.type.row_bytes(k) // self.type.block_bytes * self.layout.bytes
        return -(-size // PANEL_ALIGNMENT) * PANEL_ALIGNMENT

    def _blocks(self, b: ir.IRBuilder, k: Value) -> Value:
        return b.sdiv(k, i64(self.type.block_size))

    def _place(self, b: ir.IRBuilder, panel: Value, index: Value) -> Value:
        """The pointer to a block of 16 rows."""
        return step(b, panel, b.mul(index, i64(self.layout.bytes)))

    def emit_row_bytes(self, b: ir.IRBuilder, k: Value) -> Value:
        """See Matmul."""
        return b.mul(self._blocks(b, k), i64(self.type.block_bytes))

    def emit_panel_bytes(self, b: ir.IRBuilder, k: Value) -> Value:
        """See Matmul."""
        size = b.mul(self._blocks(b, k), i64(self.layout.bytes))
        return b.and_(b.add(size, i64(PANEL_ALIGNMENT - 1)), i64(-PANEL_ALIGNMENT))

    def emit_pack(self, b: ir.IRBuilder, first: Value, stride: Value, rows: Value, k: Value, panel: Value) -> None:
        """See Matmul."""
        blocks = self._blocks(b, k)
        full = b.icmp_signed("==", rows, i64(LANES))
        with b.if_else(full) as (regular, irregular):
            for branch, count in ((regular, None), (irregular, rows)):
                with branch:
                    raw = RawRows(b, first, stride, count)
                    with emit.loop(b, blocks) as each:
                        raw.start = b.mul(each.index, i64(self.type.block_bytes))
                        self.layout.pack(b, raw, self._place(b, panel, each.index))

    def _pack_kernel(self) -> Callable[..., None]:
        def pack(b: ir.IRBuilder, source: Value, stride: Value, n_rows: Value, k: Value, out: Value) -> None:
            self.emit_pack(b, pointer(b, source), stride, n_rows, k, pointer(b, out))

        return pack

    def _unpack_kernel(self) -> Callable[..., None]:
        def unpack_row(b: ir.IRBuilder, address: Value, lane: Value, k: Value, out: Value) -> None:
            panel, blocks = pointer(b, address), self._blocks(b, k)
            with emit.loop(b, blocks) as each:
                place = self._place(b, panel, each.index)
                row = step(b, pointer(b, out), b.mul(each.index, i64(4 * self.type.block_size)))
                with emit.loop(b, i64(self.layout.groups)) as rounds:
                    for block in range(self.layout.blocks):
                        values = self._unpack_block(b, place, rounds.index, block, lane)
                        number = b.add(b.mul(rounds.index, i64(self.layout.blocks)), i64(block))
                        store(b, row, b.mul(number, i64(4 * BLOCK)), values, align=4)

        return unpack_row

    def _unpack_block(self, b: ir.IRBuilder, place: Value, group: Value, block: int, lane: Value) -> Value:
        """32 weights of one row: factor · (code - offset) - minimum; the products are exact."""
        column = step(b, place, b.shl(lane, i64(2)))

        def word(offset: Offset) -> Value:
            return load(b, column, offset, I32, align=4)

        words = ir.Constant(ir.VectorType(I32, STEPS), ir.Undefined)
        for i in range(STEPS):
            codes = self.layout.codes(b, word, group, block, i)
            words = b.insert_element(words, codes, ir.Constant(I32, i))
        wide = ir.VectorType(I32, BLOCK)
        codes = b.zext(b.bitcast(words, ir.VectorType(I8, BLOCK)), wide)
        if self.layout.offset_bits is not None:
            codes = b.sub(codes, ir.Constant(wide, [1 << self.layout.offset_bits] * BLOCK))
        scales = self.layout.scales(b, place, group, block)
        factors = [b.extract_element(factor, lane) for factor in scales.factors]
        vector = emit.splat(b, factors[0], BLOCK)
        if len(factors) == 2:
            halves = [ir.Constant(I32, 0)] * 16 + [ir.Constant(I32, BLOCK)] * 16
            order = ir.Constant(ir.VectorType(I32, BLOCK), halves)
            vector = b.shuffle_vector(vector, emit.splat(b, factors[1], BLOCK), order)
        values = b.fmul(vector, b.sitofp(codes, ir.VectorType(F32, BLOCK)))
        if scales.minimum is None:
            return values
        return b.fsub(values, emit.splat(b, b.extract_element(scales.minimum, lane), BLOCK))

    def _gemm_kernel(self) -> Callable[..., None]:
        def gemm(
            b: ir.IRBuilder, rows: Value, n_rows: Value, xs: Value, ys: Value, n_tokens: Value, k: Value, scratch: Value
        ) -> None:
            emit_gemm(b, self, self.isa.code_tile(self.codes.planes), rows, n_rows, xs, ys, n_tokens, k, scratch)

        return gemm

    def emit_tile(self, b: ir.IRBuilder, panels: Sequence[Value], xs: Sequence[Value], k: Value) -> list[list[Value]]:
        """See Matmul."""
        zero = emit.real(0.0, FLOATS)
        with emit.loop(b, self._blocks(b, k), *[zero] * (len(panels) * len(xs))) as each:
            places = [self._place(b, panel, each.index) for panel in panels]
            each.carry(*self._rounds(b, places, xs, each.index, each.values))
        return [each.values[i * len(xs) : (i + 1) * len(xs)] for i in range(len(panels))]

    def emit_stream(self, b: ir.IRBuilder, first: Value, stride: Value, x: Value, k: Value, lines: Value) -> Value:
        """See Matmul."""
        raw = RawRows(b, first, stride)
        following = b.mul(stride, i64(LANES))
        with emit.loop(b, self._blocks(b, k), emit.real(0.0, FLOATS)) as each:
            size = LANES * self.type.block_bytes
            fetch(b, first, b.add(following, b.mul(each.index, i64(size))), -(-size // LINE))
            raw.start = b.mul(each.index, i64(self.type.block_bytes))
            self.layout.pack(b, raw, lines)
            each.carry(*self._rounds(b, [lines], [x], each.index, each.values))
        return each.values[0]

    def _rounds(
        self, b: ir.IRBuilder, places: Sequence[Value], xs: Sequence[Value], index: Value, sums: Sequence[Value]
    ) -> Sequence[Value]:
        """Add a block of every panel for every token; `sums` is indexed by panel, then token."""
        layout, codes = self.layout, self.codes
        offset = b.mul(index, i64(layout.groups * layout.blocks * codes.block_bytes))
        inputs = [step(b, x, offset) for x in xs]
        if layout.groups == 1:
            return self._group(b, places, inputs, 0, sums)
        with emit.loop(b, i64(layout.groups), *sums) as rounds:
            offset = b.mul(rounds.index, i64(layout.blocks * codes.block_bytes))
            rounds.carry(*self._group(b, places, [step(b, x, offset) for x in inputs], rounds.index, rounds.values))
        return rounds.values

    def _group(
        self, b: ir.IRBuilder, places: Sequence[Value], xs: Sequence[Value], group: Offset, sums: Sequence[Value]
    ) -> list[Value]:
        sums = list(sums)
        for block in range(self.layout.blocks):
            inputs = [step(b, x, block * self.codes.block_bytes) for x in xs]
            self._block(b, places, inputs, group, block, sums)
        return sums

    def _block(
        self,
        b: ir.IRBuilder,
        places: Sequence[Value],
        xs: Sequence[Value],
        group: Offset,
        block: int,
        sums: list[Value],
    ) -> None:
        """Add 32 inputs to the sums, in place; `sums` is indexed by panel, then token."""
        layout, codes = self.layout, self.codes
        parts: list[list[Value]] = []
        for half in range(layout.halves):
            steps = range(half * STEPS // layout.halves, (half + 1) * STEPS // layout.halves)
            parts.append(self._dots(b, places, xs, group, block, steps, half))
        for i, place in enumerate(places):
            scales = layout.scales(b, place, group, block)
            for t, x in enumerate(xs):
                at = i * len(xs) + t
                part = b.fmul(b.sitofp(parts[0][at], FLOATS), scales.factors[0])
                for more, factor in zip(parts[1:], scales.factors[1:], strict=True):
                    part = fused(b, b.sitofp(more[at], FLOATS), factor, part)
                sums[at] = fused(b, part, splat(b, load(b, x, codes.scale, F32, align=4)), sums[at])
                if scales.minimum is not None:
                    total = splat(b, load(b, x, codes.scaled_sum, F32, align=4))
                    sums[at] = fused(b, scales.minimum, total, sums[at])

    def _dots(
        self,
        b: ir.IRBuilder,
        places: Sequence[Value],
        xs: Sequence[Value],
        group: Offset,
        block: int,
        steps: range,
        half: int,
    ) -> list[Value]:
        """Σ (code - offset) · input over some words of a block, by panel and token: exact integers."""
        layout, codes, isa = self.layout, self.codes, self.isa
        totals = [[isa.start(b, self._start(b, x, half)) for _ in places for x in xs]]
        zero = ir.Constant(WORDS, [0] * LANES)
        totals += [[isa.start(b, zero)] * len(totals[0]) for _ in range(codes.planes - 1)]
        for i in steps:
            operands = []
            for place in places:

                def word(offset: Offset, place: Value = place) -> Value:
                    return load(b, place, offset, WORDS, align=ALIGNMENT)

                operands.append(isa.codes(b, layout.codes(b, word, group, block, i), layout.bits))
            for t, x in enumerate(xs):
                for plane, plane_totals in enumerate(reversed(totals)):  # the low plane, which is last, has the start
                    words = [splat(b, load(b, x, offset, I32, align=4)) for offset in codes.words(plane, i)]
                    inputs = isa.inputs(b, words, layout.bits)
                    for p, operand in enumerate(operands):
                        at = p * len(xs) + t
                        plane_totals[at] = isa.dot4(b, plane_totals[at], operand, inputs, layout.bits)
        low, *high = [[isa.total(b, sums) for sums in plane_totals] for plane_totals in totals]
        if not high:
            return low
        return [b.add(x, shift_left(b, y, 8)) for x, y in zip(low, *high, strict=True)]

    def _start(self, b: ir.IRBuilder, x: Value, half: int) -> Value:
        """The sum to start from: - offset · Σ inputs, as far as the instruction set does not take it off itself."""
        offset = 0 if self.layout.offset_bits is None else 1 << self.layout.offset_bits
        offset -= self.isa.bias(self.layout.bits)
        if offset == 0:
            return ir.Constant(WORDS, [0] * LANES)
        at = self.codes.sum if self.layout.halves == 1 else self.codes.half_sums[half]
        total = splat(b, load(b, x, at, I32, align=4))
        return b.mul(total, same(total, offset))
