"""Keys and values on the device, in the types of `kv_types`.

What is kept of a layer's keys (or values) is one array, or for Q8_0 and Q4_0 two: codes and scales. All are
[1, kv_heads, slots, …]: a head's slots follow one another, so that a sequence whose blocks do is a slice of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from edgert_models.graph import Cache
from edgert_quant.blocks import BlockType

Stored = list[mx.array]


class Kind(ABC):
    """How numbers are kept."""

    @abstractmethod
    def empty(self, heads: int, slots: int, size: int) -> Stored:
        """Room for `slots` positions of `heads` heads of `size` numbers."""

    @abstractmethod
    def encode(self, x: mx.array) -> Stored:
        """x [1, heads, rows, size] as it is kept."""

    @abstractmethod
    def decode(self, kept: Stored, dtype: mx.Dtype) -> mx.array:
        """What is kept, as numbers."""


class Plain(Kind):
    """Floats."""

    def __init__(self, dtype: mx.Dtype) -> None:
        self.dtype = dtype

    def empty(self, heads: int, slots: int, size: int) -> Stored:
        """See Kind."""
        return [mx.zeros((1, heads, slots, size), self.dtype)]

    def encode(self, x: mx.array) -> Stored:
        """See Kind."""
        return [x.astype(self.dtype)]

    def decode(self, kept: Stored, dtype: mx.Dtype) -> mx.array:
        """See Kind."""
        return kept[0].astype(dtype)


class Blocks(Kind):
    """Blocks of 32 numbers of a head, with a scale in half precision: `reference.cache.rounded` defines the rounding.

    A block that holds a NaN or an infinity gets the scale NaN.
    """

    size = BlockType.Q8_0.block_size

    def empty(self, heads: int, slots: int, size: int) -> Stored:
        """See Kind."""
        shape = (1, heads, slots, size // self.size)
        return [mx.zeros((*shape, self.code_bytes), mx.uint8), mx.zeros(shape, mx.float16)]

    def encode(self, x: mx.array) -> Stored:
        """See Kind."""
        blocks = x.astype(mx.float32).reshape(*x.shape[:-1], -1, self.size)
        scales = self.scales(blocks)
        inverse = mx.where(scales == 0, 0.0, 1.0 / scales)[..., None]
        finite = mx.isfinite(blocks).all(axis=-1)
        codes = mx.where(finite[..., None], self.codes(blocks * inverse), 0)
        return [codes.astype(mx.uint8), mx.where(finite, scales, mx.nan).astype(mx.float16)]

    def decode(self, kept: Stored, dtype: mx.Dtype) -> mx.array:
        """See Kind."""
        codes, scales = kept
        values = self.values(codes).astype(mx.float32) * scales[..., None].astype(mx.float32)
        return values.reshape(*scales.shape[:-1], -1).astype(dtype)

    code_bytes: int
    """Bytes of the codes of a block."""

    @abstractmethod
    def scales(self, blocks: mx.array) -> mx.array:
        """The scale of blocks [..., 32]: [...]."""

    @abstractmethod
    def codes(self, places: mx.array) -> mx.array:
        """Numbers [..., 32] in units of their scale as bytes [..., code_bytes]."""

    @abstractmethod
    def values(self, codes: mx.array) -> mx.array:
        """Whole numbers [..., 32] of bytes."""


class Q80(Blocks):
    """Bytes: 128 is added."""

    code_bytes = 32

    def scales(self, blocks: mx.array) -> mx.array:
        """See Blocks."""
        return mx.abs(blocks).max(axis=-1) / 127

    def codes(self, places: mx.array) -> mx.array:
        """See Blocks."""
        return mx.round(places) + 128

    def values(self, codes: mx.array) -> mx.array:
        """See Blocks."""
        return codes.astype(mx.float32) - 128


class Q40(Blocks):
    """Nibbles: of numbers j and j + 16 in byte j, 8 is added."""

    code_bytes = 16

    def scales(self, blocks: mx.array) -> mx.array:
        """See Blocks: the largest element has the code -8."""
        largest = mx.abs(blocks).argmax(axis=-1, keepdims=True)
        return mx.take_along_axis(blocks, largest, axis=-1)[..., 0] / -8

    def codes(self, places: mx.array) -> mx.array:
        """See Blocks."""
        codes = mx.minimum(mx.floor(places + 8.5), 15).astype(mx.uint8)
        return codes[..., :16] | codes[..., 16:] << 4

    def values(self, codes: mx.array) -> mx.array:
        """See Blocks."""
        return mx.concatenate([codes & 15, codes >> 4], axis=-1).astype(mx.float32) - 8


KINDS: dict[BlockType, Kind] = {
    BlockType.F32: Plain(mx.float32),
    BlockType.F16: Plain(mx.float16),
    BlockType.BF16: Plain(mx.bfloat16),
    BlockType.Q8_0: Q80(),
    BlockType.Q4_0: Q40(),
}


class LayerCache:
    """Keys and values of one layer; where values are the beginning of the keys, keys alone."""

    def __init__(self, kind: Kind, sizes: Cache, slots: int) -> None:
        self.kind = kind
        self.sizes = sizes
        self.keys = kind.empty(sizes.kv_heads, slots, sizes.head_size)
        self.values = [] if sizes.shared else kind.empty(sizes.kv_heads, slots, sizes.value_size)

    @property
    def arrays(self) -> Stored:
        """Everything kept."""
        return [*self.keys, *self.values]

    def store(self, slots: mx.array, k: mx.array, v: mx.array | None, *, start: mx.array | None) -> None:
        """Keep k and v [1, heads, rows, size] at slots [rows], or from `start` [1] on."""
        for kept, new in ((self.keys, k), (self.values, v)):
            for index, encoded in enumerate([] if new is None else self.kind.encode(new)):
                if start is not None:
                    kept[index] = mx.slice_update(kept[index], encoded, start, (2,))
                else:
                    kept[index][:, :, slots] = encoded

    def fetch(self, where: slice | mx.array, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        """Keys and values [sequences, heads, n, size] at slots: a slice of n for one sequence, or [sequences, n]."""

        def part(array: mx.array) -> mx.array:
            if isinstance(where, slice):
                return array[:, :, where]
            return mx.take(array.squeeze(0), where, axis=1).swapaxes(0, 1)

        k = self.kind.decode([part(array) for array in self.keys], dtype)
        if self.sizes.shared:
            return k, k[..., : self.sizes.value_size]
        return k, self.kind.decode([part(array) for array in self.values], dtype)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]], block_size: int) -> None:
        """Copy blocks of positions, in order."""
        for source, target in pairs:
            a, b = (slice(i * block_size, (i + 1) * block_size) for i in (source, target))
            for array in self.arrays:
                array[:, :, b] = array[:, :, a]

    def read_blocks(self, blocks: Sequence[int], block_size: int) -> list[np.ndarray]:
        """Bytes of these blocks: of each array uint8 [blocks, bytes of one]."""
        slots = _slots(blocks, block_size)
        rows = [array[0][:, slots].view(mx.uint8) for array in self.arrays]  # [heads, slots, …]
        return [_by_block(np.asarray(row), len(blocks)) for row in rows]

    def write_blocks(self, blocks: Sequence[int], block_size: int, content: list[np.ndarray]) -> None:
        """The way back."""
        slots = _slots(blocks, block_size)
        for array, rows in zip(self.arrays, content, strict=True):
            heads, *rest = (array.shape[1], block_size, *array.shape[3:-1], -1)
            parts = np.ascontiguousarray(rows.reshape(len(blocks), heads, *rest).swapaxes(0, 1))
            parts = parts.reshape(heads, len(slots), *rest[1:])
            array[:, :, slots] = mx.array(parts).view(array.dtype)[None]

    def block_bytes(self, block_size: int) -> list[int]:
        """Bytes of a block in each array."""
        return [array.nbytes // array.shape[2] * block_size for array in self.arrays]


def _slots(blocks: Sequence[int], block_size: int) -> mx.array:
    return mx.array(
        np.add.outer(np.array(blocks, np.int32) * block_size, np.arange(block_size, dtype=np.int32)).ravel()
    )


def _by_block(rows: np.ndarray, blocks: int) -> np.ndarray:
    """[heads, slots, …] as [blocks, bytes]."""
    split = rows.reshape(len(rows), blocks, -1)
    return np.ascontiguousarray(split.swapaxes(0, 1)).reshape(blocks, -1)
