"""NEON, with the dot products of bytes: 32 registers of 128 bits, so that 16 lanes take four.

LLVM's intrinsics are named after the instructions, which Arm's Architecture Reference Manual defines.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa.base import Isa, Operand, Tile, look_up_in_registers
from edgert_runtimes.cpu.formats.vectors import I8, Value, join, same, split

QUARTER = LANES // 4
TABLE = "llvm.aarch64.neon.tbl1.v16i8"


class NeonDot(Isa):
    """The dot product of signed bytes, sdot. Codes of seven bits are signed bytes as they are; of those of eight, 128
    is taken off.
    """

    name = "neon-dotprod"
    architecture = "aarch64"
    features: tuple[str, ...] = ("neon", "dotprod")
    instruction = "llvm.aarch64.neon.sdot.v4i32.v16i8"

    def float_tile(self) -> Tile:
        """24 registers accumulate."""
        return Tile(1, (6, 4, 2, 1))

    def code_tile(self) -> Tile:
        """16 to 24 registers accumulate."""
        return Tile(1, (3, 2, 1))

    def bias(self, bits: int) -> int:
        """What makes codes signed."""
        return 128 if bits == 8 else 0

    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Signed bytes in four quarters."""
        codes = b.bitcast(words, ir.VectorType(I8, 4 * LANES))
        if self.bias(bits):
            codes = b.xor(codes, same(codes, -128))
        return tuple(split(b, codes, LANES))

    def inputs(self, b: ir.IRBuilder, words: Sequence[Value], bits: int) -> Operand:
        """Bytes of one quarter: all lanes are alike."""
        quarter = split(b, words[0], QUARTER)[0]
        return (b.bitcast(quarter, ir.VectorType(I8, LANES)),)

    def look_up(self, b: ir.IRBuilder, words: Value, table: Sequence[int]) -> Value:
        """Four instructions."""
        return look_up_in_registers(b, words, table, TABLE)

    def table_offset(self, table: Sequence[int]) -> int:
        """None: entries are signed bytes, and so multiplied."""
        return 0

    def table_bits(self, table: Sequence[int]) -> int:
        """As of signed bytes."""
        return 7

    def dot4(self, b: ir.IRBuilder, sums: Value, codes: Operand, inputs: Operand, bits: int) -> Value:
        """Four instructions."""
        parts = zip(split(b, sums, QUARTER), codes, strict=True)
        return join(b, [emit.call(b, self.instruction, part.type, [part, code, *inputs]) for part, code in parts])


class NeonMixedDot(NeonDot):
    """With i8mm, the dot product of unsigned and signed bytes, usdot, so that codes of eight bits need no change.

    Its matrix products (usmmla: two rows, two tokens, eight inputs) do twice the work of one usdot, but on operands of
    two steps and two tokens and into sums of two rows and two tokens side by side: every word would be interleaved
    with its neighbour, and the sums of every 32 inputs put in order again before the scales. Counting instructions for
    tiles of two tokens, 88 would become 64, in prefill only; kernels over single tokens and steps stay with usdot.
    """

    name = "neon-i8mm"
    features = ("neon", "dotprod", "i8mm")
    instruction = "llvm.aarch64.neon.usdot.v4i32.v16i8"

    def bias(self, bits: int) -> int:
        """None."""
        return 0

    def table_offset(self, table: Sequence[int]) -> int:
        """Codes are unsigned."""
        return Isa.table_offset(self, table)
