"""Types with super-blocks: 256 weights have one factor (and one for minima), and small integers, the levels, make of it
those of every 32 weights, or 16. Inputs come in blocks of 256 as well, with a scale and integers of it for every 32; so
a super-block is added up in integers.

For output row i and a token:

    y_i = Σ_blocks f_i d (Σ s Σ_halves l_i Σ (q - offset) c) - g_i d (Σ s Σ_halves m_i Σ c)

where f_i and g_i are the factors, l_i and m_i the levels of the row's weights, d is the scale of the inputs and s its
integer for 32 of them. Both sums fit 32 bits, and what is offset may overflow on the way: inputs are 127 at most, s is
16, and levels are 128 where codes less their offset are 32 (Q6_K), 32 where these are 127 (IQ4_XS).
"""

from __future__ import annotations

from collections.abc import Sequence

from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.activations import PARTS, SUPER_BLOCK, SuperCodes
from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa import Isa
from edgert_runtimes.cpu.formats.layout import STEPS, Layout
from edgert_runtimes.cpu.formats.loops import fetch_half
from edgert_runtimes.cpu.formats.quantized import ZEROS, BlockFormat, Words, halves_of_steps
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    I32,
    ROW_WORD,
    SHORTS,
    WORDS,
    Offset,
    Value,
    dot_halves,
    fused,
    halves_of,
    i64,
    load,
    multiply_halves,
    shuffle,
    splat,
    step,
    store,
)


