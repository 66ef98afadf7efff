"""How the inputs of matmuls are stored: float32 as they are, or blocks of 32 small integers with one float scale.

A block of 32 inputs x with scale d:

    q8    32 codes q int8;                 x ≈ d q,            d = max|x| / 127
    q8x2  32 high codes h, 32 low codes l; x ≈ d (256 h + l),  d = max|x| / 32512; 16-bit precision for two dot products
    q8w   as q8, the codes int16 in the order 0 2 1 3, 4 6 5 7, …
    q16w  q = 256 h + l of q8x2 as int16 in that order; both are for instruction sets that multiply 16-bit numbers

then float d, float -d Σq, int32 -Σq, and int32 -Σq of the first and of the second 16 (q = 256 h + l for q8x2). The
sums serve formats with minima, and those whose stored codes are offset to be unsigned.
"""

from __future__ import annotations

import math
from functools import cache

from edgert_quant.jit import Kernel, emit, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.formats import base, vectors
from edgert_runtimes.cpu.formats.base import Activation
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    I8,
    I16,
    I32,
    Value,
    i64,
    load,
    mask,
    pointer,
    same,
    shuffle,
    step,
    store,
)

BLOCK = 32
SMALLEST = 2.0**-100
"""Blocks whose largest input is smaller count as zeros: their scale would not be a normal number."""

LEVELS = {"q8": 127, "q8w": 127, "q8x2": 127 * 256, "q16w": 127 * 256}
"""The largest code."""

ROUNDER = 1.5 * 2**23
ROUNDER_BITS = 0x4B400000


class Float32(Activation):
    """The float32 row itself."""

    name = "f32"
    direct = True

    def __init__(self) -> None:
        @ir_kernel(name="activation.f32")
        def quantize(b: ir.IRBuilder, x: Value, out: Value, k: Value) -> None:
            target, source = pointer(b, out), pointer(b, x)
            size = b.shl(k, i64(2))
            emit.call(b, "llvm.memcpy.p0.p0.i64", ir.VoidType(), [target, source, size, emit.integer(1, 0)])

        self.quantize = quantize

    def bytes(self, k: int) -> int:
        """Four bytes an input."""
        return 4 * k


class Codes(Activation):
    """Blocks of 32 codes, as 16-bit numbers (`wide`) or in `planes` of bytes; see the module. Offsets are bytes from
    the start of a block.
    """

    direct = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.levels = LEVELS[name]
        self.wide = name.endswith("w")
        self.planes = 2 if name == "q8x2" else 1
        self.scale = BLOCK * (2 if self.wide else self.planes)
        self.scaled_sum = self.scale + 4
        self.sum = self.scale + 8
        self.half_sums = (self.scale + 12, self.scale + 16)
        self.block_bytes = self.scale + 20
        self.quantize: Kernel = self._quantize()

    def bytes(self, k: int) -> int:
        """`k` is a multiple of 32."""
        return k // BLOCK * self.block_bytes

    def words(self, plane: int, step: int) -> tuple[int, ...]:
        """Where the words of inputs 4 step … 4 step + 3 are, in one plane."""
        return (8 * step, 8 * step + 4) if self.wide else (BLOCK * plane + 4 * step,)

    def _quantize(self) -> Kernel:
        @ir_kernel(name=f"activation.{self.name}", key=(base, emit, vectors))
        def quantize(b: ir.IRBuilder, x: Value, out: Value, k: Value) -> None:
            source, target = pointer(b, x), pointer(b, out)
            with emit.loop(b, b.lshr(k, i64(5))) as blocks:
                inputs = load(b, source_at(b, source, blocks.index), 0, ir.VectorType(F32, BLOCK), align=4)
                self._quantize_block(b, inputs, step(b, target, b.mul(blocks.index, i64(self.block_bytes))))

        return quantize

    def _quantize_block(self, b: ir.IRBuilder, inputs: Value, block: Value) -> None:
        reals, words = inputs.type, ir.VectorType(I32, BLOCK)
        # As integers, magnitudes are ordered like the floats, with infinity and NaN above all others.
        magnitudes = mask(b, b.bitcast(inputs, words), 0x7FFFFFFF)
        top = emit.call(b, "llvm.vector.reduce.umax.v32i32", I32, [magnitudes])
        largest = b.bitcast(top, F32)
        small = b.fcmp_ordered("<", largest, emit.real(SMALLEST))
        scale = b.select(small, emit.real(0.0), b.fmul(largest, emit.real(1 / self.levels)))
        scale = b.select(b.icmp_unsigned("<", top, ir.Constant(I32, 0x7F800000)), scale, emit.real(math.nan))
        inverse = b.select(small, emit.real(0.0), b.fdiv(emit.real(self.levels), largest))
        scaled = b.fmul(inputs, emit.splat(b, inverse, BLOCK))
        # Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
        rounded = b.bitcast(b.fadd(scaled, emit.real(ROUNDER, reals)), words)
        codes = b.sub(rounded, same(rounded, ROUNDER_BITS))
        self._store_codes(b, block, codes)
        halves = [shuffle(b, codes, codes, range(i, i + 16)) for i in (0, 16)]
        sums = [b.neg(emit.call(b, "llvm.vector.reduce.add.v16i32", I32, [half])) for half in halves]
        total = b.add(*sums)
        store(b, block, self.scale, scale, align=4)
        store(b, block, self.scaled_sum, b.fmul(scale, b.sitofp(total, F32)), align=4)
        for offset, value in zip((self.sum, *self.half_sums), (total, *sums), strict=True):
            store(b, block, offset, value, align=4)

    def _store_codes(self, b: ir.IRBuilder, block: Value, codes: Value) -> None:
        if self.wide:
            pairs = shuffle(b, codes, codes, [first + i for first in range(0, BLOCK, 4) for i in (0, 2, 1, 3)])
            store(b, block, 0, b.trunc(pairs, ir.VectorType(I16, BLOCK)))
            return
        planes = [codes]
        if self.planes == 2:
            high = b.ashr(b.add(codes, same(codes, 128)), same(codes, 8))
            planes = [high, b.sub(codes, b.shl(high, same(codes, 8)))]
        for i, plane in enumerate(planes):
            store(b, block, BLOCK * i, b.trunc(plane, ir.VectorType(I8, BLOCK)))


def source_at(b: ir.IRBuilder, source: Value, block: Value) -> Value:
    """The pointer to the inputs of a block."""
    return step(b, source, b.shl(block, i64(7)))


@cache
def activation(name: str) -> Activation:
    """The activation called `f32`, `q8`, `q8x2`, `q8w` or `q16w`."""
    return Float32() if name == "f32" else Codes(name)
