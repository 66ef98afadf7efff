"""Instruction sets: the few operations that the kernels of `formats` do differently on different CPUs.

A kernel is written once, over vectors of 16 lanes, and asks its `Isa` for the integer dot product and for the size of
the tile that fits the registers. EDGERT_CPU=portable or avx512-vnni chooses one by name.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache

from edgert_models.errors import BackendError, RequestError
from edgert_quant.jit import Target, emit, host
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import I8, I16, I32, WORDS, Value, mask, shuffle

VARIABLE = "EDGERT_CPU"


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
    def dot4(self, b: ir.IRBuilder, total: Value, codes: Value, inputs: Value) -> Value:
        """`total` + Σ of four products, lane by lane, exactly: `codes` are words of four unsigned bytes, `inputs` words
        of four signed ones. The sums fit 32 bits.
        """


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

    def dot4(self, b: ir.IRBuilder, total: Value, codes: Value, inputs: Value) -> Value:
        """Bytes 0 and 2 of a word, then bytes 1 and 3, as pairs of 16-bit numbers."""
        shorts = ir.VectorType(I16, 2 * LANES)
        eight = ir.Constant(shorts, [8] * (2 * LANES))
        pairs = b.bitcast(inputs, shorts)
        even = _add_pairs(b, b.bitcast(mask(b, codes, 0x00FF00FF), shorts), b.ashr(b.shl(pairs, eight), eight))
        odd = _add_pairs(b, b.lshr(b.bitcast(codes, shorts), eight), b.ashr(pairs, eight))
        return b.add(total, b.add(even, odd))


def _add_pairs(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """Products of signed 16-bit numbers, neighbours added: 2n numbers → n words."""
    n = x.type.count // 2
    words = ir.VectorType(I32, n)
    products = [b.mul(*(b.sext(shuffle(b, v, v, range(first, 2 * n, 2)), words) for v in (x, y))) for first in (0, 1)]
    return b.add(*products)


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

    def dot4(self, b: ir.IRBuilder, total: Value, codes: Value, inputs: Value) -> Value:
        """One vpdpbusd; it does not saturate."""
        bytes_ = ir.VectorType(I8, 4 * LANES)
        operands = [total, b.bitcast(codes, bytes_), b.bitcast(inputs, bytes_)]
        return emit.call(b, "llvm.x86.avx512.vpdpbusd.512", WORDS, operands)


ISAS: tuple[Isa, ...] = (Avx512Vnni(), Portable())
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
