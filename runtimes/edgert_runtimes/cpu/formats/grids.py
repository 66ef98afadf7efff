"""The grids of the codebook types, for packing: the weights, without signs and scales, that an index stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgert_quant.blocks import BlockType
from edgert_quant.blocks.grids import grid_points
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import I32, WORDS, Value, add, i64, load, mask, same, shift_right


@dataclass(frozen=True)
class Grid:
    """The grid of a type: entries of four or eight weights."""

    type: BlockType

    def entries(self) -> Sequence[Sequence[int]]:
        """Every entry as words of four weights, a byte each: the number of its level among all levels, from the
        smallest.
        """
        words: list[list[int]] = grid_points(self.type).view("<u4").tolist()
        return words

    def look_up(self, b: ir.IRBuilder, index: Value) -> list[Value]:
        """The words of the entries that 16 rows name."""
        table, length = self._table(b.module)
        words = [ir.Constant(WORDS, ir.Undefined)] * length
        for lane in range(LANES):
            position = ir.Constant(I32, lane)
            offset = b.mul(b.zext(b.extract_element(index, position), i64(0).type), i64(4 * length))
            for i in range(length):
                word = load(b, table, add(b, offset, 4 * i), I32, align=4)
                words[i] = b.insert_element(words[i], word, position)
        return words

    def _table(self, module: ir.Module) -> tuple[ir.GlobalVariable, int]:
        """The entries as a constant of the module, and the words of each."""
        name = f"grid.{self.type.name.lower()}"
        entries = self.entries()
        if name not in module.globals:
            kind = ir.ArrayType(I32, len(entries[0]) * len(entries))
            table = ir.GlobalVariable(module, kind, name)
            table.initializer = ir.Constant(kind, [word for entry in entries for word in entry])
            table.global_constant = True
            table.linkage = "internal"
        return module.globals[name], len(entries[0])


def spread_signs(b: ir.IRBuilder, bits: Value) -> Value:
    """Bit i < 4 of each word → bit 0 of its byte i; other bits are ignored."""
    return mask(b, b.mul(mask(b, bits, 15), same(bits, 0x00204081)), 0x01010101)


def with_parity(b: ir.IRBuilder, signs: Value) -> Value:
    """Seven signs and the eighth, which makes the number of negative ones even."""
    signs = mask(b, signs, 0x7F)
    parity = b.xor(signs, shift_right(b, signs, 4))
    parity = b.xor(parity, shift_right(b, parity, 2))
    parity = mask(b, b.xor(parity, shift_right(b, parity, 1)), 1)
    return b.or_(signs, b.shl(parity, same(parity, 7)))
