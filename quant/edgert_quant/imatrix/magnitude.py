"""What counts beside the inputs where types have few bits: how large a weight is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, quantize

FEW_BITS = 3.1
"""Bits per weight below which magnitudes count. The demo model's mean divergence with them, as a part of that without
(7,366 predictions by stock llama.cpp): IQ1_M .89, IQ2_XXS .93, IQ2_XS .91, IQ2_M .92, Q2_K .95; IQ3_XXS 1.02, and .95,
.98 and .98 of three other students'; but IQ4_XS 1.03.
"""


def with_magnitudes(
    importance: NDArray[np.float32], weights: NDArray[np.float32], kind: BlockType
) -> NDArray[np.float32]:
    """The importance of each weight for `quantize`: that of its column ([n], or of the weights' shape), for types of
    few bits times √(mean square of its super-block + w²), as llama.cpp's quantizers weigh by an importance matrix.

    With so few bits the least squares shrink a matrix, and its large weights most.
    """
    if kind.bits_per_weight >= FEW_BITS or kind.block_size != 256:
        return importance
    blocks = weights.reshape(-1, kind.block_size)
    squares = blocks * blocks
    squares += squares.mean(axis=1, keepdims=True)
    found: NDArray[np.float32] = importance * np.sqrt(squares, out=squares).reshape(weights.shape)
    return found


def quantize_weighed(
    weights: NDArray[np.float32], kind: BlockType, importance: NDArray[np.float32] | None, *, threads: int | None = None
) -> NDArray[np.uint8]:
    """`quantize` with the importance of columns, if there is one, and magnitudes where they count."""
    if importance is not None:
        importance = with_magnitudes(importance, weights, kind)
    return quantize(weights, kind, importance=importance, threads=threads)
