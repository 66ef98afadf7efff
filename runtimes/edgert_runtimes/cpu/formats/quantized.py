"""What the kernels of all block types share, written once over a `Layout` that says where scales and codes lie:
packing, unpacking, panels, and dot products of codes. How these are scaled and added up is in `scaled` and `leveled`.

Codes q of the weights are unsigned, codes c of the inputs signed. Where a type has a table, q is what stands in it for
the stored code. Sums over codes are exact integers; floats are added block after block, in every kernel alike.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

from edgert_quant.jit import emit, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import activations, base, loops, rows, vectors
from edgert_runtimes.cpu.formats.activations import BLOCK, Blocks
from edgert_runtimes.cpu.formats.base import LANES, PANEL_ALIGNMENT, Format
from edgert_runtimes.cpu.formats.isa import SOURCES as ISA_SOURCES
from edgert_runtimes.cpu.formats.isa import Isa, Operand
from edgert_runtimes.cpu.formats.layout import STEPS, Layout
from edgert_runtimes.cpu.formats.loops import Matmul, emit_gemm, for_any_rows
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    I8,
    I32,
    ROW_WORD,
    WORDS,
    Offset,
    Value,
    fetch,
    i64,
    join,
    load,
    look_up,
    pointer,
    same,
    splat,
    step,
    store,
)

SOURCES = (activations, base, emit, *ISA_SOURCES, loops, rows, vectors)
"""The modules that the kernels are emitted by, beside those of the format and its layout."""

STREAMS = (1, 2, 4, 6, 8)
"""For up to so many tokens, blocks of 16 rows are put side by side and used at once: packing whole panels takes
longer.
"""

ZEROS = ir.Constant(WORDS, [0] * LANES)

Words = Callable[[int], Value]
"""Words of four codes of 32 weights of 16 rows, by their number."""


def multiplied_bits(layout: Layout, isa: Isa) -> int:
    """Of the codes that an instruction set multiplies."""
    return isa.table_bits(layout.table) if layout.table else layout.bits


def modules_of(*objects: object) -> Iterator[ModuleType]:
    """The modules of some objects' classes, and those of the package that these take names from."""
    names = [type(each).__module__ for each in objects]
    for name in names:  # it grows
        yield sys.modules[name]
        origins = (getattr(value, "__module__", None) or "" for value in vars(sys.modules[name]).values())
        names += dict.fromkeys(n for n in origins if n.startswith(f"{__package__}.") and n not in names)


def blocks_of(b: ir.IRBuilder, layout: Layout, k: Value) -> Value:
    """How many the file has for k weights."""
    return b.sdiv(k, i64(layout.type.block_size))


def number_of(b: ir.IRBuilder, layout: Layout, index: Offset, group: Offset, block: int) -> Value:
    """Of 32 weights in their rows, by that of their block, their round and their place in it."""
    first = b.mul(b.add(b.mul(i64(index), i64(layout.groups)), i64(group)), i64(layout.blocks))
    return b.add(first, i64(block))