class LeveledBlocks(BlockFormat):
    """A type with super-blocks, for one instruction set. Panels have for each of these the factor, that of the minima
    and eight words of their levels if there are any, then eight times a word of levels and eight of codes. A word of
    levels is two 16-bit numbers: those of the halves of 32 weights.
    """

    codes: SuperCodes

    def __init__(self, layout: Layout, isa: Isa, codes: SuperCodes) -> None:
        assert layout.type.block_size == SUPER_BLOCK
        self.codes = codes
        self.head_words = 1 + layout.minima * (1 + PARTS)
        self.panel_stride = ROW_WORD * (self.head_words + PARTS * (1 + STEPS))
        super().__init__(layout, isa, codes)

    def emit_head(self, b: ir.IRBuilder, lines: Value, panel: Value, index: Value) -> None:
        """See BlockFormat: the factors."""
        place, scales = step(b, panel, b.mul(index, i64(self.panel_stride))), self.layout.scales(b, lines, 0, 0)
        for i, value in enumerate([*scales.factors, *scales.minima]):
            store(b, place, ROW_WORD * i, value, align=ROW_WORD)

    def emit_part(self, b: ir.IRBuilder, lines: Value, panel: Value, index: Value, group: Value, block: int) -> None:
        """See BlockFormat."""
        head, number = step(b, panel, b.mul(index, i64(self.panel_stride))), self.number(b, 0, group, block)
        scales = self.layout.scales(b, lines, group, block)
        place = step(b, head, b.mul(number, i64(ROW_WORD * (1 + STEPS))))
        place = step(b, place, ROW_WORD * self.head_words)
        self.store_part(b, place, [scales.levels], self.packed_words(b, lines, group, block))
        if scales.minimum_levels is not None:
            place = step(b, head, b.mul(number, i64(ROW_WORD)))
            store(b, place, 2 * ROW_WORD, scales.minimum_levels, align=ROW_WORD)

    def emit_tile(
        self, b: ir.IRBuilder, panels: Sequence[Value], xs: Sequence[Value], k: Value, ahead: Value
    ) -> list[list[Value]]:
        """See Matmul."""
        count = len(panels) * len(xs)
        with emit.loop(b, b.sdiv(k, i64(SUPER_BLOCK)), *[emit.real(0.0, FLOATS)] * count) as each:
            heads = [step(b, panel, b.mul(each.index, i64(self.panel_stride))) for panel in panels]
            inputs = [step(b, x, b.mul(each.index, i64(self.codes.block_bytes))) for x in xs]

            def row(place: Value, number: int, kind: ir.Type = WORDS) -> Value:
                return load(b, place, ROW_WORD * number, kind, align=ROW_WORD)

            def words(place: Value) -> Words:
                return lambda number: row(place, 1 + number)

            with emit.loop(b, i64(PARTS), *[ZEROS] * count) as parts:
                number = b.add(b.mul(each.index, i64(PARTS)), parts.index)
                fetch_half(b, ahead, number, len(panels) * self.part_bytes)
                offset = b.mul(parts.index, i64(ROW_WORD * (1 + STEPS)))
                places = [step(b, step(b, head, offset), ROW_WORD * self.head_words) for head in heads]
                levels = [row(place, 0) for place in places]
                operands = [words(place) for place in places]
                parts.carry(*self._add_part(b, inputs, parts.index, operands, levels, parts.values))
            reals = self._scaled(b, parts.values, [row(head, 0, FLOATS) for head in heads])
            if self.layout.minima:
                with emit.loop(b, i64(PARTS), *[ZEROS] * count) as minima:
                    offset = b.mul(minima.index, i64(ROW_WORD))
                    levels = [row(step(b, head, offset), 2) for head in heads]
                    minima.carry(*self._add_minima(b, inputs, minima.index, levels, minima.values))
                reals = self._scaled(b, minima.values, [row(head, 1, FLOATS) for head in heads], reals)
            sums = self._summed(b, each.values, reals, inputs)
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
        layout, count = self.layout, len(xs)
        with emit.loop(b, self.blocks(b, k), *[emit.real(0.0, FLOATS)] * count) as each:
            raw.start = b.mul(each.index, i64(self.type.block_bytes))
            layout.pack(b, raw, lines)
            inputs = [step(b, x, b.mul(each.index, i64(self.codes.block_bytes))) for x in xs]
            with emit.loop(b, i64(layout.groups), *[ZEROS] * (count * (1 + layout.minima))) as rounds:
                totals, minima = list(rounds.values[:count]), list(rounds.values[count:])
                layout.pack_round(b, raw, lines, rounds.index)
                for block in range(layout.blocks):
                    self.fetch_part(b, ahead, each.index, rounds.index, block)
                    number = self.number(b, 0, rounds.index, block)
                    words = self.packed_words(b, lines, rounds.index, block)
                    scales = layout.scales(b, lines, rounds.index, block)
                    totals = self._add_part(b, inputs, number, [words], [scales.levels], totals)
                    if scales.minimum_levels is not None:
                        minima = self._add_minima(b, inputs, number, [scales.minimum_levels], minima)
                rounds.carry(*totals, *minima)
            scales = layout.scales(b, lines, 0, 0)
            reals = self._scaled(b, rounds.values[:count], scales.factors)
            if layout.minima:
                reals = self._scaled(b, rounds.values[count:], scales.minima, reals)
            each.carry(*self._summed(b, each.values, reals, inputs))
        for y, total in zip(ys, each.values, strict=True):
            store(b, y, 0, total, align=4)

    def _add_part(
        self,
        b: ir.IRBuilder,
        xs: Sequence[Value],
        number: Offset,
        words: Sequence[Words],
        levels: Sequence[Value],
        totals: Sequence[Value],
    ) -> list[Value]:
        """Totals, by panel and token, and 32 inputs more; `xs` are the blocks of inputs, `number` is that in them."""
        places = [step(b, x, b.mul(number, i64(self.codes.part))) for x in xs]
        totals = list(totals)
        if self.offset:
            offset = ir.Constant(WORDS, [self.offset] * LANES)
            totals = [b.add(total, b.mul(sums, offset)) for total, sums in self._by_sums(b, xs, number, levels, totals)]
        steps = [self._pair(b, x, self.codes.step_pairs, number) for x in xs]
        for half, numbers in enumerate(halves_of_steps(self.layout.halves)):
            alike = levels if self.layout.halves == 1 else [half_twice(b, each, half) for each in levels]
            weights = [multiply_halves(b, level, one) for level in alike for one in steps]
            if self.isa.weighs:
                operands = [self.isa.weights(b, weight) for weight in weights]
                totals = self.dots(b, places, words, numbers, totals, operands)
            else:
                factors = [halves_of(b, weight)[1] for weight in weights]
                products = self.dots(b, places, words, numbers, [ZEROS] * len(totals))
                totals = [b.add(t, b.mul(p, f)) for t, p, f in zip(totals, products, factors, strict=True)]
        return totals

    def _add_minima(
        self, b: ir.IRBuilder, xs: Sequence[Value], number: Offset, levels: Sequence[Value], totals: Sequence[Value]
    ) -> list[Value]:
        """Totals, and - s Σ level · Σ c of 32 inputs."""
        return [b.add(total, sums) for total, sums in self._by_sums(b, xs, number, levels, totals)]

    def _by_sums(
        self, b: ir.IRBuilder, xs: Sequence[Value], number: Offset, levels: Sequence[Value], totals: Sequence[Value]
    ) -> list[tuple[Value, Value]]:
        """Totals, each beside what levels and the sums of the inputs give."""
        sums = [self._pair(b, x, self.codes.sums, number) for x in xs]
        return list(zip(totals, [dot_halves(b, level, each) for level in levels for each in sums], strict=True))

    def _pair(self, b: ir.IRBuilder, x: Value, offset: int, number: Offset) -> Value:
        """Two 16-bit numbers of 32 inputs, in every lane."""
        return splat(b, load(b, step(b, x, b.mul(number, i64(4))), offset, I32, align=4))

    def _scaled(
        self, b: ir.IRBuilder, totals: Sequence[Value], factors: Sequence[Value], reals: Sequence[Value] = ()
    ) -> list[Value]:
        """Totals times the factors of their panels, and what there is already."""
        numbers = [b.sitofp(total, FLOATS) for total in totals]
        own = [factor for factor in factors for _ in range(len(totals) // len(factors))]
        if not reals:
            return [b.fmul(number, factor) for number, factor in zip(numbers, own, strict=True)]
        return [fused(b, *each) for each in zip(numbers, own, reals, strict=True)]

    def _summed(
        self, b: ir.IRBuilder, sums: Sequence[Value], reals: Sequence[Value], xs: Sequence[Value]
    ) -> list[Value]:
        """Sums, and what was scaled times the scales of the inputs."""
        scales = [splat(b, load(b, x, self.codes.scale, F32, align=4)) for x in xs]
        own = scales * (len(sums) // len(xs))
        return [fused(b, *each) for each in zip(reals, own, sums, strict=True)]


def half_twice(b: ir.IRBuilder, words: Value, half: int) -> Value:
    """One of the 16-bit numbers in each word, in both places."""
    numbers = b.bitcast(words, SHORTS)
    return b.bitcast(shuffle(b, numbers, numbers, [i // 2 * 2 + half for i in range(2 * LANES)]), WORDS)
