"""Which experts each row goes to, and which rows each expert has.

A *pair* is a row with one of its experts: pair = row · used + rank.
"""

from __future__ import annotations

import math
from typing import Any

from edgert_quant.jit import device, kernel
from edgert_quant.jit.primitives import (
    copy_bytes,
    load_f32,
    load_i32,
    load_i64,
    store_f32,
    store_i32,
    store_i64,
    zero_bytes,
)
from numpy import float32

from edgert_runtimes.cpu.kernels.rows import X_STRIDE, X
from edgert_runtimes.cpu.kernels.table import CHUNKS, OP, OPERANDS, STATUS, rows_of, scratch_of, share
from edgert_runtimes.cpu.kernels.vectors import exponentials, first_equal, largest, total

EXPERTS = OPERANDS + 8
USED = OPERANDS + 9
IDS = OPERANDS + 10  # int32 [rows, used]
SHARES = OPERANDS + 11  # float32 [rows, used]
NORMALIZE = OPERANDS + 12
SORTED = OPERANDS + 13  # int32 [pairs], by expert, in the order of rows
STARTS = OPERANDS + 14  # int32 [experts + 1]: where each expert's pairs start
ACTIVE = OPERANDS + 15  # int32 [experts]: the experts that have pairs
LOAD = OPERANDS + 39  # int64 [experts]: how many pairs each has had so far, counted by `sort_pairs`; or 0

TAKEN = math.nan
"""Stands for the logit of an expert that is chosen already: it equals nothing, and `largest` passes over it."""


@kernel
def route(state: int, record: int, chunk: int, thread: int) -> None:
    """The `used` largest logits of every row (X), the lower index first among equals: in range for any input, and
    unique for numbers. A row with a NaN, or an infinity that makes one, sets STATUS.
    """
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    experts, used, normalize = load_i64(record, EXPERTS), load_i64(record, USED), load_i64(record, NORMALIZE)
    left = scratch_of(state, thread)
    odds = left + 4 * experts
    for row in range(first, end):
        logits = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        ids, shares = load_i64(record, IDS) + 4 * row * used, load_i64(record, SHARES) + 4 * row * used
        copy_bytes(left, logits, 4 * experts)
        copy_bytes(odds, logits, 4 * experts)
        exponentials(odds, experts, largest(logits, experts))
        everything = total(odds, experts)
        if not everything < float32(1e30):
            store_i64(state, STATUS, load_i64(record, OP) + 1)
        chosen = float32(0.0)
        for rank in range(used):
            best = min(first_equal(left, experts, largest(left, experts)), experts - 1)
            store_f32(left, best, float32(TAKEN))
            store_i32(ids, rank, best)
            chosen += load_f32(odds, best)
        divisor = chosen if normalize != 0 else everything
        for rank in range(used):
            store_f32(shares, rank, load_f32(odds, load_i32(ids, rank)) / divisor)


@device
def sort_pairs(state: Any, record: Any) -> Any:
    """Fill SORTED, STARTS and ACTIVE by counting; the number of experts that have pairs."""
    experts, pairs = load_i64(record, EXPERTS), rows_of(state, record)
    ids, starts, order = load_i64(record, IDS), load_i64(record, STARTS), load_i64(record, SORTED)
    active, load = load_i64(record, ACTIVE), load_i64(record, LOAD)
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
            if load != 0:
                store_i64(load, expert, load_i64(load, expert) + mine)
    for pair in range(pairs):
        expert = load_i32(ids, pair)
        at = load_i32(starts, expert)
        store_i32(order, at, pair)
        store_i32(starts, expert, at + 1)
    for expert in range(experts, 0, -1):  # each start has become the next one
        store_i32(starts, expert, load_i32(starts, expert - 1))
    store_i32(starts, 0, 0)
    return count
