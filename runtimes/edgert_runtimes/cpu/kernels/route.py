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
    load_f64,
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
from edgert_runtimes.cpu.kernels.vectors import (
    add_to,
    divide_by,
    exp,
    exponentials,
    first_equal,
    largest,
    sigmoids,
    total,
)

EXPERTS = OPERANDS + 8
USED = OPERANDS + 9
IDS = OPERANDS + 10  # int32 [rows, used]
SHARES = OPERANDS + 11  # float32 [rows, used]
SORTED = OPERANDS + 12  # int32 [pairs], by expert, in the order of rows
STARTS = OPERANDS + 13  # int32 [experts + 1]: where each expert's pairs start
ACTIVE = OPERANDS + 14  # int32 [experts]: the experts that have pairs
LOAD = OPERANDS + 39  # int64 [experts]: how many pairs each has had so far, counted by `sort_pairs`; or 0
# What `edgert_models.router.Router` says; SIGMOID, NORMALIZE, BIAS_LOGITS: 0 or 1. Of `route` alone.
SIGMOID = OPERANDS + 16
NORMALIZE = OPERANDS + 17
EPSILON = OPERANDS + 18  # a float64
SCALE = OPERANDS + 19  # a float64
BIAS = OPERANDS + 20  # address of floats [experts], or 0
GROUPS = OPERANDS + 21
GROUPS_USED = OPERANDS + 22
GROUP_BEST = OPERANDS + 23
BAND = OPERANDS + 24  # a float64, 0 without a sparse mixer
BIAS_LOGITS = OPERANDS + 25
EXPERT_SCALE = OPERANDS + 26  # address of floats [experts], or 0

TAKEN = math.nan
"""Stands for what is chosen already, or not to be chosen: it equals nothing, and `largest` passes over it."""


@kernel
def route(state: int, record: int, chunk: int, thread: int) -> None:
    """The `used` best experts of every row of logits (X), the lower index first among equals: in range for any input,
    and unique for numbers. A row with a NaN, or an infinity that makes one, sets STATUS.
    """
    first, end = share(rows_of(state, record), chunk, load_i64(record, CHUNKS))
    experts, used, normalize = load_i64(record, EXPERTS), load_i64(record, USED), load_i64(record, NORMALIZE)
    epsilon, scale = float32(load_f64(record, EPSILON)), float32(load_f64(record, SCALE))
    band, expert_scale = float32(load_f64(record, BAND)), load_i64(record, EXPERT_SCALE)
    left = scratch_of(state, thread)
    odds = left + 4 * experts
    for row in range(first, end):
        logits = load_i64(record, X) + 4 * row * load_i64(record, X_STRIDE)
        ids, shares = load_i64(record, IDS) + 4 * row * used, load_i64(record, SHARES) + 4 * row * used
        copy_bytes(left, logits, 4 * experts)
        copy_bytes(odds, logits, 4 * experts)
        everything = score(record, odds, experts)
        check = everything
        if load_i64(record, SIGMOID) != 0:
            everything = float32(1.0)
        if load_i64(record, BIAS) != 0:
            if load_i64(record, BIAS_LOGITS) == 0:
                divide_by(odds, experts, everything)
                everything = float32(1.0)
                copy_bytes(left, odds, 4 * experts)
            add_to(left, load_i64(record, BIAS), experts)
            check += total(left, experts)
        if not check < float32(1e30):
            store_i64(state, STATUS, load_i64(record, OP) + 1)
        if load_i64(record, GROUPS_USED) < load_i64(record, GROUPS):
            keep_groups(record, left, odds, experts)
        chosen = float32(0.0)
        for rank in range(used):
            best = min(first_equal(left, experts, largest(left, experts)), experts - 1)
            if band > 0:
                store_f32(odds, best, mixed(left, load_f32(logits, best), experts, band))
            store_f32(left, best, float32(TAKEN))
            store_i32(ids, rank, best)
            chosen += load_f32(odds, best)
        if band > 0:
            everything = float32(1.0)
        divisor = chosen + epsilon * everything if normalize != 0 else everything
        for rank in range(used):
            expert = load_i32(ids, rank)
            weight = scale * (load_f32(odds, expert) / divisor)
            if expert_scale != 0:
                weight *= load_f32(expert_scale, expert)
            store_f32(shares, rank, weight)


@device
def score(record: Any, odds: Any, experts: Any) -> Any:
    """Logits become their sigmoids, or e^ of what they are less than the largest; the sum of these."""
    if load_i64(record, SIGMOID) != 0:
        sigmoids(odds, experts)
    else:
        exponentials(odds, experts, largest(odds, experts))
    return total(odds, experts)


@device
def mixed(left: Any, own: Any, experts: Any, band: Any) -> Any:
    """The weight of the best logit in `left` among it and those that are near, of which none is TAKEN."""
    everything = float32(0.0)
    for i in range(experts):
        other = load_f32(left, i)
        if own - other <= band * max(abs(other), own):
            everything += exp(other - own)
    return float32(1.0) / everything


@device
def keep_groups(record: Any, left: Any, odds: Any, experts: Any) -> Any:
    """TAKEN for all experts in `left` but those of the best groups, which are ranked by `left` if there is a BIAS."""
    groups, group_best = load_i64(record, GROUPS), load_i64(record, GROUP_BEST)
    size, ranks = experts // groups, odds + 4 * experts
    ranked = left if load_i64(record, BIAS) != 0 else odds
    for group in range(groups):
        part = ranked + 4 * size * group
        best = largest(part, size)
        if group_best > 1:
            place = min(first_equal(part, size, best), size - 1)
            held = load_f32(part, place)
            store_f32(part, place, float32(TAKEN))
            best += largest(part, size)
            store_f32(part, place, held)
        store_f32(ranks, group, best)
    for _ in range(load_i64(record, GROUPS_USED)):
        store_f32(ranks, min(first_equal(ranks, groups, largest(ranks, groups)), groups - 1), float32(TAKEN))
    for group in range(groups):
        rank = load_f32(ranks, group)
        if rank == rank:
            for i in range(size):
                store_f32(left + 4 * size * group, i, float32(TAKEN))


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
