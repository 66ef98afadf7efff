"""What a type of cache is to the kernels that read and write it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from edgert_quant.blocks import BlockType
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import (
    Offset,
    Value,
    i64,
)

GROUP = 32
"""Elements that share a scale."""


class CacheLayout(ABC):
    """One type of cache."""

    type: BlockType
    span: int
    """Elements of a key that are read in one go: a group, or a few."""

    @property
    def key_bytes(self) -> int:
        """Bytes of `span` elements of 16 keys."""
        return LANES * self.type.row_bytes(self.span)

    def row_bytes(self, b: ir.IRBuilder, width: Value) -> Value:
        """Bytes of the values of one position."""
        return b.sdiv(b.mul(width, i64(self.type.block_bytes)), i64(self.type.block_size))

    @abstractmethod
    def key_offset(self, b: ir.IRBuilder, first: Offset) -> Offset:
        """Where element `first` (a multiple of 4) of a span begins."""

    @abstractmethod
    def key_scale(self, b: ir.IRBuilder, span: Value) -> Any:
        """What `key` needs of a span of 16 keys to scale them."""

    @abstractmethod
    def key(self, b: ir.IRBuilder, place: Value, i: int, scale: Any) -> Value:
        """16 keys' element i behind the one that begins at `place`."""

    @abstractmethod
    def values(self, b: ir.IRBuilder, row: Value, width: Value, column: Value, count: int) -> list[Value]:
        """`count` vectors of the values of one position, from element `column` on; `count` is 1 or even, and then so is
        the number of vectors before.
        """

    @abstractmethod
    def store_key(self, b: ir.IRBuilder, x: Value, panel: Value, lane: Value, width: Value) -> None:
        """Round float32[width] and store it as one of 16 keys."""

    @abstractmethod
    def store_value(self, b: ir.IRBuilder, x: Value, row: Value, width: Value) -> None:
        """Round float32[width] and store it as the values of one position."""
