"""Each 8-bit float code has the value its format gives it."""

import math

import numpy as np
import pytest
from edgert_quant.checkpoint.dtypes import BITS, STORAGE, to_float32


def decode(code: int, exponent_bits: int, mantissa_bits: int) -> float:
    """By the definition of IEEE 754, with infinities and NaN where it has them."""
    sign = -1.0 if code & 128 else 1.0
    exponent, mantissa = (code & 127) >> mantissa_bits, code & (1 << mantissa_bits) - 1
    bias = (1 << exponent_bits - 1) - 1
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)


def table(dtype: str) -> np.ndarray:
    return to_float32(np.arange(256, dtype=np.uint8), dtype)


def test_e4m3():
    values = table("F8_E4M3")
    for code in range(256):
        if code & 127 == 127:
            assert math.isnan(values[code])
        else:
            assert values[code] == decode(code, 4, 3)
    assert np.nanmax(values) == 448
    assert values[1] == 2.0**-9


def test_e5m2():
    values = table("F8_E5M2")
    for code in range(256):
        magnitude = code & 127
        if magnitude > 0x7C:
            assert math.isnan(values[code])
        elif magnitude == 0x7C:
            assert values[code] == (-math.inf if code & 128 else math.inf)
        else:
            assert values[code] == decode(code, 5, 2)
    assert values[0x7B] == 57344
    # E5M2 is the upper half of a float16.
    halves = (np.arange(256, dtype=np.uint16) << 8).view(np.float16).astype(np.float32)
    assert np.array_equal(values, halves, equal_nan=True)


def test_e8m0():
    values = table("F8_E8M0")
    assert values[127] == 1
    assert values[0] == 2.0**-127
    assert values[254] == 2.0**127
    assert math.isnan(values[255])


@pytest.mark.parametrize("dtype", sorted(STORAGE))
def test_every_readable_type_gives_float32(dtype):
    bits = np.zeros((2, 3), STORAGE[dtype])
    assert bits.itemsize * 8 == BITS[dtype]
    values = to_float32(bits, dtype)
    assert values.dtype == np.float32
    assert values.shape == (2, 3)
    assert (values == (0 if dtype != "F8_E8M0" else 2.0**-127)).all()


def test_bf16_is_exact_for_every_pattern():
    bits = np.arange(65_536, dtype=np.uint16)
    assert np.array_equal(to_float32(bits, "BF16").view(np.uint32), bits.astype(np.uint32) << 16)
