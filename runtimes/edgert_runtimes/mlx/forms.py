"""GGUF blocks → MLX's packed forms, in NumPy.

MLX keeps a matrix as whole numbers q with a scale and a bias for each group of 32 weights of a row, w = scale q + bias
("affine", 1 to 8 bits), or as MXFP4 ("mxfp4": the power of two that a group shares, and floats of 4 bits). Codes are a
stream of bits, the lowest first, in uint32 (`quantize` in MLX's documentation; the modes are tabled there).

Types that share a scale among 32 weights or more go over as they are. Those with groups of 16 do not; they are rounded
again, to enough bits that it costs little beside what their own rounding has cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.blocks.layout import LAYOUTS
from edgert_quant.blocks.unpack32 import IQ4_VALUES, fifth_bits, nibbles
from edgert_quant.blocks.unpack256 import four_bit_codes, iq4_scales, one_bit_codes, scales_and_mins, two_bit_codes
from numpy.typing import NDArray

GROUP = 32
"""Weights that share a scale."""

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Parts = tuple[Bytes, Floats | Bytes, Floats | None]
"""Codes uint8 [groups, 32], scales [groups] and biases [groups] (None for MXFP4, whose scales are exponents)."""


@dataclass(frozen=True)
class Form:
    """How a type goes over: bits a code, the mode, whether nothing is lost, and the function from raw rows to parts."""

    bits: int
    split: Callable[[Bytes], Parts]
    exact: bool = True
    mode: str = "affine"

    def nbytes(self, weights: int, scale_bytes: int) -> int:
        """Bytes of so many packed weights, with scales and biases of `scale_bytes` each."""
        groups = weights // GROUP
        return weights * self.bits // 8 + groups * (1 if self.mode == "mxfp4" else 2 * scale_bytes)


def pack(codes: Bytes, bits: int) -> Bytes:
    """Codes [..., n], n a multiple of 8, as a stream of bits: uint8 [..., n · bits / 8].

    Bytes and halves of bytes are quickly done. Else neighbours are joined three times: eight codes make a word of 64
    bits, of which the lowest 8 · bits count.
    """
    if bits == 8:
        return codes
    if bits == 4:
        return codes[..., 0::2] | np.left_shift(codes[..., 1::2], 4, dtype=np.uint8)
    words: NDArray[Any] = codes
    for size, kind in ((1, "<u2"), (2, "<u4"), (4, "<u8")):
        words = words[..., 0::2] | np.left_shift(words[..., 1::2], size * bits, dtype=kind)
    stream = words.view(np.uint8).reshape(*words.shape, 8)[..., :bits]
    return np.ascontiguousarray(stream).reshape(*codes.shape[:-1], -1)


def _blocks(raw: Bytes, kind: BlockType) -> NDArray[np.void]:
    return np.ascontiguousarray(raw).reshape(-1, kind.block_bytes).view(LAYOUTS[kind])[:, 0]


def _centred(codes: Any, d: Any, offset: int) -> Parts:
    """w = d (q - offset), for codes [n, ...] of any shape and scales [n] of blocks, or of groups."""
    codes = np.asarray(codes).reshape(-1, GROUP).astype(np.uint8)
    scales = d.astype(np.float32).reshape(-1)
    scales = np.repeat(scales, len(codes) // max(1, len(scales)))
    return codes, scales, scales * np.float32(-offset)


def _q4_0(raw: Bytes) -> Parts:
    b = _blocks(raw, BlockType.Q4_0)
    return _centred(nibbles(b["qs"]), b["d"], 8)


def _q5_0(raw: Bytes) -> Parts:
    b = _blocks(raw, BlockType.Q5_0)
    return _centred(nibbles(b["qs"]) | fifth_bits(b["qh"]), b["d"], 16)


def _q4_1(raw: Bytes) -> Parts:
    b = _blocks(raw, BlockType.Q4_1)
    return nibbles(b["qs"]), b["d"].astype(np.float32), b["m"].astype(np.float32)


def _q5_1(raw: Bytes) -> Parts:
    b = _blocks(raw, BlockType.Q5_1)
    codes = (nibbles(b["qs"]) | fifth_bits(b["qh"])).astype(np.uint8)
    return codes, b["d"].astype(np.float32), b["m"].astype(np.float32)


def _signed_bytes(kind: BlockType) -> Callable[[Bytes], Parts]:
    """w = d q with q signed: the sign bit turned makes it q + 128."""

    def split(raw: Bytes) -> Parts:
        b = _blocks(raw, kind)
        return _centred(b["qs"].view(np.uint8) ^ 0x80, b["d"], 128)

    return split


def _iq4_nl(raw: Bytes) -> Parts:
    b = _blocks(raw, BlockType.IQ4_NL)
    return _centred((IQ4_VALUES + 128).astype(np.uint8)[nibbles(b["qs"])], b["d"], 128)


def _iq4_xs(raw: Bytes) -> Parts:
    b = _blocks(raw, BlockType.IQ4_XS)
    codes = (IQ4_VALUES + 128).astype(np.uint8)[nibbles(b["qs"].reshape(-1, 8, 16))]
    scales = b["d"].astype(np.float32)[:, None] * iq4_scales(b["scales_l"], b["scales_h"]).astype(np.float32)
    return _centred(codes, scales, 128)


def _super_block(kind: BlockType) -> Callable[[Bytes], Parts]:
    """w = d scale q - dmin min: Q4_K, and Q5_K with a fifth bit."""

    def split(raw: Bytes) -> Parts:
        b = _blocks(raw, kind)
        codes = four_bit_codes(b["qs"])
        if kind is BlockType.Q5_K:
            codes = codes | one_bit_codes(b["qh"]).reshape(-1, 8, GROUP) << 4
        scales, mins = scales_and_mins(b["scales"])
        step = b["d"].astype(np.float32)[:, None] * scales.astype(np.float32)
        floor = b["dmin"].astype(np.float32)[:, None] * mins.astype(np.float32)
        return codes.reshape(-1, GROUP).astype(np.uint8), step.reshape(-1), -floor.reshape(-1)

    return split


def _tq1_0(raw: Bytes) -> Parts:
    """Weights are -d, 0 or d, packed in powers of three: it is simpler to begin with the weights."""
    weights = dequantize(raw, BlockType.TQ1_0).reshape(-1, GROUP)
    return _centred(np.sign(weights) + 1, np.abs(weights).max(axis=1), 1)


def _tq2_0(raw: Bytes) -> Parts:
    """w = d (q - 1): 64 bytes of codes in Q2_K's order, then d."""
    b = np.ascontiguousarray(raw).reshape(-1, BlockType.TQ2_0.block_bytes)
    return _centred(two_bit_codes(b[:, :64]), np.ascontiguousarray(b[:, 64:]).view(np.float16), 1)


