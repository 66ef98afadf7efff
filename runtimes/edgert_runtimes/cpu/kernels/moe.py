"""Mixture of experts, as four kinds of records:

    route    per row: the chosen experts and their shares (see `route`)
    inward   per expert: gate and up products, the activation, and its results as inputs of the down product
    outward  per expert: the down product
    combine  per row: the sum by shares, in the order of choice, and what the model adds to it

The rows of each expert go through its matrices together, so that these are read once. Experts read and write rows by
address; nothing is gathered. Work is divided into *units*: a strip, which is panels whose columns are a block of what
the next product reads, times a tile of rows.

Experts have different numbers of rows, so chunks are stretches of equal length of a line on which every unit has its
cost: one may be a part of an expert with many rows, another several experts.
"""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import device, kernel
from edgert_quant.jit.primitives import call3, call4, call7, load_f32, load_i32, load_i64, store_i64

from edgert_runtimes.cpu.kernels.route import ACTIVE, SHARES, SORTED, STARTS, USED, sort_pairs
from edgert_runtimes.cpu.kernels.rows import OUT, OUT_STRIDE, WIDTH, X_STRIDE, Y_STRIDE, X, Y
from edgert_runtimes.cpu.kernels.table import (
    CHUNKS,
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
from edgert_runtimes.cpu.kernels.vectors import add_to, add_weighted_sum, multiply_by, weighted_sum

N_ACTIVE = OPERANDS + 16  # set by prepare
COSTS = OPERANDS + 17  # int64 [experts + 1]: where each active expert's work begins on the line
K = OPERANDS + 18
GATE = OPERANDS + 19  # matrices of all experts, gemm, bytes of a row, activations and the bytes of one row of them
GATE_GEMM = OPERANDS + 20
GATE_ROW_BYTES = OPERANDS + 21
GATE_X = OPERANDS + 22
GATE_X_BYTES = OPERANDS + 23
UP = OPERANDS + 24
UP_GEMM = OPERANDS + 25
UP_ROW_BYTES = OPERANDS + 26
UP_X = OPERANDS + 27
UP_X_BYTES = OPERANDS + 28
N_PANELS = OPERANDS + 29  # of one expert
QUANTIZE = OPERANDS + 30  # of the down product's activations; OUT has these by pair, OUT_STRIDE counts bytes
STRIP_BYTES = OPERANDS + 31  # of a block of the down product's activations
STRIP = OPERANDS + 32  # panels of a strip
GATE_BIAS = OPERANDS + 33  # addresses of floats [experts, WIDTH], or 0
UP_BIAS = OPERANDS + 34
ACTIVATE = OPERANDS + 35  # one of `gates`
WEIGHTS = OPERANDS + 36  # address of floats [rows, USED] that what enters experts is multiplied with, or 0

MOST_CHUNKS = 1 << 20
"""What the executor's ticket has room for, and more than enough."""

LONG_CHUNK = 1_000_000
"""Nanoseconds of work that are worth a chunk of their own: what a late thread costs at most."""

HIDDEN_ROOM = 256 * TOKEN_TILE
"""Floats of gates, and as many of ups, that a thread keeps until they are activations: the largest strip has room."""

SCRATCH = PANELS + 2 * 4 * HIDDEN_ROOM
"""Where in a thread's scratch memory matmuls pack panels in `inward`: behind the hidden values."""


@device
def rows_of_expert(record: Any, expert: Any) -> Any:
    """How many rows chose it."""
    starts = load_i64(record, STARTS)
    return load_i32(starts, expert + 1) - load_i32(starts, expert)


@device
def tiles_of(rows: Any) -> Any:
    """Into how many tiles rows are divided, all of one size or nearly."""
    return (rows + TOKEN_TILE - 1) // TOKEN_TILE


@device
def units_of(record: Any, rows: Any) -> Any:
    """Of an expert with so many rows."""
    strip = load_i64(record, STRIP)
    return (load_i64(record, N_PANELS) + strip - 1) // strip * tiles_of(rows)


@device
def divide_experts(state: Any, record: Any, matrices: Any, row_bytes: Any) -> Any:
    """Fill COSTS; the number of chunks. N_ACTIVE must be set; `row_bytes` are those of all `matrices`."""
    active, threads, k = load_i64(record, N_ACTIVE), load_i64(state, THREADS), load_i64(record, K)
    strip, costs = load_i64(record, STRIP), load_i64(record, COSTS)
    line, all_units = 0, 0
    for i in range(active):
        rows = rows_of_expert(record, load_i32(load_i64(record, ACTIVE), i))
        units = units_of(record, rows)
        store_i64(costs, i, line)
        work = 16 * row_bytes // READ_BYTES + rows // tiles_of(rows) * matrices * k * 16 // MULTIPLIES
        line += units * (1 + strip * work)
        all_units += units
    store_i64(costs, active, line)
    if threads == 1:
        return min(active, 1)
    chunks = min(line // MIN_CHUNK, threads * CHUNKS_PER_THREAD + line // LONG_CHUNK, all_units, MOST_CHUNKS)
    return max(chunks, min(active, 1))


@device
def line_of_chunk(record: Any, chunk: Any) -> Any:
    """From where to where a chunk reaches on the line."""
    whole = load_i64(load_i64(record, COSTS), load_i64(record, N_ACTIVE))
    return share(whole, chunk, load_i64(record, CHUNKS))


@device
def units_between(record: Any, i: Any, low: Any, high: Any) -> Any:
    """The units (first, end) of the i-th active expert that begin on this part of the line: strip after strip, and tile
    after tile in each.
    """
    begin = load_i64(load_i64(record, COSTS), i)
    units = units_of(record, rows_of_expert(record, load_i32(load_i64(record, ACTIVE), i)))
    cost = (load_i64(load_i64(record, COSTS), i + 1) - begin) // units
    first = min(max(low - begin + cost - 1, 0) // cost, units)
    end = min(max(high - begin + cost - 1, 0) // cost, units)
    return first, end


@device
def strips_at(unit: Any, end: Any, tiles: Any) -> Any:
    """How many strips to take at once from a unit on: all that are left where they have one tile."""
    return end - unit if tiles == 1 else 1


@device
def add_bias(record: Any, bias: Any, expert: Any, column: Any, columns: Any, ys: Any, rows: Any) -> Any:
    """Add some columns of an expert's bias (a field of the record) to rows, if there is one."""
    if load_i64(record, bias) != 0:
        source = load_i64(record, bias) + 4 * (expert * load_i64(record, WIDTH) + column)
        for t in range(rows):
            add_to(load_i64(ys, t), source, columns)


@kernel
def prepare_inward(state: int, record: int) -> int:
    """Sort the rows by expert, and divide the work."""
    store_i64(record, N_ACTIVE, sort_pairs(state, record))
    row_bytes = load_i64(record, GATE_ROW_BYTES) + load_i64(record, UP_ROW_BYTES)
    return int(divide_experts(state, record, 2, row_bytes))


@kernel
def inward(state: int, record: int, chunk: int, thread: int) -> None:
    """Hidden values f(gate x, up x) of some units."""
    low, high = line_of_chunk(record, chunk)
    for i in range(load_i64(record, N_ACTIVE)):
        first, end = units_between(record, i, low, high)
        if first < end:
            expert_inward(state, record, load_i32(load_i64(record, ACTIVE), i), first, end, thread)


@device(inline=False)
def expert_inward(state: Any, record: Any, expert: Any, first: Any, end: Any, thread: Any) -> Any:
    """Several strips at once, as many as have room in scratch memory, or a single one for one tile of rows."""
    used, k, width = load_i64(record, USED), load_i64(record, K), load_i64(record, WIDTH)
    gate_bytes, up_bytes = load_i64(record, GATE_ROW_BYTES), load_i64(record, UP_ROW_BYTES)
    pairs = load_i64(record, SORTED) + 4 * load_i32(load_i64(record, STARTS), expert)
    rows, strip = rows_of_expert(record, expert), load_i64(record, STRIP)
    tiles, xs = tiles_of(rows), scratch_of(state, thread)
    ys, up_xs, up_ys = xs + 8 * TOKEN_TILE, xs + 16 * TOKEN_TILE, xs + 24 * TOKEN_TILE
    gates = xs + PANELS
    unit = first
    while unit < end:
        start, stop = share(rows, unit % tiles, tiles)
        strips = min(strips_at(unit, end, tiles), HIDDEN_ROOM // (16 * strip * (stop - start)))
        column = 16 * strip * (unit // tiles)
        columns = min(16 * strip * strips, width - column)
        gate = load_i64(record, GATE) + (expert * width + column) * gate_bytes
        up = load_i64(record, UP) + (expert * width + column) * up_bytes
        out = load_i64(record, OUT) + unit // tiles * load_i64(record, STRIP_BYTES)
        tile, size = stop - start, 64 * strip * strips
        for t in range(tile):
            row = load_i32(pairs, start + t) // used
            store_i64(xs, t, load_i64(record, GATE_X) + row * load_i64(record, GATE_X_BYTES))
            store_i64(up_xs, t, load_i64(record, UP_X) + row * load_i64(record, UP_X_BYTES))
            store_i64(ys, t, gates + t * size)
            store_i64(up_ys, t, gates + 4 * HIDDEN_ROOM + t * size)
        call7(load_i64(record, GATE_GEMM), gate, columns, xs, ys, tile, k, xs + SCRATCH)
        call7(load_i64(record, UP_GEMM), up, columns, up_xs, up_ys, tile, k, xs + SCRATCH)
        add_bias(record, GATE_BIAS, expert, column, columns, ys, tile)
        add_bias(record, UP_BIAS, expert, column, columns, up_ys, tile)
        for t in range(tile):
            y, pair = load_i64(ys, t), load_i32(pairs, start + t)
            if load_i64(record, WEIGHTS) != 0:
                weight = load_f32(load_i64(record, WEIGHTS), pair)
                multiply_by(y, columns, weight)
                multiply_by(load_i64(up_ys, t), columns, weight)
            call4(load_i64(record, ACTIVATE), y, y, load_i64(up_ys, t), columns)
            call3(load_i64(record, QUANTIZE), y, out + pair * load_i64(record, OUT_STRIDE), columns)
        unit += strips


SOURCE = OPERANDS + 31  # of `outward`: the address of N_ACTIVE in the record of `inward`; its strips are two panels


@kernel
def prepare_outward(state: int, record: int) -> int:
    """The rows are sorted already."""
    store_i64(record, N_ACTIVE, load_i64(load_i64(record, SOURCE), 0))
    return int(divide_experts(state, record, 1, load_i64(record, GATE_ROW_BYTES)))


@kernel
def outward(state: int, record: int, chunk: int, thread: int) -> None:
    """The down product of some units: GATE… are the down matrices and biases, activations are by pair."""
    low, high = line_of_chunk(record, chunk)
    for i in range(load_i64(record, N_ACTIVE)):
        first, end = units_between(record, i, low, high)
        if first < end:
            expert_outward(state, record, load_i32(load_i64(record, ACTIVE), i), first, end, thread)


@device(inline=False)
def expert_outward(state: Any, record: Any, expert: Any, first: Any, end: Any, thread: Any) -> Any:
    """The sums go to OUT [pairs, OUT_STRIDE], as floats."""
    k, stride, x_bytes = load_i64(record, K), load_i64(record, OUT_STRIDE), load_i64(record, GATE_X_BYTES)
    width, strip = load_i64(record, WIDTH), load_i64(record, STRIP)
    pairs = load_i64(record, SORTED) + 4 * load_i32(load_i64(record, STARTS), expert)
    rows = rows_of_expert(record, expert)
    tiles, xs = tiles_of(rows), scratch_of(state, thread)
    ys = xs + 8 * TOKEN_TILE
    unit = first
    while unit < end:
        start, stop = share(rows, unit % tiles, tiles)
        strips = strips_at(unit, end, tiles)
        column = 16 * strip * (unit // tiles)
        columns = min(16 * strip * strips, width - column)
        down = load_i64(record, GATE) + (expert * width + column) * load_i64(record, GATE_ROW_BYTES)
        for t in range(stop - start):
            pair = load_i32(pairs, start + t)
            store_i64(xs, t, load_i64(record, GATE_X) + pair * x_bytes)
            store_i64(ys, t, load_i64(record, OUT) + 4 * (pair * stride + column))
        call7(load_i64(record, GATE_GEMM), down, columns, xs, ys, stop - start, k, xs + PANELS)
        add_bias(record, GATE_BIAS, expert, column, columns, ys, stop - start)
        unit += strips


@kernel
def combine(state: int, record: int, chunk: int, thread: int) -> None:
    """out = Σ share · x over a row's pairs, rank after rank; y + that where there is a Y, which may be out."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    used, width, stride = load_i64(record, USED), load_i64(record, WIDTH), load_i64(record, X_STRIDE)
    for row in range(first, end):
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        x, shares = load_i64(record, X) + 4 * row * used * stride, load_i64(record, SHARES) + 4 * row * used
        if load_i64(record, Y) == 0:
            weighted_sum(out, x, stride, shares, used, width)
        else:
            y = load_i64(record, Y) + 4 * row * load_i64(record, Y_STRIDE)
            add_weighted_sum(out, y, x, stride, shares, used, width)
