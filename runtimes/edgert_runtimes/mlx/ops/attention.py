"""Attention over the cache."""

from __future__ import annotations

import mlx.core as mx
from edgert_models import ops

from edgert_runtimes.mlx.step import Function, Step
from edgert_runtimes.mlx.weights import Weights

FEW = 8
"""Rows of queries that MLX's kernel for decoding takes."""


def capped_attention(
    cap: float,
    scale: float,
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    mask: mx.array | str | None,
    sinks: mx.array | None,
) -> mx.array:
    """Attention whose scores have a cap, which MLX's own has not. Arguments as MLX takes them."""
    sequences, heads, rows, size = queries.shape
    shared = heads // keys.shape[1]
    queries = queries.reshape(sequences, keys.shape[1], shared, rows, size)
    scores = (queries * scale) @ keys[:, :, None].swapaxes(-1, -2)
    scores = cap * mx.tanh(scores.astype(mx.float32) / cap)
    if isinstance(mask, str):
        n = keys.shape[2]
        mask = mx.arange(n) <= mx.arange(n - rows, n)[:, None]
    if mask is not None:
        scores = mx.where(mask if mask.ndim == 2 else mask[:, :, None], scores, -mx.inf)
    if sinks is not None:
        column = mx.broadcast_to(sinks.reshape(-1, shared, 1, 1), (sequences, *scores.shape[1:4], 1))
        scores = mx.concatenate([scores, column.astype(mx.float32)], axis=-1)
    weights = mx.softmax(scores, axis=-1)[..., : keys.shape[2]].astype(values.dtype)
    return (weights @ values[:, :, None]).reshape(sequences, heads, rows, -1)


def attend(op: ops.Attend, weights: Weights, dtype: mx.Dtype) -> Function:
    """Store this step's keys and values, then attend, one kind of view after the other.

    Where a sequence has one row, the queries of a head of keys are to it like rows of one query each, which MLX has
    less to do for, as long as heads have no sinks and are as few as its kernel for few rows takes.
    """
    sinks = weights.vector(op.sinks)
    sinks = None if sinks is None else sinks.astype(dtype)
    shared = op.heads // op.kv_heads
    folds = sinks is None and shared <= FEW

    def by_head(x: mx.array) -> mx.array:
        if len(x) == 1:
            return x.reshape(1, op.kv_heads, 1, -1)
        return x.reshape(len(x), op.kv_heads, 1, -1).swapaxes(0, 2)

    def run(step: Step, q: mx.array, k: mx.array, v: mx.array | None = None) -> mx.array:
        cache, pages = step.caches[op.layer], step.pages_of(op)
        cache.store(pages.slots, by_head(k), None if v is None else by_head(v), start=pages.start)
        results = []
        for view in step.views[op.reach]:
            own = q if view.rows == slice(0, len(q)) else q[view.rows]
            folded = folds and len(own) == view.sequences
            if folded:
                queries = own.reshape(view.sequences, op.kv_heads, shared, op.head_size)
            else:
                queries = own.reshape(view.sequences, -1, op.heads, op.head_size).swapaxes(1, 2)
            keys, values = cache.fetch(view.where, dtype)
            queries = queries.astype(dtype)
            if op.softcap is None:
                out = mx.fast.scaled_dot_product_attention(
                    queries, keys, values, scale=op.scale, mask=view.mask, sinks=sinks
                )
            else:
                out = capped_attention(op.softcap, op.scale, queries, keys, values, view.mask, sinks)
            results.append((out if folded else out.swapaxes(1, 2)).reshape(-1, op.out.width))
        return results[0] if len(results) == 1 else mx.concatenate(results)

    return run
