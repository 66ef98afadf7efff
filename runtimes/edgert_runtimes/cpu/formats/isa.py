"""Instruction sets: the few operations that the kernels of `formats` do differently on different CPUs.

A kernel is written once, over vectors of 16 lanes, and asks its `Isa` for the integer dot product and for the size of
the tile that fits the registers. EDGERT_CPU (avx512-vnni, avx-vnni, avx2 or portable) chooses one by name.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from edgert_models.errors import BackendError, RequestError
from edgert_quant.jit import Target, emit, host
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import I8, I16, I32, WORDS, Value, mask, shuffle

VARIABLE = "EDGERT_CPU"

Operand = tuple[Value, ...]
"""Vectors in the form that an instruction set multiplies; other modules only pass them on."""

BYTES = ir.VectorType(I8, 4 * LANES)
SHORTS = ir.VectorType(I16, 2 * LANES)
PRODUCTS = ir.VectorType(I32, 2 * LANES)


@dataclass(frozen=True)
class Tile:
    """How many accumulators stay in registers: `panels` of 16 rows, for each number of tokens in `tokens`.

    `tokens` falls and ends in 1, so that tiles of these heights cover any number of tokens.
    """

    panels: int
    tokens: tuple[int, ...]


class Isa(ABC):
    """One instruction set. Instances are stateless."""

    name: str

    @abstractmethod
    def runs_on(self, target: Target) -> bool:
        """Whether the CPU has every instruction this emits."""

    @abstractmethod
    def float_tile(self) -> Tile:
        """The tile of kernels with one float accumulator per panel and token."""

    @abstractmethod
    def code_tile(self, planes: int) -> Tile:
        """The tile of kernels with one float and `planes` integer accumulators per panel and token."""

    @abstractmethod
    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Words of four unsigned bytes, each below 2^bits, as an operand of `dot4`, made once for all tokens."""

    @abstractmethod
    def inputs(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Words of four signed bytes as an operand beside codes of `bits`, made once for all panels."""

    @abstractmethod
    def dot4(self, b: ir.IRBuilder, total: Value, codes: Operand, inputs: Operand) -> Value:
        """`total` + Σ of four products, lane by lane, exactly; the sums fit 32 bits."""


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


HALF_WORDS = ir.VectorType(I32, LANES // 2)
HALF_SHORTS = ir.VectorType(I16, LANES)
HALF_BYTES = ir.VectorType(I8, 2 * LANES)


def _halves(b: ir.IRBuilder, words: Value, kind: ir.VectorType) -> Operand:
    """The lower and the upper eight words, as another type of vector."""
    half = LANES // 2
    return tuple(b.bitcast(shuffle(b, words, words, range(first, first + half)), kind) for first in (0, half))


def _whole(b: ir.IRBuilder, halves: Sequence[Value]) -> Value:
    """Sixteen words out of two times eight."""
    low, high = halves
    return shuffle(b, low, high, range(LANES))


ISAS: tuple[Isa, ...] = (Avx512Vnni(), AvxVnni(), Avx2(), Portable())
"""Best first."""


def available() -> tuple[Isa, ...]:
    """The instruction sets this CPU runs, best first."""
    return tuple(isa for isa in ISAS if isa.runs_on(host()))


def host_isa() -> Isa:
    """The instruction set to use here: the best, or the one that EDGERT_CPU names."""
    return _chosen(os.environ.get(VARIABLE, "").strip().lower())


@cache
def _chosen(name: str) -> Isa:
    if not name:
        return available()[0]
    for isa in ISAS:
        if isa.name == name:
            if not isa.runs_on(host()):
                raise BackendError(f"{VARIABLE}={name}: this CPU ({host().cpu}) has no {name}; it runs {_names()}")
            return isa
    raise RequestError(f"{VARIABLE}={name} is unknown; this CPU runs {_names()}", parameter=VARIABLE)


def _names() -> str:
    return ", ".join(isa.name for isa in available())
