"""Blocks taken apart: the scales that span a grid, and the codes that are points of it; and put together again.

Of all types here a weight is read back as d · scale · value - dmin · floor, where d and dmin are half-precision numbers
of the block, scale and floor small integers of a group of `length` weights, and value is what its code stands for
(`values`, rising). Types without integers have scale 1; types without minima have dmin 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgert_quant.blocks import unpack32, unpack256
from edgert_quant.blocks.assemble import nibbles
from edgert_quant.blocks.layout import LAYOUTS
from edgert_quant.blocks.types import BlockType

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Limits = tuple[int, int]

FIXED: Limits = (1, 1)
NONE: Limits = (0, 0)


@dataclass(frozen=True)
class Grid:
    """What the blocks of a type can hold: weights per group, values of codes, and limits of the integers."""

    length: int
    values: tuple[int, ...]
    scales: Limits = FIXED
    floors: Limits = NONE

    @cached_property
    def _tables(self) -> tuple[Floats, Floats | None]:
        values = np.array(self.values, np.float32)
        if self.values[-1] - self.values[0] == len(self.values) - 1:
            return values, None
        return values, (values[1:] + values[:-1]) * np.float32(0.5)

    def addresses(self) -> tuple[int, int, int]:
        """The kernels' `values`, `count` and `middles`."""
        values, middles = self._tables
        return values.ctypes.data, len(values), 0 if middles is None else middles.ctypes.data


def _codes(low: int, high: int) -> tuple[int, ...]:
    return tuple(range(low, high + 1))


IQ4 = tuple(int(value) for value in unpack32.IQ4_VALUES)

GRIDS: dict[BlockType, Grid] = {
    BlockType.Q4_0: Grid(32, _codes(-8, 7)),
    BlockType.Q5_0: Grid(32, _codes(-16, 15)),
    BlockType.Q8_0: Grid(32, _codes(-127, 127)),  # -128, which some programs cannot negate, is not written
    BlockType.IQ4_NL: Grid(32, IQ4),
    BlockType.Q4_1: Grid(32, _codes(0, 15), floors=FIXED),
    BlockType.Q5_1: Grid(32, _codes(0, 31), floors=FIXED),
    BlockType.Q2_K: Grid(16, _codes(0, 3), (0, 15), (0, 15)),
    BlockType.Q3_K: Grid(16, _codes(-4, 3), (-32, 31)),
    BlockType.Q4_K: Grid(32, _codes(0, 15), (0, 63), (0, 63)),
    BlockType.Q5_K: Grid(32, _codes(0, 31), (0, 63), (0, 63)),
    BlockType.Q6_K: Grid(16, _codes(-32, 31), (-128, 127)),
    BlockType.IQ4_XS: Grid(32, IQ4, (-32, 31)),
}
"""The types whose weights are rounded one by one."""


