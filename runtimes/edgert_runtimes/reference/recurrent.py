"""Ops with a state, in NumPy: in float64 within a step, kept as float32 from one to the next."""

from __future__ import annotations

import numpy as np
from edgert_models import ops

from edgert_runtimes.base import Float32, Int32
from edgert_runtimes.reference.cache import Float64
from edgert_runtimes.reference.ops import Weights, activate

Recurrent = ops.ShortConv
RECURRENT = (ops.ShortConv,)
NO_RUNS: Int32 = np.empty((0, 4), np.int32)


def recur(op: Recurrent, runs: Int32, weights: Weights, states: Float32, inputs: list[Float32]) -> Float32:
    """One op on its inputs, run by run (see `batches.runs_of`); `states` [slots, …] are those of the op."""
    x = [value.astype(np.float64) for value in inputs]
    before = {slot: states[slot].astype(np.float64) for slot in runs[:, 2].tolist() if slot >= 0}
    out = np.zeros((len(x[0]), op.out.width))
    for first, count, source, target in runs.tolist():
        if not count:
            continue
        rows = slice(first, first + count)
        state = before[source] if source >= 0 else np.zeros(states.shape[1:])
        out[rows], states[target] = short_conv(op, weights, state, x[0][rows])
    return out.astype(np.float32)


def short_conv(op: ops.ShortConv, weights: Weights, state: Float64, x: Float64) -> tuple[Float64, Float64]:
    """Results of the rows x of one sequence, and its last rows."""
    weight = weights.rows(op.weight)
    known = np.concatenate([state, x])
    out = np.asarray(sum(known[j : j + len(x)] * weight[:, j] for j in range(op.kernel)))
    if op.bias is not None:
        out = out + weights.vector(op.bias)
    return activate(out, np.ones_like(out), "silu") if op.silu else out, known[len(x) :]
