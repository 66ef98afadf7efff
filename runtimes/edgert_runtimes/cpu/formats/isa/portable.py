"""Any CPU that LLVM compiles for."""

from __future__ import annotations

from collections.abc import Sequence

from edgert_quant.jit import host
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa.base import Isa, Operand, Tile, look_up_in_registers
from edgert_runtimes.cpu.formats.vectors import I8, I32, SHORTS, Value, look_up, mask, same, shuffle

PRODUCTS = ir.VectorType(I32, 2 * LANES)


class Portable(Isa):
    """Plain vectors that LLVM lowers on any CPU: 16-bit numbers, multiplied and added in pairs.

    The pairs are written as LLVM recognizes them (pmaddwd on x86).
    """

    name = "portable"

    def float_tile(self) -> Tile:
        """Sized for 16 registers of 256 bits, or 32 of 128; twice that with 512 bits, half of it with 16 of 128."""
        return {512: Tile(2, (8, 4, 2, 1)), 256: Tile(1, (4, 2, 1)), 128: Tile(1, (2, 1))}[_vector_bits()]

    def code_tile(self) -> Tile:
        """As `float_tile`, with the integer accumulators beside."""
        return {512: Tile(2, (4, 2, 1)), 256: Tile(1, (2, 1)), 128: Tile(1, (1,))}[_vector_bits()]

    def wide(self, bits: int) -> bool:
        """Always."""
        return True

    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Bytes 0 and 2, and bytes 1 and 3, as pairs of 16-bit numbers; widened, which costs no instruction."""
        shorts = b.bitcast(words, SHORTS)
        return tuple(b.sext(v, PRODUCTS) for v in (mask(b, shorts, 0xFF), b.lshr(shorts, same(shorts, 8))))

    def inputs(self, b: ir.IRBuilder, words: Sequence[Value], bits: int) -> Operand:
        """Pairs of 16-bit numbers, widened as well."""
        return tuple(b.sext(b.bitcast(word, SHORTS), PRODUCTS) for word in words)

    def look_up(self, b: ir.IRBuilder, words: Value, table: Sequence[int]) -> Value:
        """By the instruction for it where there is one: all but the oldest x86-64 and every aarch64 CPU have it."""
        target = host()
        if target.has("ssse3"):
            return look_up_in_registers(b, words, table, "llvm.x86.ssse3.pshuf.b.128")
        if target.triple.startswith("aarch64"):
            return look_up_in_registers(b, words, table, "llvm.aarch64.neon.tbl1.v16i8")
        return b.bitcast(look_up(b, b.bitcast(words, ir.VectorType(I8, 4 * LANES)), table), words.type)

    def dot4(self, b: ir.IRBuilder, sums: Value, codes: Operand, inputs: Operand, bits: int) -> Value:
        """Neighbouring products are added: (a, b)·(c, d) of 16-bit numbers is one instruction on many CPUs."""
        for x, y in zip(codes, inputs, strict=True):
            products = b.mul(x, y)
            even, odd = (shuffle(b, products, products, range(first, 2 * LANES, 2)) for first in (0, 1))
            sums = b.add(sums, b.add(even, odd))
        return sums


def _vector_bits() -> int:
    """Of registers, if they were sixteen: 32 of 128 bits are as good as 16 of 256."""
    target = host()
    return target.vector_bits if target.triple.startswith("x86_64") else 256
