"""Attention over the cache."""

from __future__ import annotations

import mlx.core as mx
from edgert_models import ops

from edgert_runtimes.mlx.step import Function, Step
from edgert_runtimes.mlx.weights import Weights

FEW = 8
"""Rows of queries that MLX's kernel for decoding takes."""


def attend(op: ops.Attend, weights: Weights, dtype: mx.Dtype) -> Function:
    """Store this step's keys and values, then attend, one kind of view after the other.

    Where a sequence has one row, the queries of a head of keys are to it like rows of one query each, which MLX has
    less to do for, as long as heads have no sinks and are as few as its kernel for few rows takes.
    """
    sinks = weights.vector(op.sinks)
    sinks = None if sinks is None else sinks.astype(dtype)
    shared = op.heads // op.kv_heads
    folds = sinks is None and shared <= FEW

    def run(step: Step, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        cache = step.caches[op.layer]
        k, v = (x.reshape(len(x), op.kv_heads, 1, op.head_size).swapaxes(0, 2) for x in (k, v))
        cache.store(step.inputs.slots, k, v, start=step.start)
        results = []
        for view in step.views[op.window]:
            own = q if view.rows == slice(0, len(q)) else q[view.rows]
            folded = folds and len(own) == view.sequences
            if folded:
                queries = own.reshape(view.sequences, op.kv_heads, shared, op.head_size)
            else:
                queries = own.reshape(view.sequences, -1, op.heads, op.head_size).swapaxes(1, 2)
            keys, values = cache.fetch(view.where, dtype)
            out = mx.fast.scaled_dot_product_attention(
                queries.astype(dtype), keys, values, scale=op.scale, mask=view.mask, sinks=sinks
            )
            results.append((out if folded else out.swapaxes(1, 2)).reshape(-1, op.heads * op.head_size))
        return results[0] if len(results) == 1 else mx.concatenate(results)

    return run
