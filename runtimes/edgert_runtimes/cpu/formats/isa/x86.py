"""x86-64: AVX2 and AVX-512, with and without the dot product of bytes (VNNI). Intrinsics as Intel's guide has them."""

from __future__ import annotations

from collections.abc import Sequence

from edgert_quant.jit import Target, emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa.base import Isa, Operand, Tile
from edgert_runtimes.cpu.formats.isa.portable import Portable
from edgert_runtimes.cpu.formats.vectors import I8, I16, I32, WORDS, Value, shuffle

BYTES = ir.VectorType(I8, 4 * LANES)
HALF_WORDS = ir.VectorType(I32, LANES // 2)
HALF_SHORTS = ir.VectorType(I16, LANES)
HALF_BYTES = ir.VectorType(I8, 2 * LANES)


class Avx512Vnni(Isa):
    """AVX-512 with the dot product of bytes, vpdpbusd: 32 registers of 16 lanes."""

    name = "avx512-vnni"

    def runs_on(self, target: Target) -> bool:
        """x86-64 with AVX-512 F, BW, VL and VNNI."""
        return target.triple.startswith("x86_64") and target.has("avx512f", "avx512bw", "avx512vl", "avx512vnni")

    def float_tile(self) -> Tile:
        """24 accumulators."""
        return Tile(2, (12, 6, 4, 2, 1))

    def code_tile(self, planes: int) -> Tile:
        """24 accumulators."""
        return Tile(2, (6, 4, 2, 1) if planes == 1 else (4, 2, 1))

    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """64 bytes."""
        return (b.bitcast(words, BYTES),)

    def inputs(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """64 bytes."""
        return (b.bitcast(words, BYTES),)

    def dot4(self, b: ir.IRBuilder, total: Value, codes: Operand, inputs: Operand) -> Value:
        """One vpdpbusd; it does not saturate."""
        return emit.call(b, "llvm.x86.avx512.vpdpbusd.512", WORDS, [total, *codes, *inputs])


class Avx2(Portable):
    """AVX2: bytes multiplied and added in pairs, vpmaddubsw; 16 registers of 8 lanes.

    Pairs of eight-bit codes could saturate (2 * 255 * 127 > 32767): they go the portable way.
    """

    name = "avx2"

    def runs_on(self, target: Target) -> bool:
        """x86-64 with AVX2 and FMA."""
        return target.triple.startswith("x86_64") and target.has("avx2", "fma")

    def float_tile(self) -> Tile:
        """Of 16 registers, 12 accumulate."""
        return Tile(1, (6, 4, 2, 1))

    def code_tile(self, planes: int) -> Tile:
        """Of 16 registers, 8 to 12 accumulate."""
        return Tile(1, (2, 1))

    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Bytes in two halves."""
        return super().codes(b, words, bits) if bits == 8 else _halves(b, words, HALF_BYTES)

    def inputs(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Bytes in two halves."""
        return super().inputs(b, words, bits) if bits == 8 else _halves(b, words, HALF_BYTES)

    def dot4(self, b: ir.IRBuilder, total: Value, codes: Operand, inputs: Operand) -> Value:
        """Pairs, then pairs of pairs."""
        if codes[0].type != HALF_BYTES:
            return super().dot4(b, total, codes, inputs)
        ones = ir.Constant(HALF_SHORTS, [1] * LANES)
        sums = []
        for x, y in zip(codes, inputs, strict=True):
            pairs = emit.call(b, "llvm.x86.avx2.pmadd.ub.sw", HALF_SHORTS, [x, y])
            sums.append(emit.call(b, "llvm.x86.avx2.pmadd.wd", HALF_WORDS, [pairs, ones]))
        return b.add(total, _whole(b, sums))


class AvxVnni(Isa):
    """The dot product of bytes in 256 bits, as CPUs without AVX-512 have it: 16 registers of 8 lanes."""

    name = "avx-vnni"

    def runs_on(self, target: Target) -> bool:
        """x86-64 with AVX2, FMA and AVX-VNNI."""
        return target.triple.startswith("x86_64") and target.has("avx2", "fma", "avxvnni")

    def float_tile(self) -> Tile:
        """Of 16 registers, 12 accumulate."""
        return Tile(1, (6, 4, 2, 1))

    def code_tile(self, planes: int) -> Tile:
        """Of 16 registers, 8 to 12 accumulate."""
        return Tile(1, (3, 2, 1) if planes == 1 else (2, 1))

    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Bytes in two halves."""
        return _halves(b, words, HALF_BYTES)

    def inputs(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Bytes in two halves."""
        return _halves(b, words, HALF_BYTES)

    def dot4(self, b: ir.IRBuilder, total: Value, codes: Operand, inputs: Operand) -> Value:
        """Two vpdpbusd."""
        totals = _halves(b, total, HALF_WORDS)
        operands = zip(totals, codes, inputs, strict=True)
        return _whole(b, [emit.call(b, "llvm.x86.avx512.vpdpbusd.256", HALF_WORDS, list(o)) for o in operands])


def _halves(b: ir.IRBuilder, words: Value, kind: ir.VectorType) -> Operand:
    """The lower and the upper eight words, as another type of vector."""
    half = LANES // 2
    return tuple(b.bitcast(shuffle(b, words, words, range(first, first + half)), kind) for first in (0, half))


def _whole(b: ir.IRBuilder, halves: Sequence[Value]) -> Value:
    """Sixteen words out of two times eight."""
    low, high = halves
    return shuffle(b, low, high, range(LANES))
