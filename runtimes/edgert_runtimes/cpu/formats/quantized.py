"""The kernels of all block types, written once over a `Layout` that says where scales and codes lie.

For output row i and a token, with codes q (unsigned) of the weights and codes c of the inputs:

    y_i = Σ_blocks d (Σ_halves f_i Σ (q - offset) c) - d m_i Σ c

where d is the scale of 32 inputs, f_i and m_i factor and minimum of the row's 32 weights (two of them where a type
has them for every 16). Where a type has a table, q is what stands in it for the stored code. Sums over codes are exact
integers; the floats are added block after block, in every kernel alike.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

from edgert_quant.jit import emit, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import activations, base, loops, rows, vectors
from edgert_runtimes.cpu.formats.activations import BLOCK, Codes
from edgert_runtimes.cpu.formats.base import LANES, PANEL_ALIGNMENT, Format
from edgert_runtimes.cpu.formats.isa import SOURCES as ISA_SOURCES
from edgert_runtimes.cpu.formats.isa import Isa, Operand
from edgert_runtimes.cpu.formats.layout import STEPS, Layout, Scales
from edgert_runtimes.cpu.formats.loops import Matmul, emit_gemm, for_any_rows
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    I8,
    I32,
    ROW_WORD,
    WORDS,
    Offset,
    Value,
    add,
    dot_halves,
    fetch,
    fused,
    i64,
    join,
    load,
    look_up,
    mask,
    pointer,
    same,
    shift_left,
    splat,
    step,
    store,
)

SOURCES = (activations, base, emit, *ISA_SOURCES, loops, rows, vectors)
"""The modules that the kernels are emitted by, beside this one and that of the layout."""


def multiplied_bits(layout: Layout, isa: Isa) -> int:
    """Of the codes that an instruction set multiplies."""
    return isa.table_bits(layout.table) if layout.table else layout.bits


def _modules(layout: Layout) -> Iterator[ModuleType]:
    """The modules that a layout is made of: its own, and those of the package that they take names from."""
    names = [type(layout).__module__]
    for name in names:  # it grows
        yield sys.modules[name]
        origins = (getattr(value, "__module__", None) or "" for value in vars(sys.modules[name]).values())
        names += dict.fromkeys(n for n in origins if n.startswith(f"{__package__}.") and n not in names)


class BlockFormat(Format, Matmul):
    """A block type, for one instruction set."""

    def __init__(self, layout: Layout, isa: Isa, activation: Codes) -> None:
        self.type = layout.type
        self.layout = layout
        self.isa = isa
        self.activation = activation
        self.codes = activation
        self.line_bytes = -(-layout.bytes // PANEL_ALIGNMENT) * PANEL_ALIGNMENT
        self.bits = multiplied_bits(layout, isa)
        self.offset = (isa.table_offset(layout.table) if layout.table else layout.offset) - isa.bias(self.bits)
        self.weighs = isa.weighs and layout.leveled
        self.scale_counts = (layout.halves, layout.minima * (1 + layout.minimum_leveled), 0, 0)
        if self.weighs:
            self.scale_counts = (1, layout.minima, 1, int(layout.minimum_leveled))
        """Of the factors, the minima, and the levels of both, that a panel has for 32 weights."""
        self.block_bytes = ROW_WORD * (sum(self.scale_counts) + STEPS)
        name = f"{self.type.name.lower()}.{{}}"
        sources = (*SOURCES, *_modules(layout))
        matmul = f"gemm.{activation.name}.{isa.name}"
        self.pack = ir_kernel(name=name.format("pack"), key=sources)(self._pack_kernel())
        self.unpack_row = ir_kernel(name=name.format("unpack_row"), key=sources)(self._unpack_kernel())
        self.gemm = ir_kernel(name=name.format(matmul), key=(*sources, matmul))(self._gemm_kernel())

    def panel_bytes(self, k: int) -> int:
        """`k` is a multiple of the type's block size."""
        size = k // self.type.block_size * self.layout.bytes
        return -(-size // PANEL_ALIGNMENT) * PANEL_ALIGNMENT

    def scratch_bytes(self, k: int) -> int:
        """As `panel_bytes`; the panels of `gemm` are those of `emit_panel`."""
        return self.line_bytes + self.isa.code_tile(self.codes.planes).panels * k // BLOCK * self.block_bytes

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
        return b.mul(b.lshr(k, i64(5)), i64(self.block_bytes))

    def emit_panel(self, b: ir.IRBuilder, raw: RawRows, k: Value, lines: Value, panel: Value) -> None:
        """See Matmul. For every 32 weights the factors and the minima, float32 of 16 rows, then eight words of codes,
        one a byte: what tile after tile would compute again.
        """
        layout = self.layout
        with emit.loop(b, self._blocks(b, k)) as each:
            raw.start = b.mul(each.index, i64(self.type.block_bytes))
            layout.pack(b, raw, lines)
            first = b.mul(each.index, i64(layout.groups * layout.blocks * self.block_bytes))
            with emit.loop(b, i64(layout.groups)) as rounds:
                layout.pack_round(b, raw, lines, rounds.index)
                for block in range(layout.blocks):
                    number = add(b, b.mul(rounds.index, i64(layout.blocks)), block)
                    place = step(b, step(b, panel, first), b.mul(number, i64(self.block_bytes)))
                    for i, value in enumerate(self._scales(b, lines, rounds.index, block).flat()):
                        store(b, place, ROW_WORD * i, value, align=ROW_WORD)
                    words = self._packed_words(b, lines, rounds.index, block)
                    for i in range(STEPS):
                        store(b, place, self.block_bytes + ROW_WORD * (i - STEPS), words(i), align=ROW_WORD)

    def _packed_words(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Callable[[int], Value]:
        """Words of four codes of 32 weights, by their number, out of a packed block."""

        def word(offset: Offset) -> Value:
            return load(b, place, offset, WORDS, align=self.layout.alignment)

        return lambda number: self.layout.codes(b, word, group, block, number)

    def _pack_kernel(self) -> Callable[..., None]:
        def pack(b: ir.IRBuilder, source: Value, stride: Value, n_rows: Value, k: Value, out: Value) -> None:
            def blocks(raw: RawRows) -> None:
                with emit.loop(b, self._blocks(b, k)) as each:
                    raw.start = b.mul(each.index, i64(self.type.block_bytes))
                    place = self._place(b, pointer(b, out), each.index)
                    self.layout.pack(b, raw, place)
                    with emit.loop(b, i64(self.layout.groups)) as rounds:
                        self.layout.pack_round(b, raw, place, rounds.index)

            for_any_rows(b, pointer(b, source), stride, n_rows, blocks)

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
            b: ir.IRBuilder, rows: Value, n_rows: Value, xs: Value, ys: Value, n_tokens: Value, k: Value, scratch: Value
        ) -> None:
            emit_gemm(b, self, self.isa.code_tile(self.codes.planes), rows, n_rows, xs, ys, n_tokens, k, scratch)

        return gemm

    def emit_tile(self, b: ir.IRBuilder, panels: Sequence[Value], xs: Sequence[Value], k: Value) -> list[list[Value]]:
        """See Matmul."""
        zero = emit.real(0.0, FLOATS)
        with emit.loop(b, b.lshr(k, i64(5)), *[zero] * (len(panels) * len(xs))) as each:
            places = [step(b, panel, b.mul(each.index, i64(self.block_bytes))) for panel in panels]
            inputs = [step(b, x, b.mul(each.index, i64(self.codes.block_bytes))) for x in xs]
            sums = list(each.values)

            def row(place: Value, number: int, kind: ir.Type) -> Value:
                return load(b, place, ROW_WORD * number, kind, align=ROW_WORD)

            def words(place: Value) -> Callable[[int], Value]:
                return lambda number: row(place, sum(self.scale_counts) + number, WORDS)

            def scales(place: Value) -> Scales:
                kinds = [FLOATS, FLOATS, WORDS, WORDS]
                each_kind = [kind for kind, count in zip(kinds, self.scale_counts, strict=True) for _ in range(count)]
                return Scales.of([row(place, i, kind) for i, kind in enumerate(each_kind)], self.scale_counts)

            self._add_block(b, inputs, [words(place) for place in places], [scales(place) for place in places], sums)
            each.carry(*sums)
        return [each.values[i * len(xs) : (i + 1) * len(xs)] for i in range(len(panels))]

    def emit_stream(self, b: ir.IRBuilder, raw: RawRows, ahead: Value, x: Value, k: Value, lines: Value) -> Value:
        """See Matmul."""
        layout, codes = self.layout, self.codes
        portion = LANES * self.type.block_bytes // (layout.groups * layout.blocks)
        with emit.loop(b, self._blocks(b, k), emit.real(0.0, FLOATS)) as each:
            raw.start = b.mul(each.index, i64(self.type.block_bytes))
            layout.pack(b, raw, lines)
            with emit.loop(b, i64(layout.groups), *each.values) as rounds:
                sums = list(rounds.values)
                first = b.mul(b.add(b.mul(each.index, i64(layout.groups)), rounds.index), i64(layout.blocks))
                layout.pack_round(b, raw, lines, rounds.index)
                for block in range(layout.blocks):
                    # Little by little: a CPU has room for one or two dozen lines on their way.
                    number = b.add(first, i64(block))
                    fetch(b, step(b, ahead, b.mul(number, i64(portion))), portion)
                    place = step(b, x, b.mul(number, i64(codes.block_bytes)))
                    words = self._packed_words(b, lines, rounds.index, block)
                    scales = self._scales(b, lines, rounds.index, block)
                    self._add_block(b, [place], [words], [scales], sums)
                rounds.carry(*sums)
            each.carry(*rounds.values)
        return each.values[0]

    def _scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """As they are multiplied."""
        scales = self.layout.scales(b, place, group, block)
        return scales if self.weighs else scales.spread(b)

    def _add_block(
        self,
        b: ir.IRBuilder,
        xs: Sequence[Value],
        words: Sequence[Callable[[int], Value]],
        scales: Sequence[Scales],
        sums: list[Value],
    ) -> None:
        """Add 32 inputs to the sums, in place; `sums` is indexed by panel, then token; words and scales by panel."""
        length = STEPS // self.layout.halves
        halves = [range(start, start + length) for start in range(0, STEPS, length)]
        if self.weighs:
            totals = [self._weighed_start(b, x, each.levels) for each in scales for x in xs]
            for half, steps in enumerate(halves):
                weights = [self.isa.weights(b, each.levels, half) for each in scales]
                totals = self._dots(b, xs, words, steps, totals, weights)
            parts = [totals]
        else:
            parts = []
            for half, steps in enumerate(halves):
                starts = [self._start(b, x, half) for x in xs] * len(words)
                parts.append(self._dots(b, xs, words, steps, starts, [()] * len(words)))
        for panel, each in enumerate(scales):
            for t, x in enumerate(xs):
                at = panel * len(xs) + t
                sums[at] = self._add(b, sums[at], [totals[at] for totals in parts], each, x)

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
        xs: Sequence[Value],
        words: Sequence[Callable[[int], Value]],
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
            if layout.table:
                operands = [isa.entries(b, word(i), layout.table) for word in words]
            else:
                operands = [isa.codes(b, word(i), self.bits) for word in words]
            for t, x in enumerate(xs):
                for plane, plane_totals in enumerate(reversed(totals)):  # the low plane, which is last, has the start
                    places = codes.words(plane, i)
                    inputs = isa.inputs(b, [splat(b, load(b, x, o, I32, align=4)) for o in places], self.bits)
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
