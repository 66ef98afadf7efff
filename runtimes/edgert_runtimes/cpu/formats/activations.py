"""How the inputs of matmuls are stored: float32 as they are, or blocks of small integers with one float scale.

A block of 32 inputs x with scale d:

    q8    32 codes q int8;                 x ≈ d q,            d = max|x| / 127
    q8w   as q8, the codes int16 in the order 0 2 1 3, 4 6 5 7, …
          for instruction sets that multiply 16-bit numbers

then float d, float -d Σq, int32 -Σq, and int32 -Σq of the first and of the second 16. The
sums serve formats with minima, and those whose stored codes are offset to be unsigned.

Types with super-blocks multiply by integers within them, and so have blocks of 256 inputs:

    q8k   256 codes q int8;                x ≈ d s q,          d = max|x| / (16 · 127), over all 256
    q8kw  as q8k, the codes int16 in the order above

where s, from 1 to 16, is the least for 32 inputs that keeps their codes within ±127: so small inputs lose little beside
a large one, where ggml's `block_q8_K` has one scale for all. Behind the codes, everything in 16 bits: s of each 32,
twice; -s Σq of each 16; the same, those of all first halves of 32 before the others; s of each 32; then float d.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cache

from edgert_quant.jit import emit, ir_kernel
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
SUPER_BLOCK = 256
PARTS = SUPER_BLOCK // BLOCK
LARGEST_STEP = 16
"""The most that a scale of 32 inputs is of that of 256."""
SMALLEST = 2.0**-100
"""Blocks whose largest input is smaller count as zeros: their scale would not be a normal number."""

LARGEST = 127
"""Of the codes."""

ROUNDER = 1.5 * 2**23
ROUNDER_BITS = 0x4B400000


class Float32(Activation):
    """The float32 row itself."""

    name = "f32"
    direct = True
    block = BLOCK

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


class Blocks(Activation):
    """Blocks of codes, as 16-bit numbers (`wide`) or bytes; see the module. Offsets are bytes from the start of a
    block.
    """

    direct = False
    block_bytes: int

    def __init__(self, name: str) -> None:
        self.name = name
        self.wide = name.endswith("w")

        @ir_kernel(name=f"activation.{name}", key=(base, emit, vectors))
        def quantize(b: ir.IRBuilder, x: Value, out: Value, k: Value) -> None:
            source, target = pointer(b, x), pointer(b, out)
            with emit.loop(b, b.udiv(k, i64(self.block))) as each:
                inputs = step(b, source, b.mul(each.index, i64(4 * self.block)))
                self.emit_block(b, inputs, step(b, target, b.mul(each.index, i64(self.block_bytes))))

        self.quantize = quantize

    def bytes(self, k: int) -> int:
        """`k` is a multiple of the block."""
        return k // self.block * self.block_bytes

    def words(self, step: int) -> tuple[int, ...]:
        """Where the words of inputs 4 step … 4 step + 3 of 32 are, from where their codes start."""
        return (8 * step, 8 * step + 4) if self.wide else (4 * step,)

    @abstractmethod
    def emit_block(self, b: ir.IRBuilder, source: Value, target: Value) -> None:
        """Quantize one block."""


class Codes(Blocks):
    """Blocks of 32, each with a float scale."""

    block = BLOCK

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.scale = BLOCK * (2 if self.wide else 1)
        self.scaled_sum = self.scale + 4
        self.sum = self.scale + 8
        self.half_sums = (self.scale + 12, self.scale + 16)
        self.block_bytes = self.scale + 20

    def emit_block(self, b: ir.IRBuilder, source: Value, target: Value) -> None:
        """See Blocks."""
        inputs = load(b, source, 0, ir.VectorType(F32, BLOCK), align=4)
        scale, inverse, _ = _scales(b, _largest(b, _magnitudes(b, inputs)))
        codes = _rounded(b, inputs, inverse)
        _store_codes(b, target, codes, self.wide)
        sums = _negative_sums(b, codes)
        total = b.add(*sums)
        store(b, target, self.scale, scale, align=4)
        store(b, target, self.scaled_sum, b.fmul(scale, b.sitofp(total, F32)), align=4)
        for offset, value in zip((self.sum, *self.half_sums), (total, *sums), strict=True):
            store(b, target, offset, value, align=4)


class SuperCodes(Blocks):
    """Blocks of 256, whose size is a multiple of 64 bytes, each with a float scale and integers for every 32."""

    block = SUPER_BLOCK

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.part = BLOCK * (2 if self.wide else 1)
        """Bytes of the codes of 32 inputs."""
        size = PARTS * self.part
        self.step_pairs, self.sums, self.row_sums, self.steps, self.scale = (size + i for i in (0, 32, 64, 96, 112))
        self.block_bytes = size + 128

    def emit_block(self, b: ir.IRBuilder, source: Value, target: Value) -> None:
        """See Blocks."""
        parts = i64(PARTS)
        reals, words = ir.VectorType(F32, BLOCK), ir.VectorType(I32, BLOCK)
        with emit.loop(b, parts, ir.Constant(words, [0] * BLOCK)) as each:
            magnitudes = _magnitudes(b, load(b, source_at(b, source, each.index), 0, reals, align=4))
            each.carry(emit.call(b, "llvm.umax.v32i32", words, [magnitudes, *each.values]))
        scale, inverse, one = _scales(b, _largest(b, each.values[0]))
        store(b, target, self.scale, b.fmul(scale, emit.real(1 / LARGEST_STEP)), align=4)
        with emit.loop(b, parts) as each:
            inputs = load(b, source_at(b, source, each.index), 0, reals, align=4)
            steps = _steps(b, b.fmul(b.bitcast(_largest(b, _magnitudes(b, inputs)), F32), one))
            codes = _rounded(b, inputs, b.fmul(inverse, b.fdiv(emit.real(LARGEST_STEP), b.sitofp(steps, F32))))
            place = step(b, target, b.mul(each.index, i64(self.part)))
            _store_codes(b, place, codes, self.wide)
            short = b.trunc(steps, I16)
            pair, single = (step(b, target, b.mul(each.index, i64(size))) for size in (4, 2))
            store(b, single, self.steps, short, align=2)
            for half, total in enumerate(_negative_sums(b, codes)):
                store(b, pair, self.step_pairs + 2 * half, short, align=2)
                total = b.mul(b.trunc(total, I16), short)
                store(b, pair, self.sums + 2 * half, total, align=2)
                store(b, single, self.row_sums + 2 * PARTS * half, total, align=2)


def _magnitudes(b: ir.IRBuilder, inputs: Value) -> Value:
    """As integers, they are ordered like the floats, with infinity and NaN above all others."""
    return mask(b, b.bitcast(inputs, ir.VectorType(I32, inputs.type.count)), 0x7FFFFFFF)


def _largest(b: ir.IRBuilder, magnitudes: Value) -> Value:
    return emit.call(b, f"llvm.vector.reduce.umax.v{magnitudes.type.count}i32", I32, [magnitudes])


def _scales(b: ir.IRBuilder, top: Value) -> tuple[Value, Value, Value]:
    """For inputs up to `top`, an integer's bits: the scale, NaN where they are no numbers; its inverse, and that of the
    largest input, both zero where the scale is.
    """
    largest = b.bitcast(top, F32)
    small = b.fcmp_ordered("<", largest, emit.real(SMALLEST))
    scale = b.select(small, emit.real(0.0), b.fmul(largest, emit.real(1 / LARGEST)))
    scale = b.select(b.icmp_unsigned("<", top, ir.Constant(I32, 0x7F800000)), scale, emit.real(math.nan))
    inverses = [b.select(small, emit.real(0.0), b.fdiv(emit.real(one), largest)) for one in (LARGEST, 1.0)]
    return scale, *inverses


def _steps(b: ir.IRBuilder, share: Value) -> Value:
    """A share of the largest input → how many sixteenths cover it, one at least; all of them where it is no number."""
    wanted = b.fmul(share, emit.real(LARGEST_STEP))
    wanted = b.select(b.fcmp_ordered("<", wanted, emit.real(LARGEST_STEP)), wanted, emit.real(LARGEST_STEP))
    whole = b.fptosi(wanted, I32)
    whole = b.add(whole, b.zext(b.fcmp_ordered("<", b.sitofp(whole, F32), wanted), I32))
    return b.select(b.icmp_signed("<", whole, same(whole, 1)), same(whole, 1), whole)


def _rounded(b: ir.IRBuilder, inputs: Value, inverse: Value) -> Value:
    """Codes: adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits."""
    scaled = b.fmul(inputs, emit.splat(b, inverse, BLOCK))
    rounded = b.bitcast(b.fadd(scaled, emit.real(ROUNDER, inputs.type)), ir.VectorType(I32, BLOCK))
    return b.sub(rounded, same(rounded, ROUNDER_BITS))


def _negative_sums(b: ir.IRBuilder, codes: Value) -> list[Value]:
    """Of both halves of 32 codes."""
    halves = [shuffle(b, codes, codes, range(i, i + 16)) for i in (0, 16)]
    return [b.neg(emit.call(b, "llvm.vector.reduce.add.v16i32", I32, [half])) for half in halves]


def _store_codes(b: ir.IRBuilder, place: Value, codes: Value, wide: bool) -> None:
    """As bytes, or as 16-bit numbers in the order that instruction sets without dot products of bytes want."""
    kind = I8
    if wide:
        kind = I16
        codes = shuffle(b, codes, codes, [first + i for first in range(0, BLOCK, 4) for i in (0, 2, 1, 3)])
    store(b, place, 0, b.trunc(codes, ir.VectorType(kind, BLOCK)))


def source_at(b: ir.IRBuilder, source: Value, block: Value) -> Value:
    """The pointer to the inputs of a block."""
    return step(b, source, b.shl(block, i64(7)))


@cache
def activation(name: str) -> Activation:
    """The activation called `f32`, `q8`, `q8w`, `q8k` or `q8kw`."""
    if name == "f32":
        return Float32()
    return SuperCodes(name) if name.startswith("q8k") else Codes(name)