def _mxfp4(raw: Bytes) -> Parts:
    b = _blocks(raw, BlockType.MXFP4)
    return nibbles(b["qs"]), b["e"], None


def _rounded(kind: BlockType, bits: int) -> Callable[[Bytes], Parts]:
    """Weights rounded to the nearest of 2^bits steps from the smallest to the largest of their group."""

    def split(raw: Bytes) -> Parts:
        weights = dequantize(raw, kind).reshape(-1, GROUP)
        low = weights.min(axis=1)
        scales = (weights.max(axis=1) - low) / np.float32((1 << bits) - 1)
        inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)
        codes = np.rint((weights - low[:, None]) * inverse[:, None])
        return codes.astype(np.uint8), scales, low

    return split


_ROUNDED_BITS = {
    BlockType.Q6_K: 8,
    BlockType.Q3_K: 5,
    BlockType.IQ3_S: 5,
    BlockType.IQ3_XXS: 5,
    BlockType.Q2_K: 4,
    BlockType.Q2_0: 4,
    BlockType.Q1_0: 4,
    BlockType.IQ2_S: 4,
    BlockType.IQ2_XS: 4,
    BlockType.IQ2_XXS: 4,
    BlockType.IQ1_S: 4,
    BlockType.IQ1_M: 4,
    BlockType.NVFP4: 6,
}

FORMS: dict[BlockType, Form] = {
    BlockType.Q4_0: Form(4, _q4_0),
    BlockType.Q4_1: Form(4, _q4_1),
    BlockType.Q5_0: Form(5, _q5_0),
    BlockType.Q5_1: Form(5, _q5_1),
    BlockType.Q8_0: Form(8, _signed_bytes(BlockType.Q8_0)),
    BlockType.Q8_1: Form(8, _signed_bytes(BlockType.Q8_1)),
    BlockType.Q8_K: Form(8, _signed_bytes(BlockType.Q8_K)),
    BlockType.Q4_K: Form(4, _super_block(BlockType.Q4_K)),
    BlockType.Q5_K: Form(5, _super_block(BlockType.Q5_K)),
    BlockType.IQ4_NL: Form(8, _iq4_nl),
    BlockType.IQ4_XS: Form(8, _iq4_xs),
    BlockType.TQ1_0: Form(2, _tq1_0),
    BlockType.TQ2_0: Form(2, _tq2_0),
    BlockType.MXFP4: Form(4, _mxfp4, mode="mxfp4"),
    **{kind: Form(bits, _rounded(kind, bits), exact=False) for kind, bits in _ROUNDED_BITS.items()},
}
"""Of every type that is no plain float. Exact ones give what `dequantize` gives, with scales in float32 bit for bit
(IQ4_XS but for the rounding of a float32 product).
"""
