"""Attention over the cache."""

from __future__ import annotations

import mlx.core as mx
from edgert_models import ops

from edgert_runtimes.mlx.step import Function, Step
from edgert_runtimes.mlx.weights import Weights


def attend(op: ops.Attend, weights: Weights, dtype: mx.Dtype) -> Function:
    """Store this step's keys and values, then attend, one kind of view after the other."""
    sinks = weights.vector(op.sinks)
    sinks = None if sinks is None else sinks.astype(dtype)

    def run(step: Step, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        cache = step.caches[op.layer]
        k, v = (x.reshape(1, len(x), op.kv_heads, op.head_size).swapaxes(1, 2) for x in (k, v))
        cache.store(step.inputs.slots, k, v, in_a_row=step.in_a_row)
        results = []
        for view in step.views[op.window]:
            own = q if view.rows == slice(0, len(q)) else q[view.rows]
            queries = own.reshape(view.sequences, -1, op.heads, op.head_size).swapaxes(1, 2).astype(dtype)
            keys, values = cache.fetch(view.where, dtype)
            out = mx.fast.scaled_dot_product_attention(
                queries, keys, values, scale=op.scale, mask=view.mask, sinks=sinks
            )
            results.append(out.swapaxes(1, 2).reshape(-1, op.heads * op.head_size))
        return results[0] if len(results) == 1 else mx.concatenate(results)

    return run
