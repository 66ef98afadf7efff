"""Mixture of experts, as six kinds of records:

    route    per row: the chosen experts and their weights
    inward   per expert and group of panels: gate and up products, and the activation (its prepare sorts rows by expert)
    quantize per pair: the hidden values as activations (only where the format needs it; `rows.quantize`)
    outward  per expert and group of panels: the down product
    combine  per row: the weighted sum, in the order of choice

A *pair* is a row with one of its experts: pair = row · used + rank. Experts read and write by address; nothing is
gathered.
"""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import device, kernel
from edgert_quant.jit.primitives import (
    call7,
    load_f32,
    load_i32,
    load_i64,
    load_u8,
    store_f32,
    store_i32,
    store_i64,
    store_u8,
    zero_bytes,
)
from numpy import float32

from edgert_runtimes.cpu.kernels.linear import panel_groups, panels_of_group
from edgert_runtimes.cpu.kernels.rows import OUT, OUT_STRIDE, WIDTH, X_STRIDE, X
from edgert_runtimes.cpu.kernels.table import (
    CHUNKS,
    MIN_CHUNK,
    OP,
    OPERANDS,
    PANELS,
    STATUS,
    THREADS,
    TOKEN_TILE,
    rows_of,
    scratch_of,
    share,
)
from edgert_runtimes.cpu.kernels.vectors import exp, gate_by_silu

EXPERTS = OPERANDS + 8
USED = OPERANDS + 9
IDS = OPERANDS + 10  # int32 [rows, used]
SHARES = OPERANDS + 11  # float32 [rows, used]
NORMALIZE = OPERANDS + 12
SORTED = OPERANDS + 13  # int32 [pairs], by expert, in the order of rows
STARTS = OPERANDS + 14  # int32 [experts + 1]: where each expert's pairs start
ACTIVE = OPERANDS + 15  # int32 [experts]: the experts that have pairs
N_ACTIVE = OPERANDS + 16  # set by prepare
GROUPS = OPERANDS + 17  # set by prepare
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
UP_OUT = OPERANDS + 29  # float32 [pairs, OUT_STRIDE]; OUT has the gates, then the hidden values
N_PANELS = OPERANDS + 30  # of one expert

MOST_CHUNKS = 1 << 20
"""What the executor's ticket has room for, and more than enough."""


@kernel
def route(state: int, record: int, chunk: int, thread: int) -> None:
    """The `used` largest logits of every row (X), the lower index first among equals: unique and in range for any
    input. A row with a NaN, or an infinity that makes one, sets STATUS.
    """
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    experts, used, normalize = load_i64(record, EXPERTS), load_i64(record, USED), load_i64(record, NORMALIZE)
    taken = scratch_of(state, thread)
    for row in range(first, end):
        logits = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        zero_bytes(taken, experts)
        highest = load_f32(logits, 0)
        for rank in range(used):
            best = -1
            for expert in range(experts):
                if load_u8(taken, expert) == 0 and (best < 0 or load_f32(logits, expert) > load_f32(logits, best)):
                    best = expert
            store_u8(taken, best, 1)
            store_i32(load_i64(record, IDS), row * used + rank, best)
            if rank == 0:
                highest = load_f32(logits, best)
        chosen = float32(0.0)
        for rank in range(used):
            expert = load_i32(load_i64(record, IDS), row * used + rank)
            p = exp(load_f32(logits, expert) - highest)
            chosen += p
            store_f32(load_i64(record, SHARES), row * used + rank, p)
        everything = float32(0.0)
        for expert in range(experts):
            everything += exp(load_f32(logits, expert) - highest)
        if not everything < float32(1e30):
            store_i64(state, STATUS, load_i64(record, OP) + 1)
        divisor = chosen if normalize != 0 else everything
        for rank in range(used):
            at = row * used + rank
            store_f32(load_i64(record, SHARES), at, load_f32(load_i64(record, SHARES), at) / divisor)


@device
def sort_pairs(state: Any, record: Any) -> Any:
    """Fill SORTED, STARTS and ACTIVE by counting; the number of experts that have pairs."""
    experts, pairs = load_i64(record, EXPERTS), rows_of(state, record)
    ids, starts, order = load_i64(record, IDS), load_i64(record, STARTS), load_i64(record, SORTED)
    active = load_i64(record, ACTIVE)
    zero_bytes(starts, 4 * (experts + 1))
    for pair in range(pairs):
        expert = load_i32(ids, pair)
        store_i32(starts, expert, load_i32(starts, expert) + 1)
    count, position = 0, 0
    for expert in range(experts):
        mine = load_i32(starts, expert)
        store_i32(starts, expert, position)
        position += mine
        if mine > 0:
            store_i32(active, count, expert)
            count += 1
    for pair in range(pairs):
        expert = load_i32(ids, pair)
        at = load_i32(starts, expert)
        store_i32(order, at, pair)
        store_i32(starts, expert, at + 1)
    for expert in range(experts, 0, -1):  # each start has become the next one
        store_i32(starts, expert, load_i32(starts, expert - 1))
    store_i32(starts, 0, 0)
    return count


