"""The kernels of all block types, written once over a `Layout` that says where scales and codes lie.

For output row i and a token, with codes q (unsigned) of the weights and codes c of the inputs:

    y_i = Σ_blocks d (Σ_halves f_i Σ (q - offset) c) - d m_i Σ c

where d is the scale of 32 inputs, f_i and m_i factor and minimum of the row's 32 weights (two of them where a type
has them for every 16). Where a type has a table, q is what stands in it for the stored code. Sums over codes are exact
integers; the floats are added block after block, in every kernel alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgert_quant.jit import emit, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import activations, base, loops, rows, vectors
from edgert_runtimes.cpu.formats.activations import BLOCK, Codes
from edgert_runtimes.cpu.formats.base import LANES, PANEL_ALIGNMENT, Format
from edgert_runtimes.cpu.formats.isa import SOURCES as ISA_SOURCES
from edgert_runtimes.cpu.formats.isa import Isa, Operand
from edgert_runtimes.cpu.formats.layout import STEPS, Layout, Scales, modules, multiplied_bits
from edgert_runtimes.cpu.formats.loops import emit_gemm
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
    dot_halves,
    fused,
    i64,
    join,
    load,
    look_up,
    mask,
    multiply,
    pointer,
    prefetch,
    same,
    shift_left,
    splat,
    step,
    store,
)

SOURCES = (activations, base, emit, *ISA_SOURCES, loops, rows, vectors)
"""The modules that the kernels are emitted by, beside this one and that of the layout."""


class BlockFormat(Format):
    """A block type in panels, for one instruction set."""

    def __init__(self, layout: Layout, isa: Isa, activation: Codes) -> None:
        self.type = layout.type
        self.layout = layout
        self.isa = isa
        self.activation = activation
        self.codes = activation
        self.bits = multiplied_bits(layout, isa)
        self.offset = (isa.table_offset(layout.table) if layout.table else layout.offset) - isa.bias(self.bits)
        name = f"{self.type.name.lower()}.{{}}"
        sources = (*SOURCES, *modules(layout))
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

    def _pack_kernel(self) -> Callable[..., None]:
        def pack(b: ir.IRBuilder, source: Value, stride: Value, n_rows: Value, k: Value, out: Value) -> None:
            raw = RawRows(b, source, stride, n_rows)
            panel, blocks = pointer(b, out), self._blocks(b, k)
            with emit.loop(b, blocks) as each:
                raw.start = b.mul(each.index, i64(self.type.block_bytes))
                self.layout.pack(b, raw, self._place(b, panel, each.index))

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
        stored = b.bitcast(words, ir.VectorType(I8, BLOCK))
        if self.layout.table:
            codes = b.sext(look_up(b, stored, self.layout.table), wide)
        else:
            codes = b.zext(stored, wide)
            codes = b.sub(codes, same(codes, self.layout.offset))
        codes = b.sitofp(codes, ir.VectorType(F32, BLOCK))
        scales = self.layout.scales(b, place, group, block).spread(b)
        factor, *minima = (self._of_row(b, values, lane) for values in (scales.factors, scales.minima) if values)
        if scales.shift is not None:
            return b.fmul(factor, b.fadd(codes, self._of_row(b, [scales.shift], lane)))
        values = b.fmul(factor, codes)
        return b.fsub(values, minima[0]) if minima else values

    def _of_row(self, b: ir.IRBuilder, values: Sequence[Value], lane: Value) -> Value:
        """One number, or one for each half, spread over the 32 weights of a row."""
        parts = [splat(b, b.extract_element(value, lane)) for value in values]
        return join(b, parts if len(parts) == 2 else parts * 2)

    def _gemm_kernel(self) -> Callable[..., None]:
        def gemm(
            b: ir.IRBuilder, panels: Value, n_panels: Value, xs: Value, ys: Value, n_tokens: Value, k: Value
        ) -> None:
            layout = self.layout
            size = b.mul(self._blocks(b, k), i64(layout.bytes))
            size = b.and_(b.add(size, i64(PANEL_ALIGNMENT - 1)), i64(-PANEL_ALIGNMENT))
            tile = self.isa.code_tile(self.codes.planes)
            emit_gemm(b, tile, 1, size, self._tile, panels, n_panels, xs, ys, n_tokens, k)

        return gemm

    def _tile(self, b: ir.IRBuilder, panels: Sequence[Value], xs: Sequence[Value], k: Value) -> list[list[Value]]:
        """Sums of 16 rows of every panel for every token."""
        layout, codes = self.layout, self.codes
        blocks = self._blocks(b, k)
        zero = emit.real(0.0, FLOATS)
        with emit.loop(b, blocks, *[zero] * (len(panels) * len(xs))) as each:
            places = [self._place(b, panel, each.index) for panel in panels]
            offset = b.mul(each.index, i64(layout.groups * layout.blocks * codes.block_bytes))
            inputs = [step(b, x, offset) for x in xs]
            if layout.groups == 1:
                each.carry(*self._group(b, places, inputs, 0, each.values))
            else:
                with emit.loop(b, i64(layout.groups), *each.values) as rounds:
                    offset = b.mul(rounds.index, i64(layout.blocks * codes.block_bytes))
                    group_inputs = [step(b, x, offset) for x in inputs]
                    rounds.carry(*self._group(b, places, group_inputs, rounds.index, rounds.values))
                each.carry(*rounds.values)
        return [each.values[i * len(xs) : (i + 1) * len(xs)] for i in range(len(panels))]

    def _group(
        self, b: ir.IRBuilder, places: Sequence[Value], xs: Sequence[Value], group: Offset, sums: Sequence[Value]
    ) -> list[Value]:
        lines = -(-self.layout.bytes // (LINE * self.layout.groups))
        for place in places:
            prefetch(b, place, multiply(b, group, lines * LINE), lines, busy=True)
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
        length = STEPS // self.layout.halves
        halves = [range(start, start + length) for start in range(0, STEPS, length)]
        every = [self.layout.scales(b, place, group, block) for place in places]
        if self.isa.weighs and every[0].levels is not None:
            totals = [self._weighed_start(b, x, scales.levels) for scales in every for x in xs]
            for half, steps in enumerate(halves):
                weights = [self.isa.weights(b, scales.levels, half) for scales in every]
                totals = self._dots(b, places, xs, group, block, steps, totals, weights)
            parts = [totals]
        else:
            every = [scales.spread(b) for scales in every]
            parts = []
            for half, steps in enumerate(halves):
                starts = [self._start(b, x, half) for x in xs] * len(places)
                parts.append(self._dots(b, places, xs, group, block, steps, starts, [()] * len(places)))
        for i, scales in enumerate(every):
            for t, x in enumerate(xs):
                at = i * len(xs) + t
                sums[at] = self._add(b, sums[at], [totals[at] for totals in parts], scales, x)

    def _add(self, b: ir.IRBuilder, total: Value, parts: Sequence[Value], scales: Scales, x: Value) -> Value:
        """`total`, and the dot products of 32 inputs times their scales."""
        codes = self.codes
        part = b.fmul(b.sitofp(parts[0], FLOATS), scales.factors[0])
        for more, factor in zip(parts[1:], scales.factors[1:], strict=True):
            part = fused(b, b.sitofp(more, FLOATS), factor, part)
        if scales.minimum_levels is not None:
            level = dot_halves(b, scales.minimum_levels, self._half_sums(b, x))
            part = fused(b, b.sitofp(level, FLOATS), scales.minima[0], part)
        elif len(scales.minima) == 2:
            for minimum, offset in zip(scales.minima, codes.half_sums, strict=True):
                part = fused(b, splat(b, b.sitofp(load(b, x, offset, I32, align=4), F32)), minimum, part)
        total = fused(b, part, splat(b, load(b, x, codes.scale, F32, align=4)), total)
        if scales.minimum_levels is None and len(scales.minima) == 1:
            total = fused(b, scales.minima[0], splat(b, load(b, x, codes.scaled_sum, F32, align=4)), total)
        return total

    def _dots(
        self,
        b: ir.IRBuilder,
        places: Sequence[Value],
        xs: Sequence[Value],
        group: Offset,
        block: int,
        steps: range,
        starts: Sequence[Value],
        weights: Sequence[Operand],
    ) -> list[Value]:
        """Σ code · input over some words of a block, times the weights of its panel if any, added to `starts`:
        exact integers, by panel and token.
        """
        layout, codes, isa = self.layout, self.codes, self.isa
        totals = [[isa.start(b, start, weights[at // len(xs)]) for at, start in enumerate(starts)]]
        zero = ir.Constant(WORDS, [0] * LANES)
        totals += [[isa.start(b, zero)] * len(totals[0]) for _ in range(codes.planes - 1)]
        for i in steps:
            operands = []
            for place in places:

                def word(offset: Offset, place: Value = place) -> Value:
                    return load(b, place, offset, WORDS, align=layout.alignment)

                stored = layout.codes(b, word, group, block, i)
                if layout.table:
                    operands.append(isa.entries(b, stored, layout.table))
                else:
                    operands.append(isa.codes(b, stored, self.bits))
            for t, x in enumerate(xs):
                for plane, plane_totals in enumerate(reversed(totals)):  # the low plane, which is last, has the start
                    words = [splat(b, load(b, x, offset, I32, align=4)) for offset in codes.words(plane, i)]
                    inputs = isa.inputs(b, words, self.bits)
                    for p, operand in enumerate(operands):
                        at = p * len(xs) + t
                        plane_totals[at] = isa.dot4(b, plane_totals[at], operand, inputs, self.bits)
        low, *high = [[isa.total(b, sums) for sums in plane_totals] for plane_totals in totals]
        if not high:
            return low
        return [b.add(x, shift_left(b, y, 8)) for x, y in zip(low, *high, strict=True)]

    def _start(self, b: ir.IRBuilder, x: Value, half: int) -> Value:
        """The sum to start from: - offset · Σ inputs, as far as the instruction set does not take it off itself."""
        if self.offset == 0:
            return ir.Constant(WORDS, [0] * LANES)
        at = self.codes.sum if self.layout.halves == 1 else self.codes.half_sums[half]
        total = load(b, x, at, I32, align=4)
        return splat(b, b.mul(total, same(total, self.offset)))

    def _weighed_start(self, b: ir.IRBuilder, x: Value, levels: Value) -> Value:
        """The same for both halves, with a level for each."""
        if self.offset == 0:
            return ir.Constant(WORDS, [0] * LANES)
        total = dot_halves(b, levels, self._half_sums(b, x))
        return b.mul(total, same(total, self.offset))

    def _half_sums(self, b: ir.IRBuilder, x: Value) -> Value:
        """- Σ inputs of both halves as 16-bit numbers in one word."""
        low, high = (load(b, x, at, I32, align=4) for at in self.codes.half_sums)
        return splat(b, b.or_(mask(b, low, 0xFFFF), shift_left(b, high, 16)))
