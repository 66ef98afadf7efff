"""Bytes to weights of the types IQ2 and IQ3, whose codes are points of a grid with signs beside them.

Layouts: the `block_iq2_*` and `block_iq3_*` of ggml's `ggml-common.h`. Eight weights have eight signs: where only seven
are stored, the number of negative ones is even. Scales are 4 bits, of 16 or 32 weights.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgert_quant.blocks.grids import grid_levels, grid_points
from edgert_quant.blocks.types import BlockType
from edgert_quant.blocks.unpack32 import Blocks, Floats, widen

Bytes = NDArray[np.uint8]
_SEVENS = np.arange(0, 28, 7, dtype=np.uint32)


@cache
def _values(kind: BlockType) -> Floats:
    """The grid's points as floats."""
    return np.array(grid_levels(kind), np.float32)[grid_points(kind)]


@cache
def _signs() -> Floats:
    """Eight signs, 1 or -1, by the byte whose bits say which weights are negative."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return (1 - 2 * bits.astype(np.float32)).astype(np.float32)


@cache
def _even() -> Bytes:
    """The byte of eight signs by seven of them."""
    seven = np.arange(128, dtype=np.uint8)
    odd = np.unpackbits(seven[:, None], axis=1).sum(axis=1) % 2
    return np.asarray(seven | (odd << 7), np.uint8)


def _weights(kind: BlockType, index: NDArray[np.integer[Any]], signs: Bytes, scale: Floats) -> Floats:
    """`index` [n, points], `signs` [n, 32], `scale` [n, groups] of equal length."""
    points = _values(kind)[index].reshape(len(index), scale.shape[1], -1)
    points *= scale[:, :, None]
    points = points.reshape(len(index), 32, 8)
    points *= _signs()[signs]
    return np.asarray(points.reshape(len(index), 256))


def _nibbles(scales: Bytes) -> Floats:
    """Low half first."""
    return np.stack([scales & 15, scales >> 4], axis=-1).reshape(len(scales), -1).astype(np.float32)


def _sevens(words: NDArray[np.uint32]) -> tuple[Bytes, Floats]:
    """Signs [n, 4 · words] and scales [n, words] in words of four times seven bits and four."""
    found = (words[:, :, None] >> _SEVENS) & 127
    return _even()[found].reshape(len(words), -1), (words >> 28).astype(np.float32)


def iq2_xxs(b: Blocks) -> Floats:
    """w = d (1/2 + s) / 4 · sign · point, groups of 32: four indices of a byte, then signs and scale in a word."""
    signs, scales = _sevens(np.ascontiguousarray(b["qs"]).view("<u4")[:, 1::2])
    index = np.ascontiguousarray(b["qs"]).view(np.uint8).reshape(-1, 8, 8)[:, :, :4].reshape(-1, 32)
    return _weights(BlockType.IQ2_XXS, index, signs, widen(b["d"]) * (np.float32(0.5) + scales) * np.float32(0.25))


def iq2_xs(b: Blocks) -> Floats:
    """w = d (1/2 + s) / 4 · sign · point, groups of 16: words of nine bits of index and seven signs."""
    scale = widen(b["d"]) * (np.float32(0.5) + _nibbles(b["scales"])) * np.float32(0.25)
    return _weights(BlockType.IQ2_XS, b["qs"] & 511, _even()[b["qs"] >> 9], scale)


def iq2_s(b: Blocks) -> Floats:
    """w = d (1/2 + s) / 4 · sign · point, groups of 16; two more bits of each index are in `qh`."""
    high = (b["qh"][:, :, None] >> np.arange(0, 8, 2, dtype=np.uint8)) & 3
    index = b["qs"].astype(np.uint16) | (high.reshape(-1, 32).astype(np.uint16) << 8)
    scale = widen(b["d"]) * (np.float32(0.5) + _nibbles(b["scales"])) * np.float32(0.25)
    return _weights(BlockType.IQ2_S, index, b["signs"], scale)


def iq3_xxs(b: Blocks) -> Floats:
    """w = d (1/2 + s) / 2 · sign · point, groups of 32; points are of four weights, signs and scales in words."""
    signs, scales = _sevens(b["words"])
    return _weights(BlockType.IQ3_XXS, b["qs"], signs, widen(b["d"]) * (np.float32(0.5) + scales) * np.float32(0.5))


def iq3_s(b: Blocks) -> Floats:
    """w = d (1 + 2 s) · sign · point, groups of 32; points are of four weights; bit 8 of each index is in `qh`."""
    high = np.unpackbits(b["qh"], axis=1, bitorder="little").astype(np.uint16)
    index = b["qs"].astype(np.uint16) | (high << 8)
    return _weights(BlockType.IQ3_S, index, b["signs"], widen(b["d"]) * (1 + 2 * _nibbles(b["scales"])))
