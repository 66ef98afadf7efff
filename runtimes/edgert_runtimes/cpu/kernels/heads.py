"""Matrix products head by head: see `ops.HeadLinear`."""

from __future__ import annotations

from edgert_quant.jit import kernel
from edgert_quant.jit.primitives import call3, call7, copy_bytes, load_i64, store_i64

from edgert_runtimes.cpu.kernels.linear import GEMM, GROUPS, MATRIX, N_PANELS, ROW_BYTES, X_BYTES, K, panel_groups
from edgert_runtimes.cpu.kernels.rows import OUT, OUT_STRIDE, WIDTH, X
from edgert_runtimes.cpu.kernels.table import CHUNKS, OPERANDS, PANELS, THREADS, TOKEN_TILE, rows_of, scratch_of, share

# Beside the fields of `linear`, of which N_PANELS, WIDTH and K are those of one head:
HEADS = OPERANDS + 14
HEAD_BYTES = OPERANDS + 15  # of one head's activations
REST = OPERANDS + 16  # elements behind those that are multiplied
SOURCE = OPERANDS + 17  # address of the floats
SOURCE_STRIDE = OPERANDS + 18
QUANTIZE = OPERANDS + 19
STAGE = OPERANDS + 20  # bytes from the start of the scratch memory to room for products of whole panels, or 0


@kernel
def quantize_heads(state: int, record: int, chunk: int, thread: int) -> None:
    """Rows of heads of floats → activations of what is multiplied; OUT_STRIDE counts bytes here."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    inward = load_i64(record, K)
    for row in range(first, end):
        x = load_i64(record, SOURCE) + 4 * row * load_i64(record, SOURCE_STRIDE)
        out = load_i64(record, OUT) + row * load_i64(record, OUT_STRIDE)
        for head in range(load_i64(record, HEADS)):
            source = x + 4 * head * (inward + load_i64(record, REST))
            call3(load_i64(record, QUANTIZE), source, out + head * load_i64(record, HEAD_BYTES), inward)


@kernel
def prepare_heads(state: int, record: int) -> int:
    """Chunks are stretches of the pairs of panels of all heads, times tiles of rows."""
    rows, heads = rows_of(state, record), load_i64(record, HEADS)
    panels = heads * ((load_i64(record, N_PANELS) + 1) // 2) * 2
    together = min(rows, TOKEN_TILE)
    groups = panel_groups(panels, load_i64(record, ROW_BYTES), load_i64(record, K), together, load_i64(state, THREADS))
    store_i64(record, GROUPS, groups)
    return int((rows + TOKEN_TILE - 1) // TOKEN_TILE * groups)


@kernel
def head_linear(state: int, record: int, chunk: int, thread: int) -> None:
    """Who has a head's first panels copies its rest. Products come in whole panels: where the last one reaches beyond a
    head's own elements, they are made elsewhere, and copied.
    """
    rows, groups = rows_of(state, record), load_i64(record, GROUPS)
    panels, k, width, rest = (
        load_i64(record, N_PANELS),
        load_i64(record, K),
        load_i64(record, WIDTH),
        load_i64(record, REST),
    )
    first_row = chunk // groups * TOKEN_TILE
    count = min(rows - first_row, TOKEN_TILE)
    pairs = (panels + 1) // 2
    first, end = share(load_i64(record, HEADS) * pairs, chunk % groups, groups)
    xs = scratch_of(state, thread)
    ys, stage = xs + 8 * TOKEN_TILE, load_i64(record, STAGE)
    for head in range(first // pairs, (end + pairs - 1) // pairs):
        low, high = 2 * max(first - head * pairs, 0), min(2 * (end - head * pairs), panels)
        y = load_i64(record, OUT) + 4 * (first_row * load_i64(record, OUT_STRIDE) + head * (width + rest))
        for t in range(count):
            row = first_row + t
            x = load_i64(record, X) + row * load_i64(record, X_BYTES) + head * load_i64(record, HEAD_BYTES)
            out = y + 4 * t * load_i64(record, OUT_STRIDE)
            store_i64(xs, t, x)
            store_i64(ys, t, xs + stage + 64 * panels * t if stage > 0 else out + 64 * low)
            if low == 0 and rest > 0:
                source = load_i64(record, SOURCE) + 4 * (row * load_i64(record, SOURCE_STRIDE) + head * (k + rest) + k)
                copy_bytes(out + 4 * width, source, 4 * rest)
        columns = min(16 * high, width) - 16 * low
        matrix = load_i64(record, MATRIX) + (head * width + 16 * low) * load_i64(record, ROW_BYTES)
        call7(load_i64(record, GEMM), matrix, columns, xs, ys, count, k, xs + PANELS)
        if stage > 0:
            for t in range(count):
                copy_bytes(y + 4 * t * load_i64(record, OUT_STRIDE) + 64 * low, load_i64(ys, t), 4 * columns)
