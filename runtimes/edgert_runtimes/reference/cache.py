"""Keys and values of the reference backend, and what each cache type makes of a number."""

from __future__ import annotations

import numpy as np
from edgert_models.graph import Cache as Sizes
from edgert_quant.blocks import BlockType
from numpy.typing import NDArray

from edgert_runtimes.base import Float32

Float64 = NDArray[np.float64]


class Cache:
    """Keys and values of one layer by slot: [slots, width], rounded to the cache's type and kept as float32."""

    def __init__(self, slots: int, sizes: Sizes, block_size: int, kind: BlockType) -> None:
        self.sizes = sizes
        self.block_size = block_size
        self.kind = kind
        self.keys = np.zeros((slots, sizes.key_width), np.float32)
        self.values = np.zeros((slots, sizes.value_width), np.float32)

    def store(self, slots: NDArray[np.int32], k: Float64, v: Float64 | None) -> None:
        """Round to the cache's type and keep."""
        for kept, new in ((self.keys, k), (self.values, v)):
            if new is not None:
                kept[slots] = rounded(new.astype(np.float32), self.kind)

    def fetch(self, table: NDArray[np.int32], first: int, end: int) -> tuple[Float64, Float64]:
        """Keys and values [positions, kv_heads, size] of positions first … end of a sequence."""
        positions = np.arange(first, end)
        slots = table[positions // self.block_size] * self.block_size + positions % self.block_size
        heads = (len(slots), self.sizes.kv_heads, -1)
        keys = self.keys[slots].astype(np.float64).reshape(heads)
        if self.sizes.shared:
            return keys, keys[:, :, : self.sizes.value_size]
        return keys, self.values[slots].astype(np.float64).reshape(heads)

    def copy_block(self, source: int, target: int) -> None:
        """Copy one block of positions."""
        a, b = (slice(i * self.block_size, (i + 1) * self.block_size) for i in (source, target))
        self.keys[b], self.values[b] = self.keys[a], self.values[a]


def rounded(x: Float32, kind: BlockType) -> Float32:
    """What a cache of this type gives back for x [rows, width]; computed in float32, ties to even.

    Q8_0 and Q4_0 take the scale from the largest element m of a block of 32, as llama.cpp does when it stores a cache:
    Q8_0 d = |m| / 127, x ≈ half(d) · round(x / d); Q4_0 d = m / -8, x ≈ half(d) · (min(15, floor(x / d + 8.5)) - 8).
    A block that holds a NaN or an infinity becomes NaN.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if kind is BlockType.F32:
            return x
        if kind is BlockType.F16:
            return x.astype(np.float16).astype(np.float32)
        if kind is BlockType.BF16:
            bits = x.view(np.uint32)
            nearest = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
            return np.where(np.isnan(x), x, nearest.view(np.float32))
        blocks = x.reshape(len(x), -1, kind.block_size)
        if kind is BlockType.Q8_0:
            scales = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
            codes = np.rint(blocks * _inverse(scales))
        else:
            largest = np.abs(blocks).argmax(axis=-1, keepdims=True)
            scales = np.take_along_axis(blocks, largest, axis=-1) / np.float32(-8)
            codes = np.minimum(np.floor(blocks * _inverse(scales) + np.float32(8.5)), 15) - 8
        stored = scales.astype(np.float16).astype(np.float32)
        finite = np.isfinite(blocks).all(axis=-1, keepdims=True)
        values = np.where(stored == 0, np.float32(0), codes * stored)
        return np.where(finite, values, np.float32(np.nan)).reshape(x.shape).astype(np.float32)


def _inverse(scales: Float32) -> Float32:
    return np.where(scales == 0, np.float32(0), np.float32(1) / scales)
