"""Functions of one number, written so that LLVM can do 16 at once."""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import device
from edgert_quant.jit.primitives import bits_of_float, float_of_bits, fma
from numpy import float32, float64, int32

LOG2E = float32(1.44269504)
LN2_HIGH = float32(0.693145752)  # 15 bits: exact times any exponent
LN2_LOW = float32(1.42860677e-06)
ROUNDER = float32(12582912.0)  # 1.5 · 2^23: adding it leaves the nearest integer in the low bits
LARGEST = float32(88.3762626)
SMALLEST = float32(-87.3365479)


@device
def exp(x: Any) -> Any:
    """e^x with a relative error of 1e-7; saturates at e^88.37, is 0 below -87.33, and NaN for NaN.

    Cody-Waite reduction to |r| ≤ ln 2 / 2 and the Taylor polynomial of degree 7, whose error there is 5e-9.
    """
    clamped = x
    if x > LARGEST:
        clamped = LARGEST
    if x < SMALLEST:
        clamped = SMALLEST
    shifted = fma(clamped, LOG2E, ROUNDER)
    n = shifted - ROUNDER
    r = fma(n, -LN2_HIGH, clamped)
    r = fma(n, -LN2_LOW, r)
    p = fma(r, float32(1.0 / 5040.0), float32(1.0 / 720.0))
    p = fma(p, r, float32(1.0 / 120.0))
    p = fma(p, r, float32(1.0 / 24.0))
    p = fma(p, r, float32(1.0 / 6.0))
    p = fma(p, r, float32(0.5))
    p = fma(p, r, float32(1.0))
    p = fma(p, r, float32(1.0))
    scale = float_of_bits(int32((bits_of_float(shifted) << int32(23)) + int32(0x3F800000)))
    result = p * scale
    if x < SMALLEST:
        result = float32(0.0)
    return result


@device
def silu(x: Any) -> Any:
    """x / (1 + e^-x)."""
    return x / (float32(1.0) + exp(-x))


TWO_OVER_PI = 0.6366197723675814
PI_2_HIGH = 1.5707963267341256  # 33 bits: exact times integers below 2^20
PI_2_LOW = 6.077100506506192e-11


@device
def sine_and_cosine(angle: Any) -> Any:
    """(sin, cos) of a float64 angle below 10^6, each within 1e-13: Taylor polynomials on |r| ≤ π/4."""
    k = float64(int(angle * TWO_OVER_PI + 0.5)) if angle >= 0.0 else -float64(int(-angle * TWO_OVER_PI + 0.5))
    r = (angle - k * PI_2_HIGH) - k * PI_2_LOW
    z = r * r
    s = -1.0 / 1307674368000.0
    for c in (1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0):
        s = s * z + c
    s *= r
    c = 1.0 / 20922789888000.0
    for d in (-1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0, 1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0):
        c = c * z + d
    c = (c * z - 0.5) * z + 1.0
    quadrant = int(k) & 3
    if quadrant == 0:
        return s, c
    if quadrant == 1:
        return c, -s
    if quadrant == 2:
        return -s, -c
    return -c, s
