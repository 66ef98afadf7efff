"""Ops with a state, run by run."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
from edgert_models import ops

from edgert_runtimes.mlx.step import Function, Step
from edgert_runtimes.mlx.weights import Weights

Rows = Callable[..., tuple[mx.array, mx.array]]
"""rows(state [sequences, …], *values [sequences, count, width]) → (results [sequences, count, width], state)."""


def _run_by_run(number: int, rows: Rows) -> Function:
    def run(step: Step, *values: mx.array) -> mx.array:
        slots, results, after = step.states[number], [], []
        for each in step.runs:
            out, state = rows(each.state(slots), *(each.rows_of(value) for value in values))
            results.append(out.reshape(-1, out.shape[-1]))
            after.append(state)
        for each, state in zip(step.runs, after, strict=True):
            slots[each.target] = state
        return results[0] if len(results) == 1 else mx.concatenate(results)

    return run


def short_conv(op: ops.ShortConv, weights: Weights) -> Function:
    """A convolution over rows, as a sum over them shifted."""
    taps = mx.array(np.asarray(weights.vectors[op.weight]).reshape(-1, op.kernel).T)
    bias = weights.vector(op.bias)

    def rows(state: mx.array, x: mx.array) -> tuple[mx.array, mx.array]:
        known, count = mx.concatenate([state, x.astype(mx.float32)], axis=1), x.shape[1]
        out = known[:, :count] * taps[0]
        for tap in range(1, op.kernel):
            out = out + known[:, tap : tap + count] * taps[tap]
        if bias is not None:
            out = out + bias
        return out * mx.sigmoid(out) if op.silu else out, known[:, count:]

    return _run_by_run(op.state, rows)
