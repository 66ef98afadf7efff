"""Quantizers for the ternary types: TQ1_0 and TQ2_0, 256 weights of -d, 0 or d (BitNet, TriLM).

Byte layouts: `quantize_row_tq1_0_ref` and `quantize_row_tq2_0_ref` of ggml's `ggml-quants.c`, restated below.
"""

from __future__ import annotations

from llvmlite import ir

from edgert_quant.blocks.codes import Range
from edgert_quant.blocks.lanes import I8, I16, Lanes, Value, address, store
from edgert_quant.blocks.pack import CodeRows, put_half, two_bits
from edgert_quant.blocks.search import NORMAL, Tile, fit_scale, grid_of, peaks

GROUP = 16
"""Weights of a lane: the sixteen lanes hold one block."""

CODES = Range(-1, 1)
STARTS = (1, 2, 3, 5, 8, 20)
"""The greatest weight as a multiple of d. With 1 weights that are ternary already keep their values; about 2.3 is best
for Gaussian weights, more where a few are much larger than all others.
"""


def ternary(tile: Tile, targets: list[Value], *, packed: bool) -> list[Lanes]:
    """One block of TQ1_0 (`packed`: five codes to a byte) or TQ2_0; returns d."""
    peak = peaks(tile).magnitude().across(GROUP, "max")
    d = fit_scale(tile, CODES, peak, STARTS, NORMAL, lanes=GROUP).half()
    rows = CodeRows(tile, grid_of(d, None), CODES)
    put = put_tq1 if packed else put_tq2
    put(tile.b, rows, targets[0], d)
    return [d]


def put_tq2(b: ir.IRBuilder, rows: CodeRows, start: Value, d: Lanes) -> None:
    """TQ2_0: 64 bytes of two-bit codes, as those of Q2_K, then d."""
    two_bits(b, rows, start, 0)
    put_half(b, d, 0, address(b, start, 64))


def put_tq1(b: ir.IRBuilder, rows: CodeRows, start: Value, d: Lanes) -> None:
    """TQ1_0: 32 bytes of weights m, m + 32, … m + 128; 16 bytes of weights 160 + m, 160 + m + 16, …; four bytes of
    weights 240 + m, 240 + m + 4, … 240 + m + 12; then d.
    """
    place = 0
    for first, width, number in ((0, 32, 5), (160, 16, 5), (240, 4, 4)):
        digits = [rows.take(first + width * n, width) for n in range(number)]
        store(b, _five_digits(b, digits), address(b, start, place))
        place += width
    put_half(b, d, 0, address(b, start, place))


def _five_digits(b: ir.IRBuilder, digits: list[Value]) -> Value:
    """Bytes of five digits in base 3, the first the highest, missing ones 0: ⌈256 n / 243⌉, out of which a reader gets
    digit after digit by multiplying by 3.
    """
    wide = ir.VectorType(I16, digits[0].type.count)

    def all_of(number: int) -> Value:
        return ir.Constant(wide, [number] * wide.count)

    total = all_of(0)
    for n in range(5):
        total = b.mul(total, all_of(3))
        if n < len(digits):
            total = b.add(total, b.zext(digits[n], wide))
    rounded_up = b.udiv(b.add(b.shl(total, all_of(8)), all_of(242)), all_of(243))
    return b.trunc(rounded_up, ir.VectorType(I8, wide.count))
