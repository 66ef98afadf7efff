"""Bytes to weights, for every tensor type of GGUF: exact, in NumPy, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from edgert_models.errors import RequestError
from numpy.typing import NDArray

from edgert_quant.blocks import unpack32, unpack256, unpack_grid
from edgert_quant.blocks.layout import LAYOUTS
from edgert_quant.blocks.types import BlockType

Floats = NDArray[np.float32]

CHUNK_WEIGHTS = 1 << 18  # weights unpacked at a time: intermediate arrays stay under some ten megabytes

PLAIN = {
    BlockType.F32: "<f4",
    BlockType.F16: "<f2",
    BlockType.F64: "<f8",
    BlockType.I8: "i1",
    BlockType.I16: "<i2",
    BlockType.I32: "<i4",
    BlockType.I64: "<i8",
}

UNPACKERS: dict[BlockType, Callable[[NDArray[np.void]], Floats]] = {
    BlockType.Q1_0: unpack32.q1_0,
    BlockType.Q2_0: unpack32.q2_0,
    BlockType.Q4_0: unpack32.q4_0,
    BlockType.Q4_1: unpack32.q4_1,
    BlockType.Q5_0: unpack32.q5_0,
    BlockType.Q5_1: unpack32.q5_1,
    BlockType.Q8_0: unpack32.q8_0,
    BlockType.Q8_1: unpack32.q8_0,
    BlockType.IQ4_NL: unpack32.iq4_nl,
    BlockType.MXFP4: unpack32.mxfp4,
    BlockType.Q2_K: unpack256.q2_k,
    BlockType.Q3_K: unpack256.q3_k,
    BlockType.Q4_K: unpack256.q4_k,
    BlockType.Q5_K: unpack256.q5_k,
    BlockType.Q6_K: unpack256.q6_k,
    BlockType.Q8_K: unpack256.q8_k,
    BlockType.IQ4_XS: unpack256.iq4_xs,
    BlockType.IQ2_XXS: unpack_grid.iq2_xxs,
    BlockType.IQ2_XS: unpack_grid.iq2_xs,
    BlockType.IQ2_S: unpack_grid.iq2_s,
    BlockType.IQ3_XXS: unpack_grid.iq3_xxs,
    BlockType.IQ3_S: unpack_grid.iq3_s,
}


def dequantize(data: NDArray[np.uint8], type: BlockType) -> Floats:  # noqa: A002
    """The weights stored in `data`.

    `data` is uint8 [..., row bytes]; the result is float32 [..., weights per row], a new array. Types of 64-bit numbers
    are rounded to float32. Scales are taken as they are: a damaged file may yield infinities and NaNs, never an error.
    `RequestError` if the rows of `data` are no whole number of blocks.
    """
    if data.dtype != np.uint8 or data.ndim == 0 or data.shape[-1] % type.block_bytes:
        raise RequestError(
            f"{type.name} is unpacked from rows of uint8 in blocks of {type.block_bytes} bytes, "
            f"not from {data.dtype} {list(data.shape)}",
            parameter="data",
        )
    blocks = data.reshape(-1, type.block_bytes)
    out = np.empty((len(blocks), type.block_size), np.float32)
    unpack = _unpacker(type)
    step = CHUNK_WEIGHTS // type.block_size
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            part = slice(start, start + step)
            out[part] = unpack(np.ascontiguousarray(blocks[part]))
    return out.reshape(*data.shape[:-1], data.shape[-1] // type.block_bytes * type.block_size)


def _unpacker(kind: BlockType) -> Callable[[NDArray[np.uint8]], NDArray[np.generic]]:
    """A function from contiguous blocks [n, block bytes] to numbers [n, block size]."""
    if kind in PLAIN:
        number = np.dtype(PLAIN[kind])
        return lambda blocks: blocks.view(number)
    if kind is BlockType.BF16:
        return _bf16
    if kind in UNPACKERS:
        layout, unpack = LAYOUTS[kind], UNPACKERS[kind]
        return lambda blocks: unpack(blocks.view(layout)[:, 0])
    return _gguf_py(kind)


def _bf16(blocks: NDArray[np.uint8]) -> Floats:
    """bfloat16 is the upper half of a float32."""
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _gguf_py(kind: BlockType) -> Callable[[NDArray[np.uint8]], Floats]:
    """gguf-py's own function: the types IQ1, TQ and NVFP4."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize as unpack

    other = GGMLQuantizationType(int(kind))
    return lambda blocks: np.asarray(unpack(blocks, other), np.float32)
