"""Caches of 8 or 4 bits, in groups with a scale."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.activations import ROUNDER
from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    HALVES,
    I8,
    I16,
    I32,
    Offset,
    Value,
    add,
    fused,
    i64,
    load,
    mask,
    multiply,
    shift_left,
    shift_right,
    shuffle,
    splat,
    step,
    store,
)
from edgert_runtimes.cpu.kernels.caches.base import GROUP, CacheLayout

SCALES = 2 * LANES
"""Bytes of the scales of a group of keys."""


class Groups(CacheLayout):
    """Groups of 32 codes with a half scale."""

    span = GROUP

    def key_scale(self, b: ir.IRBuilder, span: Value) -> Any:
        """Those of sixteen keys."""
        return self._scaling(b, emit.half_to_float(b, load(b, span, 0, HALVES, align=32)))

    def values(self, b: ir.IRBuilder, row: Value, width: Value, column: Value, count: int) -> list[Value]:
        """Group by group, or half of one."""
        found = []
        for number in range(0, count, 2):
            group = b.add(b.lshr(column, i64(5)), i64(number // 2))
            half = load(b, row, b.shl(group, i64(1)), I16, align=2)
            scaling = self._scaling(b, emit.half_to_float(b, splat(b, half)))
            place = self._codes(b, row, width, group)
            halves: list[Value] = [0, 1] if count > 1 else [mask(b, b.lshr(column, i64(4)), 1)]
            found += [self._value(b, place, which, scaling) for which in halves]
        return found

    def store_key(self, b: ir.IRBuilder, x: Value, panel: Value, lane: Value, width: Value) -> None:
        """Group by group."""
        with emit.loop(b, b.lshr(width, i64(5))) as each:
            scale, codes = self._quantize(b, _group(b, x, each.index))
            place = step(b, panel, b.mul(each.index, i64(self.key_bytes)))
            store(b, place, b.shl(lane, i64(1)), scale, align=2)
            column = step(b, place, add(b, lane, SCALES))
            code_bytes = self._key_codes(b, codes)
            for i in range(code_bytes.type.count):
                store(b, column, LANES * i, b.extract_element(code_bytes, ir.Constant(I32, i)))

    def store_value(self, b: ir.IRBuilder, x: Value, row: Value, width: Value) -> None:
        """Group by group."""
        with emit.loop(b, b.lshr(width, i64(5))) as each:
            scale, codes = self._quantize(b, _group(b, x, each.index))
            store(b, row, b.shl(each.index, i64(1)), scale, align=2)
            store(b, self._codes(b, row, width, each.index), 0, self._packed_values(b, codes))

    def _codes(self, b: ir.IRBuilder, row: Value, width: Value, group: Value) -> Value:
        """The pointer to the codes of a group of values: behind all scales of the row."""
        scales = b.lshr(width, i64(4))
        return step(b, row, b.add(scales, b.mul(group, i64(self.type.block_bytes - 2))))

    @abstractmethod
    def _quantize(self, b: ir.IRBuilder, x: Value) -> tuple[Value, Value]:
        """32 floats → the bits of their scale, and 32 codes as bytes."""

    @abstractmethod
    def _key_codes(self, b: ir.IRBuilder, codes: Value) -> Value:
        """The bytes of a key's codes, which lie 16 bytes apart."""

    @abstractmethod
    def _packed_values(self, b: ir.IRBuilder, codes: Value) -> Value:
        """The bytes of a value's codes."""

    @abstractmethod
    def _scaling(self, b: ir.IRBuilder, scale: Value) -> Any:
        """What it takes to scale codes by 16 scales."""

    @abstractmethod
    def _value(self, b: ir.IRBuilder, place: Value, half: Offset, scaling: Any) -> Value:
        """The first or the second 16 values of a group."""


BYTES = ir.VectorType(I8, LANES)
WORDS = ir.VectorType(I32, LANES)
GROUP_FLOATS = ir.VectorType(F32, GROUP)
GROUP_WORDS = ir.VectorType(I32, GROUP)
GROUP_BYTES = ir.VectorType(I8, GROUP)


class Q8(Groups):
    """Signed bytes."""

    type = BlockType.Q8_0

    def key_offset(self, b: ir.IRBuilder, first: Offset) -> Offset:
        """Behind the scales."""
        return add(b, b.mul(i64(first), i64(LANES)), SCALES)

    def key(self, b: ir.IRBuilder, place: Value, i: int, scale: Any) -> Value:
        """Scaled."""
        return b.fmul(_signed(b, place, LANES * i), scale)

    def _scaling(self, b: ir.IRBuilder, scale: Value) -> Any:
        return scale

    def _value(self, b: ir.IRBuilder, place: Value, half: Offset, scaling: Any) -> Value:
        return b.fmul(_signed(b, place, multiply(b, half, LANES)), scaling)

    def _quantize(self, b: ir.IRBuilder, x: Value) -> tuple[Value, Value]:
        largest = b.bitcast(_largest(b, x), F32)
        scale = b.fdiv(largest, emit.real(127.0))
        scaled = _limited(b, b.fmul(x, _inverse(b, scale)), -127.0, 127.0)
        rounder = emit.real(ROUNDER, GROUP_FLOATS)
        codes = b.fptosi(b.fsub(b.fadd(scaled, rounder), rounder), GROUP_WORDS)
        return _stored(b, scale), b.trunc(codes, GROUP_BYTES)

    def _key_codes(self, b: ir.IRBuilder, codes: Value) -> Value:
        return codes

    def _packed_values(self, b: ir.IRBuilder, codes: Value) -> Value:
        return codes


