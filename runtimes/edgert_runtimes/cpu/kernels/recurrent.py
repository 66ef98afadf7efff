"""Ops with a state: the rows of a sequence one after another, sequences and channels in parallel.

A unit of work is a block of channels of one sequence of the batch, whose rows and slots RUNS names (see
`batches.runs_of`). It reads the state of one slot and writes that of another, or of the same.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from edgert_quant.jit import device, kernel
from edgert_quant.jit.primitives import (
    copy_bytes,
    dot_f32,
    load_f32,
    load_f64,
    load_i32,
    load_i64,
    store_f32,
    zero_bytes,
)
from numpy import float32, float64

from edgert_runtimes.cpu.kernels.delta import NUMBERS, delta_rows, delta_rows_by_channel
from edgert_runtimes.cpu.kernels.rows import OUT, OUT_STRIDE, WEIGHT, WIDTH, X_STRIDE, X
from edgert_runtimes.cpu.kernels.selective import scan_rows
from edgert_runtimes.cpu.kernels.table import (
    CHUNKS,
    OPERANDS,
    ROWS,
    RUNS,
    SEQUENCES,
    UNIT_COST,
    divide,
    scratch_of,
    share,
)
from edgert_runtimes.cpu.kernels.vectors import delta_decays, exp, silu

UNITS = OPERANDS + 8  # of a sequence
STATE = OPERANDS + 9
STATE_SIZE = OPERANDS + 10  # floats of a slot
KERNEL = OPERANDS + 11  # rows of the convolution
BIAS = OPERANDS + 12
SILU = OPERANDS + 13

CHANNELS = 256
"""Channels of a unit of a convolution."""


@kernel
def prepare_runs(state: int, record: int) -> int:
    """Units in equal chunks; UNIT_COST is that of one row."""
    sequences, cost = load_i64(state, SEQUENCES), load_i64(record, UNIT_COST)
    rows = (load_i64(state, ROWS) + sequences - 1) // sequences
    return int(divide(state, sequences * load_i64(record, UNITS), cost * rows))


@device
def run_at(state: Any, sequence: Any) -> Any:
    """The first row of a sequence, its rows, the slot to read (-1: zeros) and the slot to write."""
    run = load_i64(state, RUNS) + 16 * sequence
    return load_i32(run, 0), load_i32(run, 1), load_i32(run, 2), load_i32(run, 3)


@kernel
def short_conv(state: int, record: int, chunk: int, thread: int) -> None:
    """See `ops.ShortConv`; WEIGHT is [kernel, channels] here, and sums begin with the bias and the oldest row."""
    units, taps, width = load_i64(record, UNITS), load_i64(record, KERNEL), load_i64(record, WIDTH)
    first_unit, end_unit = share(load_i64(state, SEQUENCES) * units, chunk, load_i64(record, CHUNKS))
    for unit in range(first_unit, end_unit):
        start = unit % units * CHANNELS
        n = min(CHANNELS, width - start)
        first, count, source, target = run_at(state, unit // units)
        before = load_i64(record, STATE) + 4 * (source * load_i64(record, STATE_SIZE) + start)
        after = load_i64(record, STATE) + 4 * (target * load_i64(record, STATE_SIZE) + start)
        x = load_i64(record, X) + 4 * (first * load_i64(record, X_STRIDE) + start)
        x_bytes = 4 * load_i64(record, X_STRIDE)
        for row in range(count):
            out = load_i64(record, OUT) + 4 * ((first + row) * load_i64(record, OUT_STRIDE) + start)
            if load_i64(record, BIAS) != 0:
                copy_bytes(out, load_i64(record, BIAS) + 4 * start, 4 * n)
            else:
                zero_bytes(out, 4 * n)
            for tap in range(taps):
                entered = row + 1 + tap - taps
                if entered < 0 and source < 0:
                    continue
                seen = x + entered * x_bytes if entered >= 0 else before + 4 * width * (entered + taps - 1)
                weight = load_i64(record, WEIGHT) + 4 * (tap * width + start)
                for i in range(n):
                    store_f32(out, i, load_f32(out, i) + load_f32(weight, i) * load_f32(seen, i))
            if load_i64(record, SILU) != 0:
                silu(out, out, n)
        for place in range(taps - 1 if count > 0 else 0):
            entered = count + 1 + place - taps
            kept = after + 4 * width * place
            if entered >= 0:
                copy_bytes(kept, x + entered * x_bytes, 4 * n)
            elif source >= 0:
                copy_bytes(kept, before + 4 * width * (entered + taps - 1), 4 * n)
            else:
                zero_bytes(kept, 4 * n)


A = OPERANDS + 14
A_STRIDE = OPERANDS + 15
B = OPERANDS + 16
B_STRIDE = OPERANDS + 17
DECAY = OPERANDS + 18
KEY_HEADS = OPERANDS + 19
KEY_SIZE = OPERANDS + 20
TILED = OPERANDS + 21
DECAYS = OPERANDS + 25  # of a head: 1, or one for each of its numbers
FLOOR = OPERANDS + 28  # a float64
K = OPERANDS + 29
K_STRIDE = OPERANDS + 30
K_START = OPERANDS + 31  # floats before the first key of a row
V = OPERANDS + 32
V_STRIDE = OPERANDS + 33
V_START = OPERANDS + 34


@device
def softplus(x: Any) -> Any:
    """log(1 + e^x) of a float32, in float64: log(1 + t) = 2 artanh(t / (2 + t)), a series in (t / (2 + t))² ≤ 1/9."""
    t = float64(exp(-abs(x)))
    s = t / (2.0 + t)
    z = s * s
    total = 1.0 / 25.0
    for k in range(11, -1, -1):
        total = total * z + 1.0 / (2 * k + 1)
    return max(float64(x), 0.0) + 2.0 * s * total


@device
def matrices_at(record: Any, count: Any, source: Any, target: Any, head: Any, size: Any) -> Any:
    """Where the matrix of a head, of `size` floats, is before a run and after it; before the first row it is zero."""
    slot, own = 4 * load_i64(record, STATE_SIZE), load_i64(record, STATE) + 4 * head * size
    before, after = own + source * slot, own + target * slot
    if count > 0 and source < 0:
        zero_bytes(after, 4 * size)
        before = after
    return before, after


@device(inline=False)
def normalize(out: Any, x: Any, n: Any, factor: Any) -> Any:
    """out = factor · x / sqrt(Σ x² + 1e-6) for n floats."""
    scale = float32(factor / sqrt(float64(dot_f32(x, x, n)) + 1e-6))
    for i in range(n):
        store_f32(out, i, load_f32(x, i) * scale)


ROWS_AT_ONCE = 32
"""Rows for which what does not depend on the state is computed first; few, so that it stays in a cache."""


@kernel
def delta_rule(state: int, record: int, chunk: int, thread: int) -> None:
    """See `ops.DeltaRule`; a unit is a head. Scratch memory has what `delta_rows` reads of some rows."""
    heads, key_heads, size = load_i64(record, UNITS), load_i64(record, KEY_HEADS), load_i64(record, KEY_SIZE)
    width, channels = load_i64(record, WIDTH) // heads, load_i64(record, DECAYS)
    pair_bytes = 8 * size if channels == 1 else 16 * size
    pairs = scratch_of(state, thread)
    numbers = pairs + ROWS_AT_ONCE * pair_bytes
    x_bytes, out_bytes = 4 * load_i64(record, X_STRIDE), 4 * load_i64(record, OUT_STRIDE)
    k_bytes, v_bytes = 4 * load_i64(record, K_STRIDE), 4 * load_i64(record, V_STRIDE)
    floor = float32(load_f64(record, FLOOR))
    first_unit, end_unit = share(load_i64(state, SEQUENCES) * heads, chunk, load_i64(record, CHUNKS))
    for unit in range(first_unit, end_unit):
        head = unit % heads
        first, count, source, target = run_at(state, unit // heads)
        before, after = matrices_at(record, count, source, target, head, size * width)
        keys = head % key_heads if load_i64(record, TILED) != 0 else head * key_heads // heads
        for start in range(first, first + count, ROWS_AT_ONCE):
            rows = min(ROWS_AT_ONCE, first + count - start)
            x = load_i64(record, X) + start * x_bytes + 4 * keys * size
            x_keys = load_i64(record, K) + start * k_bytes + 4 * (load_i64(record, K_START) + keys * size)
            for i in range(rows):
                q, own = pairs + i * pair_bytes, numbers + 4 * i * NUMBERS
                k = q + pair_bytes // 2
                normalize(q, x + i * x_bytes, size, 1.0 / sqrt(float64(size)))
                normalize(k, x_keys + i * k_bytes, size, 1.0)
                a = load_i64(record, A) + 4 * ((start + i) * load_i64(record, A_STRIDE) + head * channels)
                b = load_f32(load_i64(record, B), (start + i) * load_i64(record, B_STRIDE) + head)
                bias, slope = load_i64(record, BIAS) + 4 * head * channels, load_f32(load_i64(record, DECAY), head)
                store_f32(own, 0, float32(1.0) / (float32(1.0) + exp(-b)))
                store_f32(own, 2, dot_f32(q, k, size))
                if channels == 1 and floor == float32(0.0):
                    shift = softplus(load_f32(a, 0) + load_f32(bias, 0))
                    store_f32(own, 1, exp(float32(slope * shift)))
                elif channels == 1:
                    delta_decays(own + 4, a, bias, 1, slope, floor)
                else:
                    decays = q + 12 * size
                    delta_decays(decays, a, bias, size, slope, floor)
                    for j in range(size):
                        store_f32(q, size + j, load_f32(k, j) * load_f32(decays, j))
                        store_f32(q, j, load_f32(q, j) * load_f32(decays, j))
            v = load_i64(record, V) + start * v_bytes + 4 * (load_i64(record, V_START) + head * width)
            out = load_i64(record, OUT) + start * out_bytes + 4 * head * width
            if channels == 1:
                delta_rows(before, after, size, width, pairs, numbers, v, v_bytes, out, out_bytes, rows)
            else:
                delta_rows_by_channel(before, after, size, width, pairs, numbers, v, v_bytes, out, out_bytes, rows)
            before = after


T = A
T_STRIDE = A_STRIDE
C = OPERANDS + 22
C_STRIDE = OPERANDS + 23
GROUPS = OPERANDS + 24
SKIP = OPERANDS + 26
LEAST = OPERANDS + 27  # a float64
STATE_NUMBERS = KEY_SIZE  # of each element


@kernel
def scan(state: int, record: int, chunk: int, thread: int) -> None:
    """See `ops.Scan`; a unit is a head. Scratch memory has Δ of some rows and what S shrinks by in each."""
    heads, groups, numbers = load_i64(record, UNITS), load_i64(record, GROUPS), load_i64(record, STATE_NUMBERS)
    size, decays = load_i64(record, WIDTH) // heads, load_i64(record, DECAYS)
    spans = scratch_of(state, thread)
    shrinks = spans + 4 * ROWS_AT_ONCE
    x_bytes, out_bytes = 4 * load_i64(record, X_STRIDE), 4 * load_i64(record, OUT_STRIDE)
    b_bytes, c_bytes = 4 * load_i64(record, B_STRIDE), 4 * load_i64(record, C_STRIDE)
    first_unit, end_unit = share(load_i64(state, SEQUENCES) * heads, chunk, load_i64(record, CHUNKS))
    for unit in range(first_unit, end_unit):
        head = unit % heads
        first, count, source, target = run_at(state, unit // heads)
        before, after = matrices_at(record, count, source, target, head, size * numbers)
        own, group = 4 * head * size, 4 * (head * groups // heads) * numbers
        skip, bias = load_f32(load_i64(record, SKIP), head), load_f32(load_i64(record, BIAS), head)
        for start in range(first, first + count, ROWS_AT_ONCE):
            rows = min(ROWS_AT_ONCE, first + count - start)
            for i in range(rows):
                t = load_f32(load_i64(record, T), (start + i) * load_i64(record, T_STRIDE) + head)
                span = max(softplus(t + bias), load_f64(record, LEAST))
                store_f32(spans, i, float32(span))
                shrink = shrinks + 4 * i * numbers
                for n in range(decays):
                    rate = load_f32(load_i64(record, DECAY), head * decays + n)
                    store_f32(shrink, n, exp(float32(rate * span)))
                for n in range(decays, numbers):
                    store_f32(shrink, n, load_f32(shrink, 0))
            x = load_i64(record, X) + start * x_bytes + own
            b = load_i64(record, B) + start * b_bytes + group
            c = load_i64(record, C) + start * c_bytes + group
            out = load_i64(record, OUT) + start * out_bytes + own
            scan_rows(
                before,
                after,
                size,
                numbers,
                shrinks,
                spans,
                x,
                x_bytes,
                b,
                b_bytes,
                c,
                c_bytes,
                out,
                out_bytes,
                rows,
                skip,
            )
            before = after
