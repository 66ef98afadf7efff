"""x86-64: AVX2 and AVX-512, each with and without the dot product of bytes (VNNI).

LLVM's intrinsics are named after the instructions, which Intel's Intrinsics Guide defines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.isa.base import Isa, Operand, Tile, look_up_in_registers
from edgert_runtimes.cpu.formats.isa.portable import Portable
from edgert_runtimes.cpu.formats.vectors import I8, I16, I32, SHORTS, WORDS, Value, join, same, split

AVX2 = ("avx2", "fma")
AVX512 = ("avx512f", "avx512bw")

SHUFFLE = {1: ("llvm.x86.avx512.pshuf.b.512", 64), 2: ("llvm.x86.avx2.pshuf.b", 32)}
"""vpshufb, and the bytes of its registers, by the registers that 16 rows take."""


class Avx512Vnni(Isa):
    """AVX-512 with the dot product of bytes, vpdpbusd: 32 registers of 16 lanes."""

    name = "avx512-vnni"
    architecture = "x86_64"
    features = (*AVX512, "avx512vnni")
    row_parts = 2

    def float_tile(self) -> Tile:
        """24 accumulators."""
        return Tile(2, (12, 6, 4, 2, 1))

    def code_tile(self) -> Tile:
        """24 accumulators."""
        return Tile(2, (6, 4, 2, 1))

    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """64 bytes."""
        return _bytes(b, words, 1)

    def inputs(self, b: ir.IRBuilder, words: Sequence[Value], bits: int) -> Operand:
        """64 bytes."""
        return _bytes(b, words[0], 1)

    def look_up(self, b: ir.IRBuilder, words: Value, table: Sequence[int]) -> Value:
        """One instruction."""
        return look_up_in_registers(b, words, table, *SHUFFLE[1])

    def dot4(self, b: ir.IRBuilder, sums: Value, codes: Operand, inputs: Operand, bits: int) -> Value:
        """One vpdpbusd; it does not saturate."""
        return emit.call(b, "llvm.x86.avx512.vpdpbusd.512", WORDS, [sums, *codes, *inputs])


class AvxVnni(Isa):
    """The dot product of bytes in 256 bits, as CPUs without AVX-512 have it: 16 registers of 8 lanes."""

    name = "avx-vnni"
    architecture = "x86_64"
    features = (*AVX2, "avxvnni")
    row_parts = 1

    def float_tile(self) -> Tile:
        """Of 16 registers, 12 accumulate."""
        return Tile(1, (6, 4, 2, 1))

    def code_tile(self) -> Tile:
        """Of 16 registers, 8 to 12 accumulate."""
        return Tile(1, (3, 2, 1))

    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Bytes in two halves."""
        return _bytes(b, words, 2)

    def inputs(self, b: ir.IRBuilder, words: Sequence[Value], bits: int) -> Operand:
        """Bytes in two halves."""
        return _bytes(b, words[0], 2)

    def look_up(self, b: ir.IRBuilder, words: Value, table: Sequence[int]) -> Value:
        """Two instructions."""
        return look_up_in_registers(b, words, table, *SHUFFLE[2])

    def dot4(self, b: ir.IRBuilder, sums: Value, codes: Operand, inputs: Operand, bits: int) -> Value:
        """Two vpdpbusd."""
        halves = split(b, sums, LANES // 2)
        operands = zip(halves, codes, inputs, strict=True)
        return join(b, [emit.call(b, "llvm.x86.avx512.vpdpbusd.256", o[0].type, list(o)) for o in operands])


@dataclass(frozen=True)
class _PairSums:
    """`total` in 32 bits, and sums of pairs in 16 bits, if there are any: they have room for `room` more. `weights` is
    what they are multiplied by when they are widened.
    """

    total: Value
    weights: Operand
    pairs: Operand = ()
    room: int = 0


class _Pairs(Portable):
    """Bytes multiplied and added in pairs of 16 bits, vpmaddubsw, which saturates: pairs of b-bit codes and inputs are
    at most 256 (2^b - 1) large. As many as fit are added before vpmaddwd widens them. Two products of eight-bit codes
    do not fit: their inputs are 16-bit numbers, as in the portable form. Those of tables are multiplied as magnitudes
    of seven bits, with inputs that take over their signs: such operands hold magnitudes, then entries.
    """

    architecture = "x86_64"
    parts: int
    """Registers for 16 rows."""
    multiply: str
    widen: str

    def wide(self, bits: int) -> bool:
        """Eight-bit codes."""
        return bits == 8

    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Bytes, a register each."""
        return super().codes(b, words, bits) if self.wide(bits) else _bytes(b, words, self.parts)

    def inputs(self, b: ir.IRBuilder, words: Sequence[Value], bits: int) -> Operand:
        """Bytes, a register each."""
        return super().inputs(b, words, bits) if self.wide(bits) else _bytes(b, words[0], self.parts)

    def look_up(self, b: ir.IRBuilder, words: Value, table: Sequence[int]) -> Value:
        """An instruction a register."""
        return look_up_in_registers(b, words, table, *SHUFFLE[self.parts])

    def table_offset(self, table: Sequence[int]) -> int:
        """None for those that are multiplied with their signs."""
        return 0 if _signed(table) else super().table_offset(table)

    def table_bits(self, table: Sequence[int]) -> int:
        """Those of magnitudes where there are signs."""
        return 7 if _signed(table) else super().table_bits(table)

    def entries(self, b: ir.IRBuilder, words: Value, table: Sequence[int]) -> Operand:
        """Magnitudes and entries where there are signs."""
        if not _signed(table):
            return super().entries(b, words, table)
        entries = _bytes(b, self.look_up(b, words, table), self.parts)
        return (*(signs_of(b, entry, entry) for entry in entries), *entries)

    weighs = True

    def weights(self, b: ir.IRBuilder, words: Value) -> Operand:
        """A register each."""
        return tuple(split(b, b.bitcast(words, SHORTS), 2 * LANES // self.parts))

    def start(self, b: ir.IRBuilder, total: Value, weights: Operand = ()) -> _PairSums:
        """No pairs."""
        length = 2 * LANES // self.parts
        ones = ir.Constant(ir.VectorType(I16, length), [1] * length)
        return _PairSums(total, weights or (ones,) * self.parts)

    def dot4(self, b: ir.IRBuilder, sums: _PairSums, codes: Operand, inputs: Operand, bits: int) -> _PairSums:
        """Pairs are added to pairs while they fit."""
        if self.wide(bits):
            return _PairSums(super().dot4(b, sums.total, codes, inputs, bits), sums.weights)
        shorts = ir.VectorType(I16, 2 * LANES // self.parts)
        codes, signs = codes[: self.parts], codes[self.parts :]
        if signs:
            inputs = tuple(signs_of(b, x, sign) for x, sign in zip(inputs, signs, strict=True))
        operands = zip(codes, inputs, strict=True)
        pairs = tuple(emit.call(b, self.multiply, shorts, [x, y]) for x, y in operands)
        if sums.room:
            pairs = tuple(b.add(x, y) for x, y in zip(sums.pairs, pairs, strict=True))
            return _PairSums(sums.total, sums.weights, pairs, sums.room - 1)
        return _PairSums(self.total(b, sums), sums.weights, pairs, 0x7FFF // (256 * (2**bits - 1)) - 1)

    def total(self, b: ir.IRBuilder, sums: _PairSums) -> Value:
        """Pairs of pairs, in 32 bits."""
        if not sums.pairs:
            return sums.total
        words = ir.VectorType(I32, LANES // self.parts)
        operands = zip(sums.pairs, sums.weights, strict=True)
        return b.add(sums.total, join(b, [emit.call(b, self.widen, words, [x, y]) for x, y in operands]))


class Avx512(_Pairs):
    """AVX-512 without the dot product: 32 registers of 16 lanes."""

    name = "avx512"
    features = AVX512
    row_parts = 2
    parts = 1
    multiply = "llvm.x86.avx512.pmaddubs.w.512"
    widen = "llvm.x86.avx512.pmaddw.d.512"

    def float_tile(self) -> Tile:
        """24 accumulators."""
        return Tile(2, (12, 6, 4, 2, 1))

    def code_tile(self) -> Tile:
        """24 accumulators."""
        return Tile(2, (6, 4, 2, 1))


class Avx2(_Pairs):
    """AVX2: 16 registers of 8 lanes."""

    name = "avx2"
    features = AVX2
    row_parts = 1
    parts = 2
    multiply = "llvm.x86.avx2.pmadd.ub.sw"
    widen = "llvm.x86.avx2.pmadd.wd"

    def float_tile(self) -> Tile:
        """Of 16 registers, 12 accumulate."""
        return Tile(1, (6, 4, 2, 1))

    def code_tile(self) -> Tile:
        """Of 16 registers, 8 to 12 accumulate."""
        return Tile(1, (4, 2, 1))


def _signed(table: Sequence[int]) -> bool:
    """Whether the entries are too far apart for seven bits."""
    return max(table) - min(table) > 127


def signs_of(b: ir.IRBuilder, values: Value, signs: Value) -> Value:
    """Bytes, negated where those of `signs` are negative; where they are zero, anything. AVX-512 has no vpsignb."""
    if values.type.count == 32:
        return emit.call(b, "llvm.x86.avx2.psign.b", values.type, [values, signs])
    return b.select(b.icmp_signed("<", signs, same(signs, 0)), b.neg(values), values)


def _bytes(b: ir.IRBuilder, words: Value, parts: int) -> Operand:
    """The words' bytes, in some parts."""
    return tuple(split(b, b.bitcast(words, ir.VectorType(I8, 4 * LANES)), 4 * LANES // parts))
