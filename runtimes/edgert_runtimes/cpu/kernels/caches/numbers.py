"""Caches of floats, as they are or in 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgert_quant.blocks import BlockType
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    I32,
    Offset,
    Value,
    i64,
    load,
    step,
    store,
)
from edgert_runtimes.cpu.kernels.caches.base import CacheLayout


class Numbers(CacheLayout):
    """Floats as they are, or in 16 bits."""

    span = 4

    def __init__(self, kind: BlockType, bits: Any, widen: Callable[..., Value], narrow: Callable[..., Value]) -> None:
        self.type = kind
        self._bits = bits
        self._size = kind.block_bytes
        self._widen = widen
        self._narrow = narrow

    def key_offset(self, b: ir.IRBuilder, first: Offset) -> Offset:
        """Elements lie one behind the other."""
        return b.mul(i64(first), i64(LANES * self._size))

    def key_scale(self, b: ir.IRBuilder, span: Value) -> Any:
        """Nothing."""
        return None

    def key(self, b: ir.IRBuilder, place: Value, i: int, scale: Any) -> Value:
        """Widened."""
        kind = ir.VectorType(self._bits, LANES)
        return self._widen(b, load(b, place, i * LANES * self._size, kind, align=self._size))

    def values(self, b: ir.IRBuilder, row: Value, width: Value, column: Value, count: int) -> list[Value]:
        """Widened. The last vector of a head size that is no multiple of 16 reaches over its end."""
        kind = ir.VectorType(self._bits, LANES)
        place = step(b, row, b.mul(column, i64(self._size)))
        return [self._widen(b, load(b, place, i * LANES * self._size, kind, align=self._size)) for i in range(count)]

    def store_key(self, b: ir.IRBuilder, x: Value, panel: Value, lane: Value, width: Value) -> None:
        """Sixteen elements at once, then one by one."""
        column = step(b, panel, b.mul(lane, i64(self._size)))

        def some(first: Value, count: int) -> None:
            numbers = self._read(b, x, first, count)
            place = step(b, column, b.mul(first, i64(LANES * self._size)))
            for i in range(count):
                number = numbers if count == 1 else b.extract_element(numbers, ir.Constant(I32, i))
                store(b, place, i * LANES * self._size, number, align=self._size)

        _in_parts(b, width, some)

    def store_value(self, b: ir.IRBuilder, x: Value, row: Value, width: Value) -> None:
        """Sixteen elements at once, then one by one."""

        def some(first: Value, count: int) -> None:
            place = step(b, row, b.mul(first, i64(self._size)))
            store(b, place, 0, self._read(b, x, first, count), align=self._size)

        _in_parts(b, width, some)

    def _read(self, b: ir.IRBuilder, x: Value, first: Value, count: int) -> Value:
        return self._narrow(b, load(b, x, b.shl(first, i64(2)), FLOATS if count > 1 else F32, align=4))


def _in_parts(b: ir.IRBuilder, width: Value, some: Callable[[Value, int], None]) -> None:
    """some(first element, how many): sixteen at once, then one by one."""
    done = i64(0)
    for count in (LANES, 1):
        with emit.loop(b, b.sub(width, i64(count - 1)), start=done, step=count) as each:
            some(each.index, count)
        done = each.index


def as_float(b: ir.IRBuilder, bits: Value) -> Value:
    """The floats that 32-bit words are."""
    return b.bitcast(bits, _like(bits, F32))


def as_bits(b: ir.IRBuilder, x: Value) -> Value:
    """The bits of floats."""
    return b.bitcast(x, _like(x, I32))


def _like(x: Value, element: Any) -> Any:
    return ir.VectorType(element, x.type.count) if isinstance(x.type, ir.VectorType) else element