@device
def prepare_experts(state: Any, record: Any, row_bytes: Any) -> Any:
    """The number of chunks; N_ACTIVE must be set."""
    active, panels, threads = load_i64(record, N_ACTIVE), load_i64(record, N_PANELS), load_i64(state, THREADS)
    if active == 0:
        return 0
    rows = rows_of(state, record) // active + 1
    groups = panel_groups(panels, row_bytes, load_i64(record, K), rows, threads)
    store_i64(record, GROUPS, groups)
    if threads == 1:
        return 1
    cost = active * panels * (row_bytes + rows * load_i64(record, K) // 8)
    return max(1, min(active * groups, cost // MIN_CHUNK, MOST_CHUNKS))


@kernel
def prepare_inward(state: int, record: int) -> int:
    """Sort the rows by expert; chunks are experts times groups of panels."""
    store_i64(record, N_ACTIVE, sort_pairs(state, record))
    return int(prepare_experts(state, record, load_i64(record, GATE_ROW_BYTES) + load_i64(record, UP_ROW_BYTES)))


@kernel
def inward(state: int, record: int, chunk: int, thread: int) -> None:
    """Hidden values f(gate x) · (up x) of some experts and panels, for all rows of these experts."""
    groups, used, k = load_i64(record, GROUPS), load_i64(record, USED), load_i64(record, K)
    panels, stride, width = load_i64(record, N_PANELS), load_i64(record, OUT_STRIDE), load_i64(record, WIDTH)
    xs = scratch_of(state, thread)
    ys, up_xs, up_ys = xs + 8 * TOKEN_TILE, xs + 16 * TOKEN_TILE, xs + 24 * TOKEN_TILE
    first_unit, end_unit = share(load_i64(record, N_ACTIVE) * groups, chunk, load_i64(record, CHUNKS))
    for unit in range(first_unit, end_unit):
        expert = load_i32(load_i64(record, ACTIVE), unit // groups)
        first, end = panels_of_group(panels, unit % groups, groups)
        columns = min(16 * end, width) - 16 * first
        gate = load_i64(record, GATE) + (expert * width + 16 * first) * load_i64(record, GATE_ROW_BYTES)
        up = load_i64(record, UP) + (expert * width + 16 * first) * load_i64(record, UP_ROW_BYTES)
        last = load_i32(load_i64(record, STARTS), expert + 1)
        for start in range(load_i32(load_i64(record, STARTS), expert), last, TOKEN_TILE):
            count = min(last - start, TOKEN_TILE)
            for t in range(count):
                pair = load_i32(load_i64(record, SORTED), start + t)
                row, offset = pair // used, 4 * (pair * stride + 16 * first)
                store_i64(xs, t, load_i64(record, GATE_X) + row * load_i64(record, GATE_X_BYTES))
                store_i64(up_xs, t, load_i64(record, UP_X) + row * load_i64(record, UP_X_BYTES))
                store_i64(ys, t, load_i64(record, OUT) + offset)
                store_i64(up_ys, t, load_i64(record, UP_OUT) + offset)
            call7(load_i64(record, GATE_GEMM), gate, columns, xs, ys, count, k, xs + PANELS)
            call7(load_i64(record, UP_GEMM), up, columns, up_xs, up_ys, count, k, xs + PANELS)
            for t in range(count):
                gate_by_silu(load_i64(ys, t), load_i64(ys, t), load_i64(up_ys, t), columns)


SOURCE = OPERANDS + 29  # of `outward`: the address of N_ACTIVE in the record of `inward`


@kernel
def prepare_outward(state: int, record: int) -> int:
    """The rows are sorted already."""
    store_i64(record, N_ACTIVE, load_i64(load_i64(record, SOURCE), 0))
    return int(prepare_experts(state, record, load_i64(record, GATE_ROW_BYTES)))


@kernel
def outward(state: int, record: int, chunk: int, thread: int) -> None:
    """The down product of some experts and panels: GATE… are the down matrices, activations are by pair."""
    groups, k, panels = load_i64(record, GROUPS), load_i64(record, K), load_i64(record, N_PANELS)
    stride, x_bytes, width = load_i64(record, OUT_STRIDE), load_i64(record, GATE_X_BYTES), load_i64(record, WIDTH)
    xs = scratch_of(state, thread)
    ys = xs + 8 * TOKEN_TILE
    first_unit, end_unit = share(load_i64(record, N_ACTIVE) * groups, chunk, load_i64(record, CHUNKS))
    for unit in range(first_unit, end_unit):
        expert = load_i32(load_i64(record, ACTIVE), unit // groups)
        first, end = panels_of_group(panels, unit % groups, groups)
        down = load_i64(record, GATE) + (expert * width + 16 * first) * load_i64(record, GATE_ROW_BYTES)
        columns = min(16 * end, width) - 16 * first
        last = load_i32(load_i64(record, STARTS), expert + 1)
        for start in range(load_i32(load_i64(record, STARTS), expert), last, TOKEN_TILE):
            count = min(last - start, TOKEN_TILE)
            for t in range(count):
                pair = load_i32(load_i64(record, SORTED), start + t)
                store_i64(xs, t, load_i64(record, GATE_X) + pair * x_bytes)
                store_i64(ys, t, load_i64(record, OUT) + 4 * (pair * stride + 16 * first))
            call7(load_i64(record, GATE_GEMM), down, columns, xs, ys, count, k, xs + PANELS)


@kernel
def combine(state: int, record: int, chunk: int, thread: int) -> None:
    """out = Σ share · y over a row's pairs (X), rank after rank."""
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    used, width, stride = load_i64(record, USED), load_i64(record, WIDTH), load_i64(record, X_STRIDE)
    for row in range(first, end):
        out = load_i64(record, OUT) + 4 * row * load_i64(record, OUT_STRIDE)
        zero_bytes(out, 4 * width)
        for rank in range(used):
            pair = row * used + rank
            weight, y = load_f32(load_i64(record, SHARES), pair), load_i64(record, X) + 4 * pair * stride
            for i in range(width):
                store_f32(out, i, load_f32(out, i) + weight * load_f32(y, i))
