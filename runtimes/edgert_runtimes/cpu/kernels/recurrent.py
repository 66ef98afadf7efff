"""Ops with a state: the rows of a sequence one after another, sequences and channels in parallel.

A unit of work is a block of channels of one sequence of the batch, whose rows and slots RUNS names (see
`batches.runs_of`). It reads the state of one slot and writes that of another, or of the same.
"""

from __future__ import annotations

from typing import Any

from edgert_quant.jit import device, kernel
from edgert_quant.jit.primitives import copy_bytes, load_f32, load_i32, load_i64, store_f32
from numpy import float32

from edgert_runtimes.cpu.kernels.rows import OUT, OUT_STRIDE, WEIGHT, WIDTH, X_STRIDE, X
from edgert_runtimes.cpu.kernels.table import CHUNKS, OPERANDS, ROWS, RUNS, SEQUENCES, UNIT_COST, divide, share
from edgert_runtimes.cpu.kernels.vectors import silu

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
                for i in range(n):
                    store_f32(out, i, float32(0.0))
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
                for i in range(n):
                    store_f32(kept, i, float32(0.0))
