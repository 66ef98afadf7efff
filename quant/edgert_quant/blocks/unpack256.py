"""Weights out of the super-blocks of 256 weights: groups of 16 or 32 with integer scales on a grid of the super-block.

Every function takes an array of `n` blocks in the structure of `layout` and returns float32 [n, 256]. A code `q` is the
unsigned integer stored for a weight; d and dmin are the super-block's scales, widened from half precision. Byte layouts
and formulas: `dequantize_row_*` of ggml's `ggml-quants.c`, restated beside each function.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgert_quant.blocks.unpack32 import IQ4_VALUES, Blocks, Floats, nibbles, widen

Bytes = NDArray[np.uint8]
Codes = NDArray[np.integer[Any]]

TWO_BIT_SHIFTS = np.array([0, 2, 4, 6], np.uint8)[:, None]


def two_bit_codes(qs: Bytes) -> Codes:
    """Codes [n, 256] of bytes [n, 64]: byte 32 h + l holds weights 128 h + 32 s + l in its bits 2 s, 2 s + 1."""
    return ((qs.reshape(-1, 2, 1, 32) >> TWO_BIT_SHIFTS) & 3).reshape(-1, 256)


def four_bit_codes(qs: Bytes) -> Codes:
    """Codes [n, 8, 32] of bytes [n, 128]: byte 32 c + l holds weights 64 c + l (low half) and 64 c + 32 + l."""
    chunks = qs.reshape(-1, 4, 32)
    return np.stack([chunks & 15, chunks >> 4], axis=2).reshape(-1, 8, 32)


def scales_and_mins(packed: Bytes) -> tuple[Codes, Codes]:
    """The eight 6-bit scales and eight 6-bit minima, each [n, 8], of the 12 bytes of Q4_K and Q5_K.

    Bytes 0-3 hold scales 0-3 and bytes 4-7 minima 0-3 in their low six bits; byte 8 + i holds the low four bits of
    scale 4 + i and (high half) of minimum 4 + i, whose upper two bits are the upper two bits of bytes i and 4 + i.
    """
    a, b, c = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([a & 63, (c & 15) | ((a >> 6) << 4)], axis=1)
    mins = np.concatenate([b & 63, (c >> 4) | ((b >> 6) << 4)], axis=1)
    return scales, mins


def scale_and_shift(q: Codes, d: Floats, scales: Codes, dmin: Floats, mins: Codes) -> Floats:
    """(d scale) q - (dmin min) for codes [n, groups, group size]; flattened to [n, 256]."""
    step = (d * scales.astype(np.float32))[:, :, None]
    floor = (dmin * mins.astype(np.float32))[:, :, None]
    return (step * q.astype(np.float32) - floor).reshape(-1, 256)


def scale_groups(step: Floats, q: Floats) -> Floats:
    """Every group's values [n, 256] times its step [n, groups]."""
    groups = step.shape[1]
    return np.multiply(step[:, :, None], q.reshape(-1, groups, 256 // groups)).reshape(-1, 256)


def q2_k(b: Blocks) -> Floats:
    """w = d scale q - dmin min; `scales[g]` holds scale (low half) and minimum of the 16 weights of group g."""
    q = two_bit_codes(b["qs"]).reshape(-1, 16, 16)
    return scale_and_shift(q, widen(b["d"]), b["scales"] & 15, widen(b["dmin"]), b["scales"] >> 4)


def signed_scales(packed: Bytes) -> Codes:
    """The sixteen 6-bit scales, int8 [n, 16], of the 12 bytes of Q3_K: stored with 32 added.

    The low halves of bytes 0-7 are the low four bits of scales 0-7, their high halves those of scales 8-15; bits 2 k,
    2 k + 1 of byte 8 + i are the upper two bits of scale 4 k + i.
    """
    low, upper = packed[:, :8], packed[:, None, 8:]
    scales = np.concatenate([low & 15, low >> 4], axis=1)
    scales |= (((upper >> TWO_BIT_SHIFTS) & 3) << 4).reshape(-1, 16)
    return np.asarray(scales.astype(np.int8) - np.int8(32))


def one_bit_codes(bits: Bytes) -> Codes:
    """Bits [n, 256] of bytes [n, 32]: bit g of byte l belongs to weight 32 g + l."""
    return np.asarray(((bits[:, None, :] >> np.arange(8, dtype=np.uint8)[:, None]) & 1).reshape(-1, 256))


def q3_k(b: Blocks) -> Floats:
    """w = d scale (q - 4), groups of 16; bit 2 of the codes is in `hmask`. See `signed_scales`."""
    q = two_bit_codes(b["qs"]) | (one_bit_codes(b["hmask"]) << 2)
    step = widen(b["d"]) * signed_scales(b["scales"]).astype(np.float32)
    return scale_groups(step, q.astype(np.float32) - 4)


def q4_k(b: Blocks) -> Floats:
    """w = d scale q - dmin min, groups of 32; see `four_bit_codes` and `scales_and_mins`."""
    scales, mins = scales_and_mins(b["scales"])
    return scale_and_shift(four_bit_codes(b["qs"]), widen(b["d"]), scales, widen(b["dmin"]), mins)


def q5_k(b: Blocks) -> Floats:
    """As Q4_K, with bit 4 of the codes in `qh` (`one_bit_codes`)."""
    scales, mins = scales_and_mins(b["scales"])
    q = four_bit_codes(b["qs"]) | (one_bit_codes(b["qh"]).reshape(-1, 8, 32) << 4)
    return scale_and_shift(q, widen(b["d"]), scales, widen(b["dmin"]), mins)


def six_bit_codes(ql: Bytes, qh: Bytes) -> Codes:
    """Codes [n, 256] of Q6_K. Of weight 128 h + 32 s + l, the low four bits are in byte 64 h + 32 (s % 2) + l of `ql`
    (the low half for s < 2), the upper two bits in bits 2 s, 2 s + 1 of byte 32 h + l of `qh`.
    """
    low = ql.reshape(-1, 2, 64)
    return np.asarray(np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 256) | (two_bit_codes(qh) << 4))


def q6_k(b: Blocks) -> Floats:
    """w = d scale (q - 32), groups of 16, scales signed; see `six_bit_codes`."""
    step = np.multiply(widen(b["d"]), b["scales"], dtype=np.float32)
    return scale_groups(step, six_bit_codes(b["ql"], b["qh"]).astype(np.float32) - 32)


def q8_k(b: Blocks) -> Floats:
    """w = d q, q signed, d a float32. ggml uses the type only between kernels; `bsums` are sums of sixteen codes."""
    return scale_groups(b["d"].astype(np.float32)[:, None], b["qs"].astype(np.float32))


def iq4_scales(low: Bytes, high: NDArray[np.uint16]) -> Codes:
    """The eight 6-bit scales, int8 [n, 8], of IQ4_XS: stored with 32 added. The low four bits of scale g are in half
    g % 2 of byte g // 2 of `low` [n, 4], its upper two bits in bits 2 g, 2 g + 1 of `high` [n].
    """
    four = np.stack([low & 15, low >> 4], axis=2).reshape(-1, 8)
    upper = (high[:, None] >> np.arange(0, 16, 2, dtype=np.uint16)) & 3
    return np.asarray((four | (upper << 4)).astype(np.int8) - np.int8(32))


def iq4_xs(b: Blocks) -> Floats:
    """w = d scale `IQ4_VALUES`[q], groups of 32 whose codes are packed as in IQ4_NL; see `iq4_scales`."""
    step = widen(b["d"]) * iq4_scales(b["scales_l"], b["scales_h"]).astype(np.float32)
    return scale_groups(step, IQ4_VALUES[nibbles(b["qs"].reshape(-1, 8, 16))])
