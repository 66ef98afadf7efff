"""Angles."""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import device
from numpy import float64

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
