"""Reading 16 raw GGUF rows side by side: the first half of everything that packs.

Words of 16 rows are made of 16 bytes of each row at a time. Four vectors hold the bytes of rows j, 4 + j, 8 + j and
12 + j (j = 0 … 3) in their quarters of 128 bits; interleaving them within the quarters, words and then pairs of words,
leaves word after word with the rows in order. No instruction crosses quarters, which is what CPUs do fastest.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import (
    I16,
    I32,
    Offset,
    Value,
    add,
    i64,
    join,
    load,
    multiply,
    shift_right,
    shuffle,
    step,
)

QUARTER = 4
"""Words of 128 bits."""


class RawRows:
    """Sixteen rows in memory, `stride` bytes apart, from the pointer `first` on. Where `rows` says that there are
    fewer, 1 at least, the lanes beyond hold the first row again.

    `start` is an offset into each row that all reads add; set it inside a loop over the blocks of a row.
    """

    def __init__(self, b: ir.IRBuilder, first: Value, stride: Value, rows: Value | None = None) -> None:
        self._b = b
        self.first = first
        self.stride = stride
        self._rows = rows
        self.start: Offset = 0

    def columns(self, offset: Offset, count: int, element: Any = I32) -> list[Value]:
        """`count` elements (words or halves) from `offset` on of every row: for each, the vector of its 16 rows.
        Sixteen bytes are read at a time where there are so many.
        """
        b, size = self._b, element.width // 8
        whole = count * size // (4 * QUARTER)
        words: list[Value] = []
        for piece in range(whole):
            words += self._quarter(add(b, offset, 4 * QUARTER * piece))
        if size == 2:
            kind = ir.VectorType(I16, LANES)
            words = [b.trunc(shift_right(b, word, 16 * half), kind) for word in words for half in range(2)]
        return words + [self.column(add(b, offset, size * i), element) for i in range(len(words), count)]

    def column(self, offset: Offset, element: Any = I32) -> Value:
        """One element at `offset` of every row."""
        b = self._b
        vector = ir.Constant(ir.VectorType(element, LANES), ir.Undefined)
        for lane in range(LANES):
            vector = b.insert_element(vector, load(b, self._row(lane), offset, element), ir.Constant(I32, lane))
        return vector

    def _quarter(self, offset: Offset) -> list[Value]:
        """Four words of 16 rows."""
        b, kind = self._b, ir.VectorType(I32, QUARTER)
        pieces = [load(b, self._row(lane), offset, kind) for lane in range(LANES)]
        mixed = [join(b, pieces[j::QUARTER]) for j in range(QUARTER)]
        pairs = [_interleave(b, mixed[i], mixed[i + 1], 1, high) for high in (0, 1) for i in (0, 2)]
        return [_interleave(b, pairs[2 * half], pairs[2 * half + 1], 2, high) for half in (0, 1) for high in (0, 1)]

    def _row(self, lane: int) -> Value:
        """The pointer to `start` of a row."""
        b = self._b
        number: Offset = lane
        if self._rows is not None:
            number = b.select(b.icmp_signed("<", i64(lane), self._rows), i64(lane), i64(0))
            return step(b, self.first, add(b, multiply(b, number, self.stride), self.start))
        # Four pointers and multiples of the stride are all that a loop must keep in registers.
        base = step(b, self.first, add(b, multiply(b, self.stride, lane // QUARTER * QUARTER), self.start))
        return step(b, base, multiply(b, self.stride, lane % QUARTER) if lane % QUARTER else 0)


def _interleave(b: ir.IRBuilder, x: Value, y: Value, words: int, high: int) -> Value:
    """The low or the high halves of every quarter of two vectors, taking turns by some words."""
    order = []
    for quarter in range(0, LANES, QUARTER):
        for start in range(quarter + 2 * high, quarter + 2 * high + 2, words):
            order += [start + i + LANES * second for second in (0, 1) for i in range(words)]
    return shuffle(b, x, y, order)
