"""The quantizer for MXFP4: 32 weights as 4-bit floats (E2M1) times a power of two.

Format: OCP Microscaling Formats (MX) specification, version 1.0; bytes: `block_mxfp4` of ggml's `ggml-common.h`.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgert_quant.blocks.codes import Codes
from edgert_quant.blocks.lanes import I8, ROUND, Lanes, Value, Variable, address, splat, store
from edgert_quant.blocks.pack import put_nibbles
from edgert_quant.blocks.search import INFINITY, Tile, choose, errors, grid_of, peaks


class E2M1(Codes):
    """Twice the values of a 4-bit float: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives."""

    low, high, number = -12, 12, 15

    def nearest(self, place: Lanes, *, inside: bool = False) -> Lanes:
        """Rounded in steps of 1 below 4, of 2 below 8, of 4 above, and limited."""
        size = place.magnitude().minimum(self.high)
        coarse = (size < 8).where(splat(place.b, 2 * ROUND), 4 * ROUND)
        shift = (size < 4).where(splat(place.b, ROUND), coarse)
        sign = place.bits() & -0x80000000
        return (((size + shift) - shift).bits() | sign).floats()

    def index(self, place: Lanes) -> Lanes:
        """The four bits: the sign, and the number of the magnitude."""
        value = self.nearest(place)
        size = value.magnitude()
        number = (size < 8).where(size * 0.5 + 2, size * 0.25 + 4)
        number = (size < 4).where(size, number).integer()
        return number | value.bits() >> 28 & 8


def mxfp4(tile: Tile, targets: list[Value], shifts: Sequence[int]) -> list[Lanes]:
    """Blocks of MXFP4, one to a lane, with the best of some exponents: those that make the greatest weight 4 to 8 (what
    ggml takes), shifted by so much. Less than 6 or more is clipped. No half-precision number is stored.
    """
    b, codes = tile.b, E2M1()
    usual = (peaks(tile).magnitude().bits() >> 23) - 2
    best, exponent = Variable(b, splat(b, INFINITY)), Variable(b, usual)
    tried = [(usual + shift).clamp(2, 254) for shift in shifts]
    results = [errors(tile, [(_half_of_power(item), None)], codes)[0] for item in tried]
    for error, item in zip(results, tried, strict=True):
        choose(b, best, error, (exponent, item))
    for lane, start in enumerate(targets):
        store(b, b.trunc(exponent.get().lane(lane), I8), address(b, start, 0))
    put_nibbles(tile, grid_of(_half_of_power(exponent.get()), None), codes, targets, 1)
    return []


def _half_of_power(exponent: Lanes) -> Lanes:
    """2^(exponent - 128), as codes are twice the values; the exponent is 2 or more, for 1 / this to be finite."""
    return ((exponent - 1) << 23).floats()
