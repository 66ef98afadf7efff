"""Ops that do each row by itself."""

from __future__ import annotations

from math import pi, sqrt

import mlx.core as mx
import numpy as np
from edgert_models import ops
from edgert_models.errors import UnsupportedError
from edgert_models.rope import RopeLayout

from edgert_runtimes.mlx.step import Function, Step
from edgert_runtimes.mlx.turns import Turns, frequencies
from edgert_runtimes.mlx.weights import Weights

GELU = 2 * sqrt(2 / pi)
"""GELU is x · sigmoid(GELU · (x + 0.044715 x³)): 1 + tanh(t) = 2 sigmoid(2 t)."""


def embed(op: ops.Embed, weights: Weights) -> Function:
    """Token embeddings, in float32 as everything that is added up from layer to layer."""
    table = weights.embeddings[op.weight]
    return lambda step: table.rows(step.inputs.tokens)


def rms_norm(op: ops.RmsNorm, weights: Weights, *, flat: bool) -> Function:
    """Root mean square normalisation, group by group. `flat`: [rows, width], else [rows, groups, …] will do."""
    weight, groups = weights.vector(op.weight), op.groups
    each = mx.array(np.asarray(weight).reshape(groups, -1)) if op.own else None

    def run(step: Step, x: mx.array) -> mx.array:
        if groups == 1 and not op.rest:
            return mx.fast.rms_norm(x, weight, op.eps)
        parts = x.reshape(len(x), groups, -1)
        if each is not None:
            normal = mx.fast.rms_norm(parts, None, op.eps) * each
        elif op.rest:
            normal = mx.fast.rms_norm(parts[:, :, : op.size], weight, op.eps)
            normal = mx.concatenate([normal, parts[:, :, op.size :]], axis=-1)
        else:
            normal = mx.fast.rms_norm(parts, weight, op.eps)
        return normal.reshape(len(x), -1) if flat else normal

    return run


def layer_norm(op: ops.LayerNorm, weights: Weights) -> Function:
    """Normalisation by mean and variance."""
    weight, bias = weights.vectors[op.weight], weights.vector(op.bias)
    return lambda step, x: mx.fast.layer_norm(x, weight, bias, op.eps)


def add(op: ops.Add, weights: Weights) -> Function:
    """a + b."""
    return lambda step, a, b: a + b


def scale(op: ops.Scale, weights: Weights) -> Function:
    """factor · x."""
    weight = weights.vector(op.weight)
    return lambda step, x: op.factor * x if weight is None else op.factor * weight * x


def position_scale(op: ops.PositionScale, weights: Weights) -> Function:
    """Row by row, by its position."""

    def run(step: Step, x: mx.array) -> mx.array:
        steps = ((step.inputs.positions + op.ahead) // op.length).astype(mx.float32)
        return (1 + op.strength * mx.log(1 + steps))[:, None] * x

    return run


def soft_cap(op: ops.SoftCap, weights: Weights) -> Function:
    """cap · tanh(x / cap)."""
    return lambda step, x: op.cap * mx.tanh(x / op.cap)


def clamp(op: ops.Clamp, weights: Weights) -> Function:
    """x within ±limit."""
    return lambda step, x: mx.clip(x, -op.limit, op.limit)


def pick_rows(op: ops.PickRows, weights: Weights) -> Function:
    """The rows that are wanted."""
    return lambda step, x: x[step.inputs.pick]


def gated(op: ops.GatedActivation, weights: Weights) -> Function:
    """A gate and what it lets through."""
    activation = activate(op.kind)
    if not op.parts:
        return lambda step, gate, up: activation(gate, up)
    return lambda step, gate, up: activation(gate[..., None], up.reshape(len(up), op.parts, -1)).reshape(up.shape)


def activate(kind: str) -> Function:
    """activation(gate, up), by name; UnsupportedError for one that does not exist."""
    if kind == "silu":
        return lambda gate, up: gate * mx.sigmoid(gate) * up
    if kind == "gelu":
        return lambda gate, up: gate * mx.sigmoid(GELU * (gate + 0.044715 * gate**3)) * up
    if kind == "swiglu_oai":
        return _swiglu_oai
    if kind == "sigmoid":
        return lambda gate, up: mx.sigmoid(gate) * up
    if kind == "softplus":
        return lambda gate, up: mx.logaddexp(gate, 0.0) * up
    if kind == "relu":
        return lambda gate, up: mx.maximum(gate, 0) * up
    if kind == "bilinear":
        return lambda gate, up: gate * up
    raise UnsupportedError(f"activation '{kind}' is not supported by the mlx backend")


def _swiglu_oai(gate: mx.array, up: mx.array) -> mx.array:
    gate = mx.minimum(gate, 7.0)
    return gate * mx.sigmoid(1.702 * gate) * (1 + mx.clip(up, -7.0, 7.0))


def sliced(op: ops.Slice, weights: Weights) -> Function:
    """Elements of each group."""
    part = slice(op.start, op.start + op.out.width // op.groups)
    return lambda step, x: x.reshape(len(x), op.groups, -1)[:, :, part].reshape(len(x), -1)


def rope(op: ops.Rope, weights: Weights, turns: Turns, *, flat: bool) -> Function:
    """Rotary position embedding, by the step's angles; where it has none (on a GPU) by MLX's own kernel, which takes
    the periods 1 / frequency, and a position for each row. `flat`: [rows, width], else [rows, heads, …] will do.
    """
    with np.errstate(divide="ignore"):
        periods = mx.array((1 / frequencies(op, weights)).astype(np.float32))
    pairs, first, number = len(op.frequencies), op.first, turns.number(op)
    dims, interleaved = 2 * pairs, op.layout is RopeLayout.INTERLEAVED
    magnitude = np.ones(op.head_size - first, np.float32)
    magnitude[:dims] = op.magnitude
    factor = None if op.magnitude == 1 else mx.array(magnitude)
    split = (pairs, 2) if interleaved else (2, pairs)

    def by_angles(step: Step, heads: mx.array) -> mx.array:
        cosines, sines = step.inputs.turns[number]
        part = heads if dims == op.head_size else heads[..., first : first + dims]
        part = part.reshape(len(heads), op.heads, *split)
        other = part[..., ::-1] if interleaved else part[:, :, ::-1]
        turned = part * cosines + other * sines
        if dims == op.head_size:
            return turned
        turned = turned.reshape(len(heads), op.heads, dims)
        pieces = [heads[..., :first], turned, heads[..., first + dims :]]
        return mx.concatenate([piece for piece in pieces if piece.size], axis=-1)

    def by_positions(step: Step, heads: mx.array) -> mx.array:
        heads = heads[:, :, None]
        turned = mx.fast.rope(
            heads[..., first:] if first else heads,
            dims,
            traditional=interleaved,
            base=None,
            scale=1.0,
            offset=step.inputs.positions,
            freqs=periods,
        )
        turned = turned if factor is None else turned * factor
        return mx.concatenate([heads[..., :first], turned], axis=-1) if first else turned

    def run(step: Step, x: mx.array) -> mx.array:
        heads = x.reshape(len(x), op.heads, op.head_size)
        turned = (by_angles if step.inputs.turns else by_positions)(step, heads)
        return turned.reshape(len(x), -1) if flat else turned

    return run
