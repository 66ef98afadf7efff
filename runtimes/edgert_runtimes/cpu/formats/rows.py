"""Reading 16 raw GGUF rows side by side: the first half of every pack kernel."""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import (
    I32,
    WORDS,
    Offset,
    Value,
    add,
    i64,
    join,
    load,
    pointer,
    split,
    step,
    transpose,
)


class RawRows:
    """1 to 16 rows in memory, `stride` bytes apart; lanes beyond `rows` read as zeros.

    `start` is an offset into each row that all reads add; set it inside a loop over the blocks of a row.
    """

    def __init__(self, b: ir.IRBuilder, source: Value, stride: Value, rows: Value) -> None:
        self._b = b
        first = pointer(b, source)
        self._rows = []
        for lane in range(LANES):
            inside = b.icmp_signed("<", i64(lane), rows)
            offset = b.mul(stride, i64(lane))
            self._rows.append(step(b, first, b.select(inside, offset, i64(0))))
        lanes = ir.Constant(WORDS, list(range(LANES)))
        self._keep = b.sext(b.icmp_signed("<", lanes, emit.splat(b, b.trunc(rows, I32), LANES)), WORDS)
        self.start: Offset = 0

    def columns(self, offset: Offset, count: int, element: Any = I32) -> list[Value]:
        """`count` elements from `offset` on of every row, `count` a power of two up to 16: for each element, the vector
        of its 16 rows.
        """
        b = self._b
        kind = ir.VectorType(element, count)
        place = add(b, self.start, offset)
        vectors = transpose(b, [load(b, row, place, kind) for row in self._rows])
        each = LANES // count
        whole = [join(b, vectors[i : i + each]) for i in range(0, LANES, each)]
        return [self._kept(vector) for long in whole for vector in split(b, long, LANES)]

    def column(self, offset: Offset, element: Any = I32) -> Value:
        """One element at `offset` of every row."""
        b = self._b
        vector = ir.Constant(ir.VectorType(element, LANES), ir.Undefined)
        place = add(b, self.start, offset)
        for lane, row in enumerate(self._rows):
            vector = b.insert_element(vector, load(b, row, place, element), ir.Constant(I32, lane))
        return self._kept(vector)

    def _kept(self, vector: Value) -> Value:
        b = self._b
        narrow = vector.type.element.width < 32
        return b.and_(vector, b.trunc(self._keep, vector.type) if narrow else self._keep)
