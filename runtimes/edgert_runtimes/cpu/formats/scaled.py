"""Types whose scales are floats of their own for 32 weights, or 16: the kernels of blocks of 32, and of what is alike.

For output row i and a token:

    y_i = Σ_blocks d (Σ_halves f_i Σ (q - offset) c) - d m_i Σ c

where d is the scale of 32 inputs, f_i and m_i factor and minimum of the row's 32 weights (some types have factors for
every 16).
"""

from __future__ import annotations

from collections.abc import Sequence

from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.activations import BLOCK, Codes
from edgert_runtimes.cpu.formats.isa import Isa
from edgert_runtimes.cpu.formats.layout import STEPS, Layout, Scales
from edgert_runtimes.cpu.formats.loops import fetch_half
from edgert_runtimes.cpu.formats.quantized import ZEROS, BlockFormat, Words, halves_of_steps
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    I32,
    ROW_WORD,
    WORDS,
    Value,
    fused,
    i64,
    load,
    same,
    splat,
    step,
    store,
)


class ScaledBlocks(BlockFormat):
    """A type with float scales, for one instruction set. Panels have for every 32 weights the factors and the minimum,
    float32 of 16 rows, then eight words of codes.
    """

    codes: Codes

    def __init__(self, layout: Layout, isa: Isa, codes: Codes) -> None:
        self.codes = codes
        self.panel_stride = ROW_WORD * (layout.halves + layout.minima + STEPS)
        super().__init__(layout, isa, codes)

    def emit_part(self, b: ir.IRBuilder, lines: Value, panel: Value, index: Value, group: Value, block: int) -> None:
        """See BlockFormat."""
        place = step(b, panel, b.mul(self.number(b, index, group, block), i64(self.panel_stride)))
        scales = self.layout.scales(b, lines, group, block)
        self.store_part(b, place, [*scales.factors, *scales.minima], self.packed_words(b, lines, group, block))

    def emit_tile(
        self, b: ir.IRBuilder, panels: Sequence[Value], xs: Sequence[Value], k: Value, ahead: Value
    ) -> list[list[Value]]:
        """See Matmul."""
        halves, minima = self.layout.halves, self.layout.minima
        zero = emit.real(0.0, FLOATS)
        with emit.loop(b, b.sdiv(k, i64(BLOCK)), *[zero] * (len(panels) * len(xs))) as each:
            fetch_half(b, ahead, each.index, len(panels) * self.part_bytes)
            places = [step(b, panel, b.mul(each.index, i64(self.panel_stride))) for panel in panels]
            inputs = [step(b, x, b.mul(each.index, i64(self.codes.block_bytes))) for x in xs]
            sums = list(each.values)

            def row(place: Value, number: int, kind: ir.Type) -> Value:
                return load(b, place, ROW_WORD * number, kind, align=ROW_WORD)

            def words(place: Value) -> Words:
                return lambda number: row(place, halves + minima + number, WORDS)

            floats = [[row(place, i, FLOATS) for i in range(halves + minima)] for place in places]
            scales = [Scales(values[:halves], values[halves:]) for values in floats]
            self._add_block(b, inputs, [words(place) for place in places], scales, sums)
            each.carry(*sums)
        return [each.values[i * len(xs) : (i + 1) * len(xs)] for i in range(len(panels))]

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
        """See Matmul."""
        layout = self.layout
        with emit.loop(b, self.blocks(b, k), *[emit.real(0.0, FLOATS)] * len(xs)) as each:
            raw.start = b.mul(each.index, i64(self.type.block_bytes))
            layout.pack(b, raw, lines)
            with emit.loop(b, i64(layout.groups), *each.values) as rounds:
                sums = list(rounds.values)
                layout.pack_round(b, raw, lines, rounds.index)
                for block in range(layout.blocks):
                    self.fetch_part(b, ahead, each.index, rounds.index, block)
                    number = self.number(b, each.index, rounds.index, block)
                    places = [step(b, x, b.mul(number, i64(self.codes.block_bytes))) for x in xs]
                    words = self.packed_words(b, lines, rounds.index, block)
                    self._add_block(b, places, [words], [layout.scales(b, lines, rounds.index, block)], sums)
                rounds.carry(*sums)
            each.carry(*rounds.values)
        for y, total in zip(ys, each.values, strict=True):
            store(b, y, 0, total, align=4)

    def _add_block(
        self,
        b: ir.IRBuilder,
        xs: Sequence[Value],
        words: Sequence[Words],
        scales: Sequence[Scales],
        sums: list[Value],
    ) -> None:
        """Add 32 inputs to the sums, in place; `sums` is indexed by panel, then token; words and scales by panel."""
        parts = []
        for half, steps in enumerate(halves_of_steps(self.layout.halves)):
            starts = [self._start(b, x, half) for x in xs] * len(words)
            parts.append(self.dots(b, xs, words, steps, starts))
        for panel, each in enumerate(scales):
            for t, x in enumerate(xs):
                at = panel * len(xs) + t
                sums[at] = self._add(b, sums[at], [totals[at] for totals in parts], each, x)

    def _add(self, b: ir.IRBuilder, total: Value, parts: Sequence[Value], scales: Scales, x: Value) -> Value:
        """`total`, and the dot products of 32 inputs times their scales."""
        part = b.fmul(b.sitofp(parts[0], FLOATS), scales.factors[0])
        for more, factor in zip(parts[1:], scales.factors[1:], strict=True):
            part = fused(b, b.sitofp(more, FLOATS), factor, part)
        total = fused(b, part, splat(b, load(b, x, self.codes.scale, F32, align=4)), total)
        for minimum in scales.minima:
            total = fused(b, minimum, splat(b, load(b, x, self.codes.scaled_sum, F32, align=4)), total)
        return total

    def _start(self, b: ir.IRBuilder, x: Value, half: int) -> Value:
        """The sum to start from: - offset · Σ inputs, as far as the instruction set does not take it off itself."""
        if self.offset == 0:
            return ZEROS
        at = self.codes.sum if self.layout.halves == 1 else self.codes.half_sums[half]
        total = load(b, x, at, I32, align=4)
        return splat(b, b.mul(total, same(total, self.offset)))
