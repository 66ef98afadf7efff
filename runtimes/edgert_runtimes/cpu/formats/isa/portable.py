"""Any CPU."""

from __future__ import annotations

from edgert_quant.jit import Target, host
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa.base import Isa, Operand, Tile
from edgert_runtimes.cpu.formats.vectors import I16, I32, Value, mask, shuffle

SHORTS = ir.VectorType(I16, 2 * LANES)
PRODUCTS = ir.VectorType(I32, 2 * LANES)


class Portable(Isa):
    """Plain vectors that LLVM lowers on any CPU: bytes widened to 16 bits, products added in pairs.

    The pairs are written as LLVM recognizes them (pmaddwd on x86).
    """

    name = "portable"

    def runs_on(self, target: Target) -> bool:
        """Always."""
        return True

    def float_tile(self) -> Tile:
        """Sized for 16 registers of 256 bits, or 32 of 128; twice that with 512 bits."""
        return Tile(2, (8, 4, 2, 1)) if host().vector_bits >= 512 else Tile(1, (4, 2, 1))

    def code_tile(self, planes: int) -> Tile:
        """As `float_tile`, with the integer accumulators beside."""
        if host().vector_bits >= 512:
            return Tile(2, (4, 2, 1))
        return Tile(1, (2, 1))

    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Bytes 0 and 2, and bytes 1 and 3, as pairs of 16-bit numbers; widened, which costs no instruction."""
        odd = b.lshr(b.bitcast(words, SHORTS), same_short(8))
        return tuple(b.sext(v, PRODUCTS) for v in (b.bitcast(mask(b, words, 0x00FF00FF), SHORTS), odd))

    def inputs(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """As `codes`, with signs."""
        shorts = b.bitcast(words, SHORTS)
        even = b.ashr(b.shl(shorts, same_short(8)), same_short(8))
        return tuple(b.sext(v, PRODUCTS) for v in (even, b.ashr(shorts, same_short(8))))

    def dot4(self, b: ir.IRBuilder, total: Value, codes: Operand, inputs: Operand) -> Value:
        """Neighbouring products are added: (a, b)·(c, d) of 16-bit numbers is one instruction on many CPUs."""
        for x, y in zip(codes, inputs, strict=True):
            products = b.mul(x, y)
            even, odd = (shuffle(b, products, products, range(first, 2 * LANES, 2)) for first in (0, 1))
            total = b.add(total, b.add(even, odd))
        return total


def same_short(value: int) -> Value:
    """A number in 32 lanes of 16 bits."""
    return ir.Constant(SHORTS, [value] * (2 * LANES))