class BlockFormat(Format, Matmul):
    """A block type, for one instruction set."""

    activation: Blocks
    panel_stride: int
    """Bytes that as many weights of 16 rows as the inputs have in a block take in the panels of `emit_panel`."""

    def __init__(self, layout: Layout, isa: Isa, codes: Blocks) -> None:
        self.type = layout.type
        self.layout = layout
        self.isa = isa
        self.activation = codes
        self.line_bytes = -(-layout.bytes // PANEL_ALIGNMENT) * PANEL_ALIGNMENT
        self.bits = multiplied_bits(layout, isa)
        self.offset = (isa.table_offset(layout.table) if layout.table else layout.offset) - isa.bias(self.bits)
        name = f"{self.type.name.lower()}.{{}}"
        sources = (*SOURCES, *modules_of(layout))
        matmul = f"gemm.{codes.name}.{isa.name}"
        self.pack = ir_kernel(name=name.format("pack"), key=sources)(_pack_kernel(layout))
        self.unpack_row = ir_kernel(name=name.format("unpack_row"), key=sources)(_unpack_kernel(layout))
        self.gemm = ir_kernel(name=name.format(matmul), key=(*sources, *modules_of(self), matmul))(self._gemm_kernel())

    @property
    def streams(self) -> tuple[int, ...]:  # type: ignore[override]  # it is no variable
        """As many tokens as registers hold sums for: a float each, and an integer or two where types have levels."""
        tile, layout = self.isa.code_tile(), self.layout
        if layout.slow:
            return STREAMS[:1]
        most = tile.panels * tile.tokens[0] // (1 + layout.leveled + layout.leveled * layout.minima)
        return tuple(count for count in STREAMS if count <= max(2, most))

    def panel_bytes(self, k: int) -> int:
        """`k` is a multiple of the type's block size."""
        size = k // self.type.block_size * self.layout.bytes
        return -(-size // PANEL_ALIGNMENT) * PANEL_ALIGNMENT

    def scratch_bytes(self, k: int) -> int:
        """As `panel_bytes`; the panels of `gemm` are those of `emit_panel`."""
        panels = self.isa.code_tile().panels
        return self.line_bytes + panels * k // self.activation.block * self.panel_stride

    def blocks(self, b: ir.IRBuilder, k: Value) -> Value:
        """How many the file has for k weights."""
        return blocks_of(b, self.layout, k)

    def emit_row_bytes(self, b: ir.IRBuilder, k: Value) -> Value:
        """See Matmul."""
        return b.mul(self.blocks(b, k), i64(self.type.block_bytes))

    def emit_panel_bytes(self, b: ir.IRBuilder, k: Value) -> Value:
        """See Matmul."""
        return b.mul(b.sdiv(k, i64(self.activation.block)), i64(self.panel_stride))

    def emit_panel(self, b: ir.IRBuilder, raw: RawRows, ahead: Value, k: Value, lines: Value, panel: Value) -> None:
        """See Matmul. What tile after tile would compute again is computed here; codes are one a byte."""
        layout = self.layout
        with emit.loop(b, self.blocks(b, k)) as each:
            raw.start = b.mul(each.index, i64(self.type.block_bytes))
            layout.pack(b, raw, lines)
            self.emit_head(b, lines, panel, each.index)
            with emit.loop(b, i64(layout.groups)) as rounds:
                layout.pack_round(b, raw, lines, rounds.index)
                for block in range(layout.blocks):
                    self.fetch_part(b, ahead, each.index, rounds.index, block, share=2)
                    self.emit_part(b, lines, panel, each.index, rounds.index, block)

    def fetch_part(self, b: ir.IRBuilder, ahead: Value, index: Value, group: Value, block: int, share: int = 1) -> None:
        """Fetch as much as 32 weights of 16 rows take, or a part of it. Little by little: a CPU has room for some dozen
        lines on their way.
        """
        portion = self.part_bytes // share
        fetch(b, step(b, ahead, b.mul(self.number(b, index, group, block), i64(portion))), portion)

    @property
    def part_bytes(self) -> int:
        """Of 32 weights of 16 rows, in the file."""
        return LANES * self.type.block_bytes // (self.layout.groups * self.layout.blocks)

    def emit_head(self, b: ir.IRBuilder, lines: Value, panel: Value, index: Value) -> None:
        """Move to a panel what a whole block of the file, the `index`-th, has in common, out of `lines`."""

    @abstractmethod
    def emit_part(self, b: ir.IRBuilder, lines: Value, panel: Value, index: Value, group: Value, block: int) -> None:
        """Move 32 weights of the block, their factors and codes."""

    def number(self, b: ir.IRBuilder, index: Offset, group: Offset, block: int) -> Value:
        """Of 32 weights in their rows."""
        return number_of(b, self.layout, index, group, block)

    def packed_words(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Words:
        """Those of 32 weights, out of a packed block."""

        def word(offset: Offset) -> Value:
            return load(b, place, offset, WORDS, align=self.layout.alignment)

        return lambda number: self.layout.codes(b, word, group, block, number)

    def store_part(self, b: ir.IRBuilder, place: Value, factors: Sequence[Value], words: Words) -> None:
        """Vectors of 16 rows: some, and the words of the codes."""
        for i, value in enumerate([*factors, *map(words, range(STEPS))]):
            store(b, place, ROW_WORD * i, value, align=ROW_WORD)

    def _gemm_kernel(self) -> Callable[..., None]:
        def gemm(
            b: ir.IRBuilder, rows: Value, n_rows: Value, xs: Value, ys: Value, n_tokens: Value, k: Value, scratch: Value
        ) -> None:
            emit_gemm(b, self, self.isa.code_tile(), rows, n_rows, xs, ys, n_tokens, k, scratch)

        return gemm

    def dots(
        self,
        b: ir.IRBuilder,
        xs: Sequence[Value],
        words: Sequence[Words],
        steps: range,
        starts: Sequence[Value],
        weights: Sequence[Operand] = (),
    ) -> list[Value]:
        """Σ code · input over some words of 32 weights, times weights if there are any, added to `starts`: exact
        integers. All are indexed by panel, then token.
        """
        layout, isa = self.layout, self.isa
        totals = [isa.start(b, start, *weights[at : at + 1]) for at, start in enumerate(starts)]
        for i in steps:
            if layout.table:
                operands = [isa.entries(b, word(i), layout.table) for word in words]
            else:
                operands = [isa.codes(b, word(i), self.bits) for word in words]
            places = self.activation.words(i)
            for t, x in enumerate(xs):
                inputs = isa.inputs(b, [splat(b, load(b, x, o, I32, align=4)) for o in places], self.bits)
                for p, operand in enumerate(operands):
                    at = p * len(xs) + t
                    totals[at] = isa.dot4(b, totals[at], operand, inputs, self.bits)
        return [isa.total(b, sums) for sums in totals]


def halves_of_steps(halves: int) -> list[range]:
    """The numbers of the words of 32 weights, in one part or two."""
    length = STEPS // halves
    return [range(start, start + length) for start in range(0, STEPS, length)]


def _pack_kernel(layout: Layout) -> Callable[..., None]:
    def pack(b: ir.IRBuilder, source: Value, stride: Value, n_rows: Value, k: Value, out: Value) -> None:
        def blocks(raw: RawRows) -> None:
            with emit.loop(b, blocks_of(b, layout, k)) as each:
                raw.start = b.mul(each.index, i64(layout.type.block_bytes))
                place = step(b, pointer(b, out), b.mul(each.index, i64(layout.bytes)))
                layout.pack(b, raw, place)
                with emit.loop(b, i64(layout.groups)) as rounds:
                    layout.pack_round(b, raw, place, rounds.index)

        for_any_rows(b, pointer(b, source), stride, n_rows, blocks)

    return pack


def _unpack_kernel(layout: Layout) -> Callable[..., None]:
    def unpack_row(b: ir.IRBuilder, address: Value, lane: Value, k: Value, out: Value) -> None:
        with emit.loop(b, blocks_of(b, layout, k)) as each:
            place = step(b, pointer(b, address), b.mul(each.index, i64(layout.bytes)))
            with emit.loop(b, i64(layout.groups)) as rounds:
                for block in range(layout.blocks):
                    values = _unpack_block(b, layout, place, rounds.index, block, lane)
                    number = number_of(b, layout, each.index, rounds.index, block)
                    store(b, pointer(b, out), b.mul(number, i64(4 * BLOCK)), values, align=4)

    return unpack_row


def _unpack_block(b: ir.IRBuilder, layout: Layout, place: Value, group: Value, block: int, lane: Value) -> Value:
    """32 weights of one row: factor · (code - offset) - minimum; the products are exact."""
    column = step(b, place, b.shl(lane, i64(2)))

    def word(offset: Offset) -> Value:
        return load(b, column, offset, I32, align=4)

    words = ir.Constant(ir.VectorType(I32, STEPS), ir.Undefined)
    for i in range(STEPS):
        codes = layout.codes(b, word, group, block, i)
        words = b.insert_element(words, codes, ir.Constant(I32, i))
    wide = ir.VectorType(I32, BLOCK)
    stored = b.bitcast(words, ir.VectorType(I8, BLOCK))
    if layout.table:
        codes = b.sext(look_up(b, stored, layout.table), wide)
    else:
        codes = b.zext(stored, wide)
        codes = b.sub(codes, same(codes, layout.offset))
    codes = b.sitofp(codes, ir.VectorType(F32, BLOCK))
    scales = layout.scales(b, place, group, block).spread(b)
    factor, *minima = (_of_row(b, values, lane) for values in (scales.factors, scales.minima) if values)
    if scales.shift is not None:
        return b.fmul(factor, b.fadd(codes, _of_row(b, [scales.shift], lane)))
    values = b.fmul(factor, codes)
    return b.fsub(values, minima[0]) if minima else values


def _of_row(b: ir.IRBuilder, values: Sequence[Value], lane: Value) -> Value:
    """One number, or one for each half, spread over the 32 weights of a row."""
    parts = [splat(b, b.extract_element(value, lane)) for value in values]
    return join(b, parts if len(parts) == 2 else parts * 2)
