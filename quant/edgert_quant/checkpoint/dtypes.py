"""The element types of safetensors, and what they are in float32.

Source: the safetensors format description (`docs/source/index.mdx` and `safetensors/src/tensor.rs`); FP8: "FP8 Formats
for Deep Learning", Micikevicius et al. 2022; E8M0: OCP Microscaling Formats (MX) 1.0.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from edgert_models.errors import UnsupportedError

BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits per element of every type of the format."""

STORAGE: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "F8_E5M2": np.dtype("u1"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E8M0": np.dtype("u1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
"""The NumPy type that holds the bits of each type edgert reads."""


def storage_dtype(dtype: str, what: str) -> np.dtype[np.generic]:
    """The NumPy type that holds the bits of `dtype`; `UnsupportedError`, naming `what`, for a type not read."""
    try:
        return STORAGE[dtype]
    except KeyError:
        readable = ", ".join(STORAGE)
        raise UnsupportedError(f"{what} is stored as {dtype}; edgert reads {readable}") from None


def to_float32(bits: np.ndarray, dtype: str) -> np.ndarray:
    """Values of `bits` (of `STORAGE[dtype]`) as float32; float32 itself is returned without a copy.

    Exact for every type but F64 and the 32- and 64-bit integers, which are rounded to nearest; a float64 beyond the
    range of float32 becomes infinite.
    """
    if dtype == "F32":
        return bits
    if dtype == "BF16":  # the upper half of a float32
        wide = np.empty(bits.shape, np.uint32)
        np.left_shift(bits, 16, out=wide, dtype=np.uint32)
        return wide.view(np.float32)
    if dtype in ("F8_E4M3", "F8_E5M2", "F8_E8M0"):
        table: np.ndarray = _float8_table(dtype)[bits]
        return table
    with np.errstate(over="ignore", invalid="ignore"):
        return bits.astype(np.float32)


@cache
def _float8_table(dtype: str) -> np.ndarray:
    """The float32 value of each of the 256 codes.

    E4M3 (as in `float8_e4m3fn`): bias 7, no infinities, NaN where all other bits are set. E5M2: bias 15, infinities and
    NaN as in IEEE 754. E8M0: 2^(code - 127) without a sign, NaN at 255.
    """
    codes = np.arange(256, dtype=np.int64)
    if dtype == "F8_E8M0":
        values = np.ldexp(1.0, codes - 127)
        values[255] = np.nan
        return values.astype(np.float32)
    mantissa_bits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    mantissa = codes & ((1 << mantissa_bits) - 1)
    exponent = (codes & 127) >> mantissa_bits
    normal = np.ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits)
    subnormal = np.ldexp(mantissa, 1 - bias - mantissa_bits)
    values = np.where(exponent == 0, subnormal, normal)
    if dtype == "F8_E4M3":
        values[(codes & 127) == 127] = np.nan
    else:
        values[exponent == 31] = np.where(mantissa[exponent == 31] == 0, np.inf, np.nan)
    table: np.ndarray = np.where(codes >= 128, -values, values).astype(np.float32)
    return table
