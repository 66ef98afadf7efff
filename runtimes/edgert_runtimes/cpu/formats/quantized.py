"""The kernels of all block types, written once over a `Layout` that says where scales and codes lie.

For output row i and a token, with codes q (unsigned) of the weights and codes c of the inputs:

    y_i = Σ_blocks d (Σ_halves f_i Σ (q - offset) c) - d m_i Σ c

where d is the scale of 32 inputs, f_i and m_i factor and minimum of the row's 32 weights (two of them where a type
has them for every 16). Where a type has a table, q is what stands in it for the stored code. Sums over codes are exact
integers; the floats are added block after block, in every kernel alike.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import activations, base, loops, rows, vectors
from edgert_runtimes.cpu.formats.activations import BLOCK, Codes
from edgert_runtimes.cpu.formats.base import LANES, PANEL_ALIGNMENT, Format
from edgert_runtimes.cpu.formats.isa import SOURCES as ISA_SOURCES
from edgert_runtimes.cpu.formats.isa import Isa
from edgert_runtimes.cpu.formats.loops import Matmul, emit_gemm, for_any_rows
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    I8,
    I32,
    LINE,
    ROW_WORD,
    WORDS,
    Offset,
    Value,
    add,
    fetch,
    fused,
    i64,
    join,
    load,
    look_up,
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


@dataclass(frozen=True)
class Scales:
    """Of 32 weights of 16 rows: one factor, or one for each 16, and as many minima to subtract, or none.

    `shift` says that the minima are factor · -shift: unpacked weights are factor · (code - offset + shift), whose zeros
    have signs of their own.
    """

    factors: Sequence[Value]
    minima: Sequence[Value] = ()
    shift: Value | None = None


Word = Callable[[Offset], Value]
"""Reads the word(s) at an offset of the block: of all 16 rows in a matmul, of one row when unpacking."""


class Layout(ABC):
    """How the blocks of one type lie in a panel: one behind the other, each `bytes` for 16 rows, scales first.

    A block of the file is walked in `groups` rounds of `blocks` times 32 weights.
    """

    type: BlockType
    bytes: int
    alignment: int = 32
    """Of the blocks and the codes in them; divides `bytes`."""
    bits: int
    """Of a code: all are below 2^bits."""
    groups: int = 1
    blocks: int = 1
    halves: int = 1
    offset: int = 0
    """The codes are so much too large."""
    minima: int = 0
    """Of 32 weights."""
    table: tuple[int, ...] = ()
    """What the codes, then indices of up to four bits, stand for; empty: they are numbers themselves."""

    @abstractmethod
    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Move one block of 16 rows from the file's layout to ours, but for what `pack_round` moves."""

    def pack_round(self, b: ir.IRBuilder, raw: RawRows, place: Value, group: Offset) -> None:  # noqa: B027
        """Move what only one round needs; long blocks are better not moved in one go."""

    @abstractmethod
    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """Of the 32 weights `block` in round `group`."""

    @abstractmethod
    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Codes 4 number … 4 number + 3 of those 32 weights, as words of four unsigned bytes."""


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
        self.block_bytes = ROW_WORD * (layout.halves + layout.minima + STEPS)
        self.bits = multiplied_bits(layout, isa)
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
                    scales = layout.scales(b, lines, rounds.index, block)
                    for i, value in enumerate((*scales.factors, *scales.minima)):
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
        scales = self.layout.scales(b, place, group, block)
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
        factors, minima = self.layout.halves, self.layout.minima
        with emit.loop(b, b.lshr(k, i64(5)), *[zero] * (len(panels) * len(xs))) as each:
            places = [step(b, panel, b.mul(each.index, i64(self.block_bytes))) for panel in panels]
            inputs = [step(b, x, b.mul(each.index, i64(self.codes.block_bytes))) for x in xs]
            sums = list(each.values)

            def row(place: Value, number: int, kind: ir.Type) -> Value:
                return load(b, place, ROW_WORD * number, kind, align=ROW_WORD)

            def words(place: Value) -> Callable[[int], Value]:
                return lambda number: row(place, factors + minima + number, WORDS)

            def scales(place: Value) -> Scales:
                values = [row(place, i, FLOATS) for i in range(factors + minima)]
                return Scales(values[:factors], values[factors:])

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
                    fetch(b, ahead, b.mul(number, i64(portion)), -(-portion // LINE))
                    place = step(b, x, b.mul(number, i64(codes.block_bytes)))
                    words = self._packed_words(b, lines, rounds.index, block)
                    scales = layout.scales(b, lines, rounds.index, block)
                    self._add_block(b, [place], [words], [scales], sums)
                rounds.carry(*sums)
            each.carry(*rounds.values)
        return each.values[0]

    def _add_block(
        self,
        b: ir.IRBuilder,
        xs: Sequence[Value],
        words: Sequence[Callable[[int], Value]],
        scales: Sequence[Scales],
        sums: list[Value],
    ) -> None:
        """Add 32 inputs to the sums, in place; `sums` is indexed by panel, then token; words and scales by panel."""
        layout, codes = self.layout, self.codes
        parts: list[list[Value]] = []
        for half in range(layout.halves):
            steps = range(half * STEPS // layout.halves, (half + 1) * STEPS // layout.halves)
            parts.append(self._dots(b, xs, words, steps, half))
        for panel, found in enumerate(scales):
            for t, x in enumerate(xs):
                at = panel * len(xs) + t
                part = b.fmul(b.sitofp(parts[0][at], FLOATS), found.factors[0])
                for more, factor in zip(parts[1:], found.factors[1:], strict=True):
                    part = fused(b, b.sitofp(more[at], FLOATS), factor, part)
                if len(found.minima) == 2:
                    for minimum, offset in zip(found.minima, codes.half_sums, strict=True):
                        total = splat(b, b.sitofp(load(b, x, offset, I32, align=4), F32))
                        part = fused(b, minimum, total, part)
                sums[at] = fused(b, part, splat(b, load(b, x, codes.scale, F32, align=4)), sums[at])
                if len(found.minima) == 1:
                    total = splat(b, load(b, x, codes.scaled_sum, F32, align=4))
                    sums[at] = fused(b, found.minima[0], total, sums[at])

    def _dots(
        self, b: ir.IRBuilder, xs: Sequence[Value], words: Sequence[Callable[[int], Value]], steps: range, half: int
    ) -> list[Value]:
        """Σ (code - offset) · input over some words of a block, by panel and token: exact integers."""
        layout, codes, isa = self.layout, self.codes, self.isa
        totals = [[isa.start(b, self._start(b, x, half)) for _ in words for x in xs]]
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
        table = self.layout.table
        offset = self.isa.table_offset(table) if table else self.layout.offset
        offset -= self.isa.bias(self.bits)
        if offset == 0:
            return ir.Constant(WORDS, [0] * LANES)
        at = self.codes.sum if self.layout.halves == 1 else self.codes.half_sums[half]
        total = load(b, x, at, I32, align=4)
        return splat(b, b.mul(total, same(total, offset)))
