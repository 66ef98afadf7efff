"""What adapters add to products, row by row."""

from __future__ import annotations

from edgert_quant.jit import kernel
from edgert_quant.jit.primitives import copy_bytes, dot_f32, load_f32, load_i32, load_i64, store_f32

from edgert_runtimes.cpu.kernels.rows import OUT, OUT_STRIDE, WIDTH, X_STRIDE, Y_STRIDE, X, Y
from edgert_runtimes.cpu.kernels.table import ADAPTERS, CHUNKS, OPERANDS, PICK, rows_of, scratch_of, share

A = OPERANDS + 8
B = OPERANDS + 9
RANK = OPERANDS + 10
K = OPERANDS + 11  # elements of x
PICKED = OPERANDS + 12  # 1 where rows are the picked ones


@kernel
def low_rank(state: int, record: int, chunk: int, thread: int) -> None:
    """See `ops.LowRank`; may run in place over y. Sums have an order that depends on the rank and the widths only."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    width, rank, k = load_i64(record, WIDTH), load_i64(record, RANK), load_i64(record, K)
    inner = scratch_of(state, thread)
    for row in range(first, end):
        y = load_i64(record, Y) + 4 * row * load_i64(record, Y_STRIDE)
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        if out != y:
            copy_bytes(out, y, 4 * width)
        place = row
        if load_i64(record, PICKED) != 0:
            place = int(load_i32(load_i64(state, PICK), row))
        adapter = load_i32(load_i64(state, ADAPTERS), place)
        if adapter < 0:
            continue
        x = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        a = load_i64(record, A) + 4 * adapter * rank * k
        for i in range(rank):
            store_f32(inner, i, dot_f32(a + 4 * i * k, x, k))
        b = load_i64(record, B) + 4 * adapter * rank * width
        for i in range(rank):
            factor = load_f32(inner, i)
            for j in range(width):
                store_f32(out, j, load_f32(out, j) + factor * load_f32(b + 4 * i * width, j))
