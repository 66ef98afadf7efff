"""Matrix products: y = x Wᵀ + bias. A *panel* is 16 rows of a matrix."""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import device, kernel
from edgert_quant.jit.primitives import call7, load_f32, load_i64, store_f32, store_i64

from edgert_runtimes.cpu.kernels.rows import OUT, OUT_STRIDE, WIDTH, X
from edgert_runtimes.cpu.kernels.table import (
    CHUNKS_PER_THREAD,
    MIN_CHUNK,
    MULTIPLIES,
    OPERANDS,
    PANELS,
    READ_BYTES,
    THREADS,
    TOKEN_TILE,
    rows_of,
    scratch_of,
    share,
)

X_BYTES = OPERANDS + 3  # of one row of activations
MATRIX = OPERANDS + 7
N_PANELS = OPERANDS + 8
ROW_BYTES = OPERANDS + 9  # of the matrix
K = OPERANDS + 10
GEMM = OPERANDS + 11
BIAS = OPERANDS + 12  # address, or 0
GROUPS = OPERANDS + 13  # set by prepare: into how many parts the panels are divided


@device
def panel_groups(panels: Any, row_bytes: Any, k: Any, rows: Any, threads: Any) -> Any:
    """Into how many groups, of whole pairs of panels, to divide a matrix for `rows` rows."""
    pairs = (panels + 1) // 2
    if threads == 1:
        return 1
    cost = panels * (16 * row_bytes // READ_BYTES + rows * k * 16 // MULTIPLIES)
    return max(1, min(cost // MIN_CHUNK, threads * CHUNKS_PER_THREAD, pairs))


@device
def panels_of_group(panels: Any, group: Any, groups: Any) -> Any:
    """The panels (first, end) of one group."""
    first, end = share((panels + 1) // 2, group, groups)
    return 2 * first, min(2 * end, panels)


@kernel
def prepare_linear(state: int, record: int) -> int:
    """Chunks are groups of panels times tiles of rows."""
    rows = rows_of(state, record)
    tiles = (rows + TOKEN_TILE - 1) // TOKEN_TILE
    together = min(rows, TOKEN_TILE)
    groups = panel_groups(
        load_i64(record, N_PANELS),
        load_i64(record, ROW_BYTES),
        load_i64(record, K),
        together,
        load_i64(state, THREADS),
    )
    store_i64(record, GROUPS, groups)
    return int(tiles * groups)


@kernel
def linear(state: int, record: int, chunk: int, thread: int) -> None:
    """A group of panels for a tile of rows."""
    rows, groups = rows_of(state, record), load_i64(record, GROUPS)
    first_row = chunk // groups * TOKEN_TILE
    count = min(rows - first_row, TOKEN_TILE)
    first, end = panels_of_group(load_i64(record, N_PANELS), chunk % groups, groups)
    xs = scratch_of(state, thread)
    ys = xs + 8 * TOKEN_TILE
    stride, width = load_i64(record, OUT_STRIDE), load_i64(record, WIDTH)
    for t in range(count):
        row = first_row + t
        store_i64(xs, t, load_i64(record, X) + row * load_i64(record, X_BYTES))
        store_i64(ys, t, load_i64(record, OUT) + 4 * (row * stride + 16 * first))
    columns = min(16 * end, width) - 16 * first
    matrix = load_i64(record, MATRIX) + 16 * first * load_i64(record, ROW_BYTES)
    call7(load_i64(record, GEMM), matrix, columns, xs, ys, count, load_i64(record, K), xs + PANELS)
    bias = load_i64(record, BIAS)
    if bias != 0:
        for t in range(count):
            y = load_i64(ys, t)
            for i in range(columns):
                store_f32(y, i, load_f32(y, i) + load_f32(bias, 16 * first + i))