@dataclass
class Parts:
    """The numbers in `n` blocks of one type.

    `units` is float32 [n, 2]: d and dmin; `integers` float32 [n, 2, groups]: scales and floors; `codes` uint8 [n, block
    size]: indices into the grid's values.
    """

    units: Floats
    integers: Floats
    codes: Bytes

    def copy(self) -> Parts:
        """A copy of its own."""
        return Parts(self.units.copy(), self.integers.copy(), self.codes.copy())

    def take(self, other: Parts, chosen: NDArray[np.bool_]) -> None:
        """Become like `other` in the chosen blocks."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[chosen] = theirs[chosen]

    def weights(self, kind: BlockType) -> Floats:
        """What the blocks are read back as, float32 [n, block size]: the bits that `dequantize` gives."""
        grid = GRIDS[kind]
        values = np.array(grid.values, np.float32)[self.codes].reshape(len(self.codes), -1, grid.length)
        step, floor = (self.units[:, :, None] * self.integers)[:, :, :, None].swapaxes(0, 1)
        return np.asarray(step * values - floor, np.float32).reshape(self.codes.shape)


def take_apart(data: Bytes, kind: BlockType) -> Parts:
    """The parts of blocks [n, block bytes] that `quantize` wrote."""
    b = np.ascontiguousarray(data).view(LAYOUTS[kind])[:, 0]
    grid = GRIDS[kind]
    groups = kind.block_size // grid.length
    integers = np.zeros((len(b), 2, groups), np.float32)
    integers[:, 0], integers[:, 1] = 1, grid.floors[0]
    match kind:
        case BlockType.Q2_K:
            integers[:, 0], integers[:, 1] = b["scales"] & 15, b["scales"] >> 4
        case BlockType.Q4_K | BlockType.Q5_K:
            integers[:, 0], integers[:, 1] = unpack256.scales_and_mins(b["scales"])
        case BlockType.Q3_K:
            integers[:, 0] = unpack256.signed_scales(b["scales"])
        case BlockType.Q6_K:
            integers[:, 0] = b["scales"]
        case BlockType.IQ4_XS:
            integers[:, 0] = unpack256.iq4_scales(b["scales_l"], b["scales_h"])
    units = np.zeros((len(b), 2), np.float32)
    units[:, 0] = b["d"]
    if "dmin" in (b.dtype.names or ()):
        units[:, 1] = b["dmin"]
    if "m" in (b.dtype.names or ()):
        units[:, 1] = -b["m"]
    return Parts(units, integers, _read_codes(b, kind).reshape(len(b), -1).astype(np.uint8))


def _read_codes(b: unpack32.Blocks, kind: BlockType) -> NDArray[np.integer[Any]]:
    match kind:
        case BlockType.Q8_0:
            return np.asarray(b["qs"].astype(np.int16) + 127)
        case BlockType.Q2_K:
            return unpack256.two_bit_codes(b["qs"])
        case BlockType.Q3_K:
            return unpack256.two_bit_codes(b["qs"]) | (unpack256.one_bit_codes(b["hmask"]) << 2)
        case BlockType.Q4_K:
            return unpack256.four_bit_codes(b["qs"])
        case BlockType.Q5_K:
            return unpack256.four_bit_codes(b["qs"]).reshape(-1, 256) | (unpack256.one_bit_codes(b["qh"]) << 4)
        case BlockType.Q6_K:
            return unpack256.six_bit_codes(b["ql"], b["qh"])
        case BlockType.Q5_0 | BlockType.Q5_1:
            return unpack32.nibbles(b["qs"]) | unpack32.fifth_bits(b["qh"])
        case BlockType.IQ4_XS:
            return unpack32.nibbles(b["qs"].reshape(-1, 8, 16))
        case _:
            return unpack32.nibbles(b["qs"])


def put_together(parts: Parts, kind: BlockType) -> Bytes:
    """The blocks, uint8 [n, block bytes]: the inverse of `take_apart`. Units must be exact in half precision."""
    count = len(parts.codes)
    data = np.zeros((count, kind.block_bytes), np.uint8)
    b = data.view(LAYOUTS[kind])[:, 0]
    b["d"] = parts.units[:, 0]
    if "dmin" in (b.dtype.names or ()):
        b["dmin"] = parts.units[:, 1]
    if "m" in (b.dtype.names or ()):
        b["m"] = -parts.units[:, 1]
    scale, floor = parts.integers[:, 0].astype(np.int16), parts.integers[:, 1].astype(np.uint8)
    match kind:
        case BlockType.Q2_K:
            b["scales"] = scale.astype(np.uint8) | (floor << 4)
        case BlockType.Q4_K | BlockType.Q5_K:
            b["scales"] = _twelve_bytes(scale.astype(np.uint8), floor)
        case BlockType.Q3_K:
            level = (scale + 32).astype(np.uint8)
            b["scales"][:, :8] = (level[:, :8] & 15) | (level[:, 8:] << 4)
            b["scales"][:, 8:] = _joined(level.reshape(count, 4, 4) >> 4, 2)
        case BlockType.Q6_K:
            b["scales"] = scale
        case BlockType.IQ4_XS:
            level = (scale + 32).astype(np.uint8)
            b["scales_l"] = (level[:, ::2] & 15) | (level[:, 1::2] << 4)
            b["scales_h"] = _joined((level >> 4).astype(np.uint16)[:, :, None], 2)[:, 0]
    _write_codes(b, kind, parts.codes)
    return data


def _write_codes(b: unpack32.Blocks, kind: BlockType, codes: Bytes) -> None:
    count = len(codes)
    match kind:
        case BlockType.Q8_0:
            b["qs"] = codes.astype(np.int16) - 127
        case BlockType.Q2_K:
            b["qs"] = _two_bits(codes)
        case BlockType.Q3_K:
            b["qs"] = _two_bits(codes & 3)
            b["hmask"] = _joined(codes.reshape(count, 8, 32) >> 2, 1)
        case BlockType.Q4_K | BlockType.Q5_K:
            pairs = codes.reshape(count, 4, 2, 32)
            b["qs"] = _nibbles(pairs[:, :, 0], pairs[:, :, 1]).reshape(count, 128)
            if kind is BlockType.Q5_K:
                b["qh"] = _joined(codes.reshape(count, 8, 32) >> 4, 1)
        case BlockType.Q6_K:
            quarters = codes.reshape(count, 2, 4, 32)
            b["ql"] = _nibbles(quarters[:, :, :2], quarters[:, :, 2:]).reshape(count, 128)
            b["qh"] = _two_bits(codes >> 4)
        case _:  # groups of 32, whose second half is in the upper halves of the bytes
            b["qs"] = nibbles((codes & np.uint8(15)).reshape(count, -1, 32)).reshape(count, -1)
            if "qh" in (b.dtype.names or ()):
                b["qh"] = np.packbits(codes >> 4, axis=-1, bitorder="little")


def _nibbles(low: NDArray[Any], high: NDArray[Any]) -> NDArray[Any]:
    return (low & 15) | (high << 4)


def _two_bits(codes: NDArray[Any]) -> NDArray[Any]:
    """The inverse of `unpack256.two_bit_codes`."""
    return _joined(codes.reshape(-1, 4, 32), 2).reshape(-1, 64)


def _joined(parts: NDArray[Any], bits: int) -> NDArray[Any]:
    """Numbers of `bits` bits [n, k, m] side by side, the first lowest: [n, m]."""
    total = np.zeros_like(parts[:, 0])
    for i in range(parts.shape[1]):
        total |= parts[:, i] << parts.dtype.type(bits * i)
    return total


def _twelve_bytes(scale: Bytes, floor: Bytes) -> Bytes:
    """The inverse of `unpack256.scales_and_mins`."""
    low = [part[:, :4] | (part[:, 4:] >> 4 << 6) for part in (scale, floor)]
    return np.concatenate([*low, (scale[:, 4:] & 15) | (floor[:, 4:] << 4)], axis=1)