class Q4(Groups):
    """Nibbles, 8 more than the code."""

    type = BlockType.Q4_0

    def key_offset(self, b: ir.IRBuilder, first: Offset) -> Offset:
        """Behind the scales; `first` is even."""
        return add(b, b.mul(i64(first), i64(LANES // 2)), SCALES)

    def key(self, b: ir.IRBuilder, place: Value, i: int, scale: Any) -> Value:
        """Scaled."""
        return fused(b, _nibble(b, step(b, place, LANES * (i // 2)), i % 2), *scale)

    def _scaling(self, b: ir.IRBuilder, scale: Value) -> Any:
        return scale, b.fmul(scale, emit.real(-8.0, FLOATS))

    def _value(self, b: ir.IRBuilder, place: Value, half: Offset, scaling: Any) -> Value:
        return fused(b, _nibble(b, place, half), *scaling)

    def _quantize(self, b: ir.IRBuilder, x: Value) -> tuple[Value, Value]:
        magnitudes = mask(b, b.bitcast(x, GROUP_WORDS), 0x7FFFFFFF)
        largest = b.icmp_unsigned("==", magnitudes, emit.splat(b, _largest(b, x), GROUP))
        first = emit.call(b, "llvm.cttz.i32", I32, [b.bitcast(largest, I32), ir.Constant(ir.IntType(1), 0)])
        scale = b.fdiv(b.extract_element(x, first), emit.real(-8.0))
        shifted = b.fadd(b.fmul(x, _inverse(b, scale)), emit.real(8.5, GROUP_FLOATS))
        codes = b.fptosi(_limited(b, shifted, 0.0, 15.0), GROUP_WORDS)
        return _stored(b, scale), b.trunc(codes, GROUP_BYTES)

    def _key_codes(self, b: ir.IRBuilder, codes: Value) -> Value:
        return _paired(b, *(shuffle(b, codes, codes, range(first, GROUP, 2)) for first in (0, 1)))

    def _packed_values(self, b: ir.IRBuilder, codes: Value) -> Value:
        return _paired(b, *(shuffle(b, codes, codes, range(first, first + LANES)) for first in (0, LANES)))


def _group(b: ir.IRBuilder, x: Value, group: Value) -> Value:
    return load(b, x, b.mul(group, i64(4 * GROUP)), GROUP_FLOATS, align=4)


def _signed(b: ir.IRBuilder, place: Value, offset: Offset) -> Value:
    """16 signed bytes as floats."""
    return b.sitofp(b.sext(load(b, place, offset, BYTES), WORDS), FLOATS)


def _nibble(b: ir.IRBuilder, place: Value, high: Offset) -> Value:
    """The low (0) or the high (1) nibbles of 16 bytes, as floats."""
    codes = b.zext(load(b, place, 0, BYTES), WORDS)
    return b.sitofp(mask(b, shift_right(b, codes, multiply(b, high, 4)), 15), FLOATS)


def _paired(b: ir.IRBuilder, low: Value, high: Value) -> Value:
    return b.or_(low, shift_left(b, high, 4))


def _largest(b: ir.IRBuilder, x: Value) -> Value:
    """The bits of the largest magnitude; of a NaN or an infinity if there is one: as integers they are larger still."""
    return emit.call(b, "llvm.vector.reduce.umax.v32i32", I32, [mask(b, b.bitcast(x, GROUP_WORDS), 0x7FFFFFFF)])


def _inverse(b: ir.IRBuilder, scale: Value) -> Value:
    """1 / scale in 32 lanes; 0 for 0."""
    zero = b.fcmp_ordered("==", scale, emit.real(0.0))
    return emit.splat(b, b.select(zero, emit.real(0.0), b.fdiv(emit.real(1.0), scale)), GROUP)


def _limited(b: ir.IRBuilder, x: Value, low: float, high: float) -> Value:
    """Between two bounds, NaN at the lower one: so that it can become an integer."""
    above = b.select(b.fcmp_ordered(">", x, emit.real(low, x.type)), x, emit.real(low, x.type))
    return b.select(b.fcmp_ordered("<", above, emit.real(high, x.type)), above, emit.real(high, x.type))


def _stored(b: ir.IRBuilder, scale: Value) -> Value:
    """The bits of a scale as a half: NaN for one that is not finite, which makes its block NaN."""
    return emit.float_to_half(b, b.fadd(scale, b.fsub(scale, scale)))
