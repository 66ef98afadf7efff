"""Drawing tokens on the device, so that the next step can begin before the host has seen the logits of this one."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from edgert_runtimes.base import Draw


def draw_tokens(logits: mx.array, draws: Sequence[Draw]) -> mx.array:
    """A token for each row of logits [rows, vocabulary]: int32 [rows]. See `Draw`, computed in float32."""
    if all(draw.temperature == 0 for draw in draws):
        return logits.argmax(axis=-1).astype(mx.int32)
    logits = logits.astype(mx.float32)

    def column(values: list[float]) -> mx.array:
        return mx.array(values, mx.float32)[:, None]

    size = logits.shape[-1]
    kept = column([draw.top_k or size for draw in draws])
    # A row that takes the largest is one of which nothing else is kept.
    temperature = column([draw.temperature or 1.0 for draw in draws])
    likeness = column([draw.min_p if draw.temperature else 1.0 for draw in draws])
    share, number = column([draw.top_p for draw in draws]), column([draw.number for draw in draws])

    falling = -mx.sort(-logits, axis=-1)
    best = falling[:, :1]
    weights = mx.where(mx.arange(size) < kept, mx.exp(falling - best), 0.0)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    before = weights.cumsum(axis=-1) - weights  # what the likelier ones make up
    inside = (weights > 0) & ((before < share) | (share >= 1)) & (falling >= best + mx.log(likeness))
    border = mx.where(inside, falling, best).min(axis=-1, keepdims=True)
    heights = mx.where(logits >= border, mx.exp((logits - best) / temperature), 0.0).cumsum(axis=-1)
    below = (heights <= number * heights[:, -1:]).sum(axis=-1)
    return mx.minimum(below, size - 1).astype(mx.int32)
