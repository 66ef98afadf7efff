"""Weights out of the small blocks (32, 64 or 128 weights, one scale each).

Every function takes an array of `n` blocks in the structure of `layout` and returns float32 [n, block size]. A code `q`
is the unsigned integer stored for a weight; d and m are the block's scale and minimum, widened from half precision.
Byte layouts and formulas: `dequantize_row_*` of ggml's `ggml-quants.c`, restated beside each function.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Blocks = NDArray[np.void]
Floats = NDArray[np.float32]

IQ4_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
    np.float32,
)
"""The sixteen levels of IQ4_NL and IQ4_XS (`kvalues_iq4nl` of `ggml-common.h`)."""

E2M1_VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
"""Twice the values of the 4-bit float E2M1; negative zero reads as zero, as in ggml."""


def widen(half: NDArray[np.float16]) -> Floats:
    """Half precision [n] as a float32 column [n, 1]."""
    return half.astype(np.float32)[:, None]


def nibbles(qs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes [n, 32] of bytes [n, 16]: byte j holds weight j in its low half and weight j + 16 in its high half."""
    return np.concatenate([qs & 15, qs >> 4], axis=-1)


def fifth_bits(qh: NDArray[np.uint8]) -> NDArray[np.integer[Any]]:
    """Bit 4 of 32 codes, [n, 32]: bit j of the little-endian word `qh` belongs to weight j."""
    return np.unpackbits(qh, axis=-1, bitorder="little") << 4


def q1_0(b: Blocks) -> Floats:
    """w[j] = d if bit j % 8 of byte j // 8 is set, else -d."""
    d = widen(b["d"])
    return np.where(np.unpackbits(b["qs"], axis=-1, bitorder="little").view(np.bool_), d, -d)


def q2_0(b: Blocks) -> Floats:
    """w[j] = d (q[j] - 1), codes of two bits, four to a byte, low bits first."""
    q = (b["qs"][:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    return widen(b["d"]) * (q.reshape(len(b), 64).astype(np.float32) - 1)


def q4_0(b: Blocks) -> Floats:
    """w[j] = d (q[j] - 8)."""
    return widen(b["d"]) * (nibbles(b["qs"]).astype(np.float32) - 8)


def q4_1(b: Blocks) -> Floats:
    """w[j] = d q[j] + m."""
    return widen(b["d"]) * nibbles(b["qs"]).astype(np.float32) + widen(b["m"])


def q5_0(b: Blocks) -> Floats:
    """w[j] = d (q[j] - 16); the fifth bits of the codes are in `qh`."""
    q = nibbles(b["qs"]) | fifth_bits(b["qh"])
    return widen(b["d"]) * (q.astype(np.float32) - 16)


def q5_1(b: Blocks) -> Floats:
    """w[j] = d q[j] + m; the fifth bits of the codes are in `qh`."""
    q = nibbles(b["qs"]) | fifth_bits(b["qh"])
    return widen(b["d"]) * q.astype(np.float32) + widen(b["m"])


def q8_0(b: Blocks) -> Floats:
    """w[j] = d q[j], q signed. Q8_1 differs only by a stored d · sum(q), which no weight needs."""
    return widen(b["d"]) * b["qs"].astype(np.float32)


def iq4_nl(b: Blocks) -> Floats:
    """w[j] = d `IQ4_VALUES`[q[j]]."""
    return widen(b["d"]) * IQ4_VALUES[nibbles(b["qs"])]


def mxfp4(b: Blocks) -> Floats:
    """w[j] = 2^(e - 127) E2M1(q[j]): `E2M1_VALUES` are doubled, so the power is one less.

    The specification reserves e = 255 for NaN; ggml reads it as a power like any other, and so do we.
    """
    d = np.ldexp(np.float32(1), b["e"].astype(np.int32) - 128)
    return d[:, None] * E2M1_VALUES[nibbles(b["qs"])]
