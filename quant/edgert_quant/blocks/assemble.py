"""Blocks of 32 weights out of given codes and scales: the inverse of `unpack32`, where nothing is searched."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgert_quant.blocks.layout import LAYOUTS
from edgert_quant.blocks.types import BlockType

CENTRED: dict[BlockType, tuple[int, int]] = {
    BlockType.Q4_0: (-8, 7),
    BlockType.Q5_0: (-16, 15),
    BlockType.Q8_0: (-128, 127),
}
"""Types whose weights are d · c for a whole number c, and the range of c; smallest first."""


def is_half(x: NDArray[np.float32]) -> bool:
    """Whether every number is finite and the same in half precision."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        half = x.astype(np.float16)
    return bool(np.isfinite(half).all() and (half.astype(np.float32) == x).all())


def nibbles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes [..., 32] of four bits as bytes [..., 16], as `unpack32.nibbles` reads them."""
    return codes[..., :16] | np.left_shift(codes[..., 16:], 4)


def centred(d: NDArray[np.floating[Any]], c: NDArray[np.int8], kind: BlockType) -> NDArray[np.uint8]:
    """Blocks of weights d · c, uint8 [..., block bytes], for scales [...] that are halves and c [..., 32] in the range
    of `CENTRED[kind]`.
    """
    blocks = np.zeros(d.shape, LAYOUTS[kind])
    blocks["d"] = d
    if kind is BlockType.Q8_0:
        blocks["qs"] = c
    else:
        codes = c.view(np.uint8) + np.uint8(-CENTRED[kind][0])
        blocks["qs"] = nibbles(codes if kind is BlockType.Q4_0 else np.bitwise_and(codes, 15))
        if kind is BlockType.Q5_0:
            blocks["qh"] = np.packbits(codes >> 4, axis=-1, bitorder="little")
    return _bytes(blocks, kind)


def with_minimum(
    d: NDArray[np.floating[Any]], m: NDArray[np.floating[Any]], codes: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Blocks of Q4_1, uint8 [..., 20]: weights d · code + m, for d and m [...] that are halves and codes [..., 32] from
    0 to 15.
    """
    blocks = np.zeros(d.shape, LAYOUTS[BlockType.Q4_1])
    blocks["d"], blocks["m"], blocks["qs"] = d, m, nibbles(codes)
    return _bytes(blocks, BlockType.Q4_1)


def _bytes(blocks: NDArray[np.void], kind: BlockType) -> NDArray[np.uint8]:
    return blocks.view(np.uint8).reshape(*blocks.shape, kind.block_bytes)
