"""Every op of `edgert_models.ops` in NumPy: computed in float64, rounded to float32 once at the end.

Functions take and return arrays [rows, width]; the docstrings in `edgert_models.ops` define them.
"""

from __future__ import annotations

from math import prod

import numpy as np
from edgert_models import ops
from edgert_models.errors import BackendError, UnsupportedError
from edgert_models.rope import RopeLayout
from edgert_quant.blocks import dequantize
from numpy.typing import NDArray

from edgert_runtimes.base import Batch, Float32, StoredWeight, WeightProvider
from edgert_runtimes.batches import adapters_of, first_seen
from edgert_runtimes.reference.cache import Cache, Float64

_CHUNK = 1 << 22  # elements of a weight dequantized at once


class Weights:
    """Dequantized reads from a provider, in pieces of bounded size."""

    def __init__(self, provider: WeightProvider) -> None:
        self._provider = provider

    def rows(self, name: str, start: int = 0, count: int | None = None) -> Float64:
        """Rows of a tensor as float64 [count, in]."""
        raw = self._provider.read(name, start, count)
        return dequantize(raw, self._provider.weights[name].type).astype(np.float64)

    def stored(self, name: str) -> StoredWeight:
        """How a tensor is stored."""
        return self._provider.weights[name]

    def vector(self, name: str) -> Float64:
        """A 1-D tensor."""
        return self.rows(name).reshape(-1)

    def gather(self, name: str, indices: NDArray[np.int32]) -> Float64:
        """Single rows by index."""
        return np.concatenate([self.rows(name, int(i), 1) for i in indices])

    def project(self, x: Float64, name: str, first: int = 0, count: int | None = None) -> Float64:
        """x Wᵀ for rows first … first + count of the tensor."""
        stored = self._provider.weights[name]
        count = prod(stored.shape[:-1]) if count is None else count
        step = max(1, _CHUNK // stored.shape[-1])
        starts = range(first, first + count, step)
        return np.concatenate([x @ self.rows(name, i, min(step, first + count - i)).T for i in starts], axis=1)

    def expert(self, x: Float64, name: str, bias: str | None, index: int, width: int) -> Float64:
        """x Wᵀ + bias of one expert, whose matrix has `width` rows."""
        y = self.project(x, name, index * width, width)
        return y if bias is None else y + self.rows(bias, index, 1)


def activate(gate: Float64, up: Float64, kind: str) -> Float64:
    """The activations that a gate and what it lets through can have."""
    with np.errstate(over="ignore"):
        if kind == "silu":
            return up * (gate / (1.0 + np.exp(-gate)))
        if kind == "gelu":
            inner = np.sqrt(2.0 / np.pi) * (gate + 0.044715 * gate**3)
            return np.asarray(up * (0.5 * gate * (1.0 + np.tanh(inner))))
        if kind == "swiglu_oai":
            gate = np.minimum(gate, 7.0)
            return (1.0 + np.clip(up, -7.0, 7.0)) * (gate / (1.0 + np.exp(-1.702 * gate)))
        if kind == "sigmoid":
            return up / (1.0 + np.exp(-gate))
        if kind == "softplus":
            return np.logaddexp(0.0, gate) * up
        if kind == "relu":
            return np.maximum(gate, 0.0) * up
        if kind == "bilinear":
            return gate * up
    raise UnsupportedError(f"activation '{kind}' is not supported")


def soft_cap(x: Float64, cap: float) -> Float64:
    """What stays below a cap."""
    return np.asarray(cap * np.tanh(x / cap))


def softmax(x: Float64, sink: Float64 | None = None) -> Float64:
    """Over the last axis, to which a score `sink` (of the other axes) is added whose share is left out."""
    highest = x.max(axis=-1, keepdims=True)
    if sink is not None:
        highest = np.maximum(highest, sink[..., None])
    e = np.exp(x - highest)
    everything = e.sum(axis=-1, keepdims=True)
    if sink is not None:
        everything = everything + np.exp(sink[..., None] - highest)
    return np.asarray(e / everything)


def embed(op: ops.Embed, batch: Batch, weights: Weights) -> Float64:
    """Token embeddings."""
    return weights.gather(op.weight, batch.tokens)


def rms_norm(op: ops.RmsNorm, weights: Weights, x: Float64) -> Float64:
    """Root mean square normalisation, group by group."""
    out = x.reshape(len(x), op.groups, x.shape[1] // op.groups).copy()
    parts = out[:, :, : op.size]
    scale = 1.0 / np.sqrt((parts**2).mean(axis=-1, keepdims=True) + op.eps)
    own = 1.0 if op.weight is None else weights.rows(op.weight).reshape(-1, op.size)
    out[:, :, : op.size] = parts * scale * own
    return out.reshape(x.shape)


def layer_norm(op: ops.LayerNorm, weights: Weights, x: Float64) -> Float64:
    """Normalisation by mean and variance."""
    centred = x - x.mean(axis=1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + op.eps) * weights.vector(op.weight)
    return np.asarray(y if op.bias is None else y + weights.vector(op.bias))


def linear(op: ops.Linear, weights: Weights, x: Float64) -> Float64:
    """Matrix product and bias."""
    y = weights.project(x, op.weight)
    return y if op.bias is None else y + weights.vector(op.bias)


def sliced(op: ops.Slice, x: Float64) -> Float64:
    """Elements of each group."""
    parts = x.reshape(len(x), op.groups, -1)[:, :, op.start : op.start + op.out.width // op.groups]
    return parts.reshape(len(x), -1)


def low_rank(op: ops.LowRank, batch: Batch, weights: Weights, x: Float64, y: Float64) -> Float64:
    """Adapter by adapter."""
    chosen = adapters_of(batch, weights.stored(op.a).shape[0])
    if op.out.picked:
        chosen = chosen[batch.pick]
    y = y.copy()
    for number in np.unique(chosen[chosen >= 0]):
        rows = chosen == number
        first = int(number) * op.rank
        y[rows] += weights.project(x[rows], op.a, first, op.rank) @ weights.rows(op.b, first, op.rank)
    return y


def head_linear(op: ops.HeadLinear, weights: Weights, x: Float64) -> Float64:
    """Head by head."""
    heads = x.reshape(len(x), op.heads, op.inward + op.rest)
    products = [
        weights.project(heads[:, head, : op.inward], op.weight, head * op.outward, op.outward)
        for head in range(op.heads)
    ]
    return np.concatenate([np.stack(products, axis=1), heads[:, :, op.inward :]], axis=2).reshape(len(x), -1)


def rope(op: ops.Rope, batch: Batch, weights: Weights, x: Float64) -> Float64:
    """Rotary position embedding."""
    frequencies = np.array(op.frequencies)
    if op.factors is not None:
        frequencies = frequencies / weights.vector(op.factors)
    angle = batch.positions[:, None, None] * frequencies
    cos, sin = np.cos(angle) * op.magnitude, np.sin(angle) * op.magnitude
    pairs = len(op.frequencies)
    heads = x.reshape(len(x), op.heads, op.head_size)
    out = heads.copy()
    if op.layout is RopeLayout.INTERLEAVED:
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    else:
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    turned = out[:, :, op.first :]
    a, b = turned[:, :, first].copy(), turned[:, :, second].copy()
    turned[:, :, first] = a * cos - b * sin
    turned[:, :, second] = a * sin + b * cos
    return out.reshape(x.shape)


def attend(
    op: ops.Attend, batch: Batch, weights: Weights, cache: Cache, q: Float64, k: Float64, v: Float64 | None = None
) -> Float64:
    """Attention over what the cache holds after this batch's keys and values are stored."""
    slots, tables = batch.paging(op.window)
    cache.store(slots, k, v)
    group = op.heads // op.kv_heads
    sinks = None if op.sinks is None else weights.vector(op.sinks).reshape(op.kv_heads, group)
    out = np.empty((len(q), op.heads, op.value_size))
    queries = q.reshape(len(q), op.kv_heads, group, op.head_size)
    for row, (position, sequence) in enumerate(zip(batch.positions, batch.sequence, strict=True)):
        first = int(first_seen(position, op.reach))
        keys, values = cache.fetch(tables[sequence], first, int(position) + 1)
        scores = op.scale * np.einsum("hgd,nhd->hgn", queries[row], keys)
        p = softmax(scores if op.softcap is None else soft_cap(scores, op.softcap), sinks)
        out[row] = np.einsum("hgn,nhd->hgd", p, values).reshape(op.heads, op.value_size)
    return out.reshape(len(q), -1)


def best(scores: Float64, count: int) -> NDArray[np.intp]:
    """Indices of the `count` largest along the last axis, the lower index first among equals."""
    return np.argsort(-scores, axis=-1, kind="stable")[..., :count]


def route(op: ops.Moe, weights: Weights, logits: Float64) -> tuple[NDArray[np.intp], Float64]:
    """The experts that each row chooses [rows, used], and their weights."""
    router = op.router
    scores = activate(logits, np.ones_like(logits), "sigmoid") if router.scoring == "sigmoid" else softmax(logits)
    choice = logits
    if op.selection_bias is not None:
        choice = (logits if router.bias_logits else scores) + weights.vector(op.selection_bias)
    if np.isnan(choice).any():
        raise BackendError(f"the router before {op.gate} gave NaN; the weights are damaged, or activations overflow")
    if router.limited:
        groups = (scores if op.selection_bias is None else choice).reshape(len(logits), router.groups, -1)
        group_scores = np.take_along_axis(groups, best(groups, router.group_best), axis=-1).sum(axis=-1)
        left_out = np.ones(group_scores.shape, bool)
        np.put_along_axis(left_out, best(group_scores, router.groups_used), False, axis=1)
        choice = np.where(np.repeat(left_out, groups.shape[-1], axis=1), -np.inf, choice)
    chosen = best(choice, op.used)
    share = np.take_along_axis(scores, chosen, axis=1)
    if router.scoring == "sparsemixer":
        share = np.stack([sparse_mix(logits, chosen, rank, router.band) for rank in range(op.used)], axis=1)
    if router.normalize:
        share = share / (share.sum(axis=1, keepdims=True) + router.epsilon)
    if op.expert_scale is not None:
        share = share * weights.vector(op.expert_scale)[chosen]
    return chosen, router.scale * share


def sparse_mix(logits: Float64, chosen: NDArray[np.intp], rank: int, band: float) -> Float64:
    """The weights [rows] of the experts chosen as number `rank`; see `Router`."""
    own = np.take_along_axis(logits, chosen[:, rank : rank + 1], axis=1)
    near = own - logits <= band * np.maximum(np.abs(logits), own)
    np.put_along_axis(near, chosen[:, :rank], False, axis=1)
    return np.asarray(1.0 / np.where(near, np.exp(np.minimum(logits - own, 0.0)), 0.0).sum(axis=1))


def moe(op: ops.Moe, weights: Weights, x: Float64, logits: Float64) -> Float64:
    """Route each row to its experts and add up what they give."""
    chosen, share = route(op, weights, logits)
    out = np.zeros((len(x), op.out.width))
    for expert in np.unique(chosen):
        rows, rank = np.nonzero(chosen == expert)
        weight = share[rows, rank][:, None]
        inward = weight * x[rows] if op.router.weighs_inputs else x[rows]
        gate = weights.expert(inward, op.gate, op.gate_bias, int(expert), op.hidden)
        up = weights.expert(inward, op.up, op.up_bias, int(expert), op.hidden)
        y = weights.expert(activate(gate, up, op.kind), op.down, op.down_bias, int(expert), op.out.width)
        out[rows] += y if op.router.weighs_inputs else weight * y
    return out


def run(op: ops.Op, batch: Batch, weights: Weights, caches: list[Cache], inputs: list[Float32]) -> Float32:
    """Run one op on its inputs (in the order of `op.inputs`)."""
    x = [value.astype(np.float64) for value in inputs]
    match op:
        case ops.Embed():
            y = embed(op, batch, weights)
        case ops.RmsNorm():
            y = rms_norm(op, weights, *x)
        case ops.LayerNorm():
            y = layer_norm(op, weights, *x)
        case ops.Linear():
            y = linear(op, weights, *x)
        case ops.LowRank():
            y = low_rank(op, batch, weights, *x)
        case ops.HeadLinear():
            y = head_linear(op, weights, *x)
        case ops.Add():
            y = x[0] + x[1]
        case ops.Scale():
            y = op.factor * x[0] * (1.0 if op.weight is None else weights.vector(op.weight))
        case ops.PositionScale():
            y = (1 + op.strength * np.log1p((batch.positions + op.ahead) // op.length))[:, None] * x[0]
        case ops.SoftCap():
            y = soft_cap(x[0], op.cap)
        case ops.Clamp():
            y = np.clip(x[0], -op.limit, op.limit)
        case ops.GatedActivation():
            y = activate(np.repeat(x[0], x[1].shape[1] // x[0].shape[1], axis=1), x[1], op.kind)
        case ops.Slice():
            y = sliced(op, *x)
        case ops.Rope():
            y = rope(op, batch, weights, *x)
        case ops.Attend():
            y = attend(op, batch, weights, caches[op.layer], *x)
        case ops.Moe():
            y = moe(op, weights, *x)
        case ops.PickRows():
            y = x[0][batch.pick]
        case _:
            raise UnsupportedError(f"op {type(op).__name__} is not supported by the reference backend")
    return y.astype(np.float32)
