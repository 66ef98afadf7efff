"""The ops over whole sequences, in the floats of their inputs; `edgert_models.ops` defines them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from edgert_models import ops
from edgert_models.errors import BackendError, UnsupportedError
from edgert_models.rope import RopeLayout
from numpy.typing import NDArray

from edgert_runtimes.batches import first_seen
from edgert_runtimes.layerwise.floats import Floats, Floats_
from edgert_runtimes.layerwise.sequences import Sequences


class Observer:
    """Is told what is about to enter each matrix, op by op; may replace the matrix before it is read."""

    def before(self, op: ops.Op, inputs: list[Floats_]) -> None:
        """An op is about to run on its inputs."""

    def matrix(self, name: str, x: Floats_) -> None:
        """The inputs [rows, in] of a matrix [out, in]."""

    def expert(self, name: str, expert: int, x: Floats_, rows: NDArray[np.intp]) -> None:
        """The inputs [len(rows), in] of one expert's matrix: of the rows that chose it."""

    def after(self, op: ops.Op) -> None:
        """It has run."""


def activate(gate: Floats_, up: Floats_, kind: str) -> Floats_:
    """The activations that a gate and what it lets through can have."""
    if kind == "silu":
        return gate * sigmoid(gate) * up
    if kind == "gelu":
        return gate * sigmoid(gelu_exponent(gate)) * up
    if kind == "swiglu_oai":
        gate = np.minimum(gate, 7)
        return gate * sigmoid(1.702 * gate) * (1 + np.clip(up, -7, 7))
    if kind == "sigmoid":
        return sigmoid(gate) * up
    if kind == "softplus":
        return softplus(gate) * up
    if kind == "relu":
        return np.maximum(gate, 0) * up
    if kind == "bilinear":
        return gate * up
    raise UnsupportedError(f"activation '{kind}' is not supported layer by layer")


def gelu_exponent(gate: Floats_) -> Floats_:
    """GELU is x · sigmoid of this: 1 + tanh(t) = 2 sigmoid(2 t)."""
    root = gate.dtype.type(2 * np.sqrt(2 / np.pi))
    return np.asarray(root * (gate + gate.dtype.type(0.044715) * gate**3))


def sigmoid(x: Floats_) -> Floats_:
    """1 / (1 + exp(-x)), which never overflows in this form."""
    half: Floats_ = 0.5 * np.tanh(0.5 * x)
    half += 0.5
    return half


def softplus(x: Floats_) -> Floats_:
    """log(1 + exp(x))."""
    return np.asarray(np.logaddexp(x.dtype.type(0), x))


def spread(gate: Floats_, up: Floats_) -> Floats_:
    """A gate for each element of what it lets through."""
    return np.repeat(gate, up.shape[1] // gate.shape[1], axis=1)


def softmax(x: Floats_, sink: Floats_ | None = None) -> Floats_:
    """Over the last axis, to which a score `sink` (of one for that axis) is added whose share is left out."""
    highest = x.max(axis=-1, keepdims=True)
    if sink is not None:
        highest = np.maximum(highest, sink)
    e = np.exp(x - highest)
    everything = e.sum(axis=-1, keepdims=True)
    if sink is not None:
        everything += np.exp(sink - highest)
    e /= everything
    return np.asarray(e)


def rms_norm(op: ops.RmsNorm, weights: Floats, x: Floats_) -> Floats_:
    """Group by group."""
    parts, scale = rms_parts(op, x)
    out = x.reshape(len(x), op.groups, -1).copy()
    out[:, :, : op.size] = parts * scale * (1 if op.weight is None else weights.whole(op.weight))
    return out.reshape(x.shape)


def rms_parts(op: ops.RmsNorm, x: Floats_) -> tuple[Floats_, Floats_]:
    """Groups [rows, groups, n], and what each is divided by, inverted [rows, groups, 1]."""
    parts = x.reshape(len(x), op.groups, -1)[:, :, : op.size]
    mean = np.einsum("rgn,rgn->rg", parts, parts)[..., None] / parts.shape[-1]
    return parts, 1 / np.sqrt(mean + x.dtype.type(op.eps))


def layer_norm(op: ops.LayerNorm, weights: Floats, x: Floats_) -> Floats_:
    """Row by row."""
    centred, scale = layer_norm_parts(op, x)
    y = centred * scale * weights.whole(op.weight)
    return np.asarray(y if op.bias is None else y + weights.whole(op.bias))


def layer_norm_parts(op: ops.LayerNorm, x: Floats_) -> tuple[Floats_, Floats_]:
    """Rows less their mean, and what each is divided by, inverted [rows, 1]."""
    centred = x - x.mean(axis=1, keepdims=True)
    return centred, 1 / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + x.dtype.type(op.eps))


def linear(op: ops.Linear, weights: Floats, x: Floats_) -> Floats_:
    """Matrix product and bias."""
    y = x @ matrix(op, weights).T
    if op.bias is not None:
        y += weights.whole(op.bias)
    return np.asarray(y)


def head_linear(op: ops.HeadLinear, weights: Floats, observer: Observer, x: Floats_) -> Floats_:
    """Head by head, as experts that every row chose."""
    heads, rows = x.reshape(len(x), op.heads, -1), np.arange(len(x))
    out = np.empty((len(x), op.heads, op.outward + op.rest), x.dtype)
    for head in range(op.heads):
        inward = heads[:, head, : op.inward]
        observer.expert(op.weight, head, inward, rows)
        out[:, head, : op.outward] = inward @ weights.expert(op.weight, head).T
    out[:, :, op.outward :] = heads[:, :, op.inward :]
    return out.reshape(len(x), -1)


def matrix(op: ops.Linear, weights: Floats) -> Floats_:
    """The weight as [out, in], which one row alone may be without."""
    return np.atleast_2d(weights.whole(op.weight))


def sliced(op: ops.Slice, x: Floats_) -> Floats_:
    """Elements of each group."""
    return x.reshape(len(x), op.groups, -1)[:, :, op.start : op.start + op.out.width // op.groups].reshape(len(x), -1)


def short_conv(op: ops.ShortConv, text: Sequences, weights: Floats, x: Floats_) -> Floats_:
    """Sequence by sequence."""
    weight = weights.whole(op.weight).reshape(-1, op.kernel)
    out = np.zeros_like(x)
    for rows in each_sequence(text):
        length = rows.stop - rows.start
        for j in range(op.kernel):
            back = min(op.kernel - 1 - j, length)
            out[rows][back:] += x[rows][: length - back] * weight[:, j]
    if op.bias is not None:
        out += weights.whole(op.bias)
    return out * sigmoid(out) if op.silu else out


def delta_rule(
    op: ops.DeltaRule, text: Sequences, weights: Floats, x: Floats_, a: Floats_, b: Floats_, *others: Floats_
) -> Floats_:
    """Position by position, all sequences together."""
    heads = [op.keys_of(head) for head in range(op.heads)]
    *pair, v = (x, *others) if others else np.split(x, [op.key_width, 2 * op.key_width], axis=1)
    keys = np.stack(pair, axis=1).reshape(len(x), 2, op.key_heads, op.key_size)
    keys = (keys / np.sqrt((keys * keys).sum(axis=-1, keepdims=True) + x.dtype.type(1e-6)))[:, :, heads]
    values = v.reshape(len(x), op.heads, -1)
    shift = (a + weights.whole(op.bias)).reshape(len(x), op.heads, -1)
    slope = weights.whole(op.decay).reshape(-1, 1)
    decay = np.exp(x.dtype.type(op.floor) * sigmoid(slope * shift) if op.floor else slope * softplus(shift))
    rate = sigmoid(b)
    state = np.zeros((len(text.bounds) - 1, op.heads, op.key_size, op.value_size), x.dtype)
    out = np.empty_like(values)
    for rows, on in each_position(text):
        (q, k), v = keys[rows].swapaxes(0, 1), values[rows]
        after = state[on] * decay[rows][..., None]
        change = rate[rows][:, :, None] * (v - (k[:, :, None] @ after)[:, :, 0])
        after += k[..., None] * change[:, :, None]
        out[rows] = (q[:, :, None] @ after)[:, :, 0] * x.dtype.type(op.key_size**-0.5)
        state[on] = after
    return out.reshape(len(x), -1)


def scan(op: ops.Scan, text: Sequences, weights: Floats, x: Floats_, t: Floats_, b: Floats_, c: Floats_) -> Floats_:
    """Position by position, all sequences together."""
    heads = x.reshape(len(x), op.heads, -1)
    b, c = (np.repeat(each.reshape(len(x), op.groups, -1), op.heads // op.groups, axis=1) for each in (b, c))
    span = np.maximum(softplus(t + weights.whole(op.bias)), x.dtype.type(op.least))
    decay = np.exp(span[..., None] * weights.whole(op.decay).reshape(op.heads, -1))
    out = heads * weights.whole(op.skip).reshape(-1, 1)
    state = np.zeros((len(text.bounds) - 1, op.heads, op.size, op.state_size), x.dtype)
    for rows, on in each_position(text):
        entering = (span[rows][..., None] * heads[rows])[..., None] * b[rows][:, :, None]
        state[on] = decay[rows][:, :, None] * state[on] + entering
        out[rows] += (state[on] @ c[rows][..., None])[..., 0]
    return out.reshape(len(x), -1)


def each_position(text: Sequences) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """The rows of one position after another, and which sequences have it."""
    starts, lengths = np.array(text.bounds[:-1]), np.diff(text.bounds)
    for position in range(lengths.max()):
        on = position < lengths
        yield starts[on] + position, on


def angles(op: ops.Rope, weights: Floats, text: Sequences) -> tuple[Floats_, Floats_]:
    """Cosine and sine times the magnitude, [rows, 1, pairs]."""
    frequencies = np.array(op.frequencies)
    if op.factors is not None:
        frequencies = frequencies / weights.whole(op.factors)
    angle = text.positions[:, None, None] * frequencies
    cos, sin = ((f(angle) * op.magnitude).astype(weights.dtype) for f in (np.cos, np.sin))
    return cos, sin


def rotated(op: ops.Rope, cos: Floats_, sin: Floats_, x: Floats_) -> Floats_:
    """Pairs (a, b) → (a cos - b sin, a sin + b cos); what belongs to no pair stays."""
    pairs = len(op.frequencies)
    heads = x.reshape(len(x), op.heads, op.head_size)
    out = heads.copy()
    if op.layout is RopeLayout.INTERLEAVED:
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    else:
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    a, b = (heads[:, :, op.first :][:, :, each] for each in (first, second))
    turned = out[:, :, op.first :]
    turned[:, :, first] = a * cos - b * sin
    turned[:, :, second] = a * sin + b * cos
    return out.reshape(x.shape)


def position_scale(op: ops.PositionScale, text: Sequences, x: Floats_) -> Floats_:
    """By the position of each row."""
    factors = 1 + op.strength * np.log1p((text.positions + op.ahead) // op.length)
    return np.asarray(x * factors.astype(x.dtype)[:, None])


def scale(op: ops.Scale, weights: Floats, x: Floats_) -> Floats_:
    """By a number, and by one that is a weight."""
    factor = x.dtype.type(op.factor) if op.weight is None else op.factor * weights.whole(op.weight)
    return np.asarray(x * factor)


def soft_cap(x: Floats_, cap: float) -> Floats_:
    """cap · tanh(x / cap)."""
    limit = x.dtype.type(cap)
    return np.asarray(limit * np.tanh(x / limit))


def by_head(x: Floats_, kv_heads: int, head_size: int) -> Floats_:
    """[length, heads · size] → [kv_heads, queries of it · length, size], where keys have one query."""
    parts = x.reshape(len(x), kv_heads, -1, head_size).transpose(1, 2, 0, 3)
    return parts.reshape(kv_heads, -1, head_size)


def from_heads(x: Floats_, length: int) -> Floats_:
    """What `by_head` did, undone."""
    kv_heads, _, head_size = x.shape
    return x.reshape(kv_heads, -1, length, head_size).transpose(2, 0, 1, 3).reshape(length, -1)


def scores_of(op: ops.Attend, q: Floats_, k: Floats_) -> Floats_:
    """Scores of each query and each key of one sequence, before caps: [kv_heads, queries of it · length, length]."""
    scores = by_head(q, op.kv_heads, op.head_size) @ by_head(k, op.kv_heads, op.head_size).transpose(0, 2, 1)
    return np.asarray(scores * scores.dtype.type(op.scale))


def attention(op: ops.Attend, weights: Floats, q: Floats_, k: Floats_) -> Floats_:
    """What each query of one sequence takes of each key: [kv_heads, queries of it · length, length]."""
    length, scores = len(q), scores_of(op, q, k)
    if op.softcap is not None:
        scores = soft_cap(scores, op.softcap)
    position = np.arange(length, dtype=np.int32)
    hidden = (position > position[:, None]) | (position < first_seen(position, op.reach)[:, None])
    view = scores.reshape(op.kv_heads, -1, length, length)
    np.copyto(view, -np.inf, where=hidden)
    sinks = None if op.sinks is None else weights.whole(op.sinks).reshape(op.kv_heads, -1, 1, 1)
    return softmax(view, sinks).reshape(scores.shape)


def values_of(op: ops.Attend, k: Floats_, v: Floats_ | None) -> Floats_:
    """[kv_heads, length, value_size]: of their own, or the beginning of the keys."""
    if v is None:
        return by_head(k, op.kv_heads, op.head_size)[:, :, : op.value_size]
    return by_head(v, op.kv_heads, op.value_size)


def attend(
    op: ops.Attend, text: Sequences, weights: Floats, q: Floats_, k: Floats_, v: Floats_ | None = None
) -> Floats_:
    """Sequence by sequence."""
    out = np.empty((len(q), op.out.width), q.dtype)
    for rows in each_sequence(text):
        p = attention(op, weights, q[rows], k[rows])
        values = values_of(op, k[rows], None if v is None else v[rows])
        out[rows] = from_heads(p @ values, rows.stop - rows.start)
    return out


def each_sequence(text: Sequences) -> Iterator[slice]:
    """Rows of every sequence."""
    return (slice(start, end) for start, end in pairwise(text.bounds))


@dataclass(frozen=True)
class Routing:
    """Where rows go: the experts `chosen` by each [rows, used], their `share` [rows, used], and the `scores`
    [rows, experts] of all; with a sparse mixer those that each choice is among [rows, used, experts].
    """

    chosen: NDArray[np.intp]
    share: Floats_
    scores: Floats_

    def parts(self) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp]]]:
        """Each expert that some row chose: its index, the rows, and which of their choices it was."""
        flat = self.chosen.reshape(-1)
        order = np.argsort(flat, kind="stable")
        bounds = np.flatnonzero(np.diff(flat[order], prepend=-1, append=-1))
        for start, end in pairwise(bounds):
            rows, rank = np.divmod(order[start:end], self.chosen.shape[1])
            yield int(flat[order[start]]), rows, rank


def route(op: ops.Moe, weights: Floats, logits: Floats_) -> Routing:
    """The best experts of each row."""
    router = op.router
    scores = sigmoid(logits) if router.scoring == "sigmoid" else softmax(logits)
    choice = logits
    if op.selection_bias is not None:
        choice = (logits if router.bias_logits else scores) + weights.whole(op.selection_bias)
    if np.isnan(choice).any():
        raise BackendError(f"the router before {op.gate} gave NaN; the weights are damaged, or activations overflow")
    if router.limited:
        groups = (scores if op.selection_bias is None else choice).reshape(len(logits), router.groups, -1)
        group_scores = np.sort(groups, axis=-1)[..., -router.group_best :].sum(axis=-1)
        kept = np.zeros(group_scores.shape, bool)
        np.put_along_axis(kept, _largest(group_scores, router.groups_used), True, axis=1)
        choice = np.where(np.repeat(kept, groups.shape[-1], axis=1), choice, -np.inf)
    chosen = _largest(choice, op.used)
    if router.scoring == "sparsemixer":
        scores = sparse_mix(logits, chosen, router.band)
        share = np.take_along_axis(scores, chosen[:, :, None], axis=2)[:, :, 0]
    else:
        share = np.take_along_axis(scores, chosen, axis=1)
    if router.normalize:
        share /= share.sum(axis=1, keepdims=True) + share.dtype.type(router.epsilon)
    share *= share.dtype.type(router.scale)
    if op.expert_scale is not None:
        share *= weights.whole(op.expert_scale)[chosen]
    return Routing(chosen, share, scores)


def _largest(x: Floats_, count: int) -> NDArray[np.intp]:
    """Indices of the `count` largest of each row, the lower index first among equals."""
    return np.argsort(-x, axis=1, kind="stable")[:, :count]


def of_expert(weights: Floats, x: Floats_, name: str, bias: str | None, expert: int) -> Floats_:
    """x Wᵀ + bias of one expert."""
    y = x @ weights.expert(name, expert).T
    if bias is not None:
        y += weights.expert(bias, expert)
    return np.asarray(y)


def sparse_mix(logits: Floats_, chosen: NDArray[np.intp], band: float) -> Floats_:
    """What each choice is among [rows, used, experts]: a softmax over it and the worse ones that are near."""
    own = np.take_along_axis(logits, chosen, axis=1)[:, :, None]
    near = own - logits[:, None] <= band * np.maximum(np.abs(logits[:, None]), own)
    for rank in range(1, chosen.shape[1]):
        np.put_along_axis(near[:, rank], chosen[:, :rank], False, axis=1)
    return softmax(np.where(near, logits[:, None], -np.inf).astype(logits.dtype))


def moe(op: ops.Moe, weights: Floats, observer: Observer, x: Floats_, logits: Floats_) -> Floats_:
    """Expert by expert, so that the weights of one at a time are in memory."""
    routing = route(op, weights, logits)
    out = np.zeros((len(x), op.out.width), x.dtype)
    for expert, rows, rank in routing.parts():
        share = routing.share[rows, rank][:, None]
        inward = x[rows] * share if op.router.weighs_inputs else x[rows]
        observer.expert(op.gate, expert, inward, rows)
        observer.expert(op.up, expert, inward, rows)
        gate = of_expert(weights, inward, op.gate, op.gate_bias, expert)
        up = of_expert(weights, inward, op.up, op.up_bias, expert)
        hidden = activate(gate, up, op.kind)
        observer.expert(op.down, expert, hidden, rows)
        y = of_expert(weights, hidden, op.down, op.down_bias, expert)
        out[rows] += y if op.router.weighs_inputs else share * y
    return out


def run(op: ops.Op, text: Sequences, weights: Floats, inputs: list[Floats_], observer: Observer) -> Floats_:
    """One op on its inputs, in the order of `op.inputs`."""
    match op:
        case ops.Embed():
            return weights.rows(op.weight, text.tokens)
        case ops.RmsNorm():
            return rms_norm(op, weights, *inputs)
        case ops.LayerNorm():
            return layer_norm(op, weights, *inputs)
        case ops.Linear():
            observer.matrix(op.weight, inputs[0])
            return linear(op, weights, *inputs)
        case ops.HeadLinear():
            return head_linear(op, weights, observer, *inputs)
        case ops.Add():
            return np.asarray(inputs[0] + inputs[1])
        case ops.Scale():
            return scale(op, weights, *inputs)
        case ops.PositionScale():
            return position_scale(op, text, inputs[0])
        case ops.SoftCap():
            return soft_cap(inputs[0], op.cap)
        case ops.Clamp():
            return np.clip(inputs[0], -op.limit, op.limit)
        case ops.GatedActivation():
            return activate(spread(*inputs), inputs[1], op.kind)
        case ops.Slice():
            return sliced(op, *inputs)
        case ops.ShortConv():
            return short_conv(op, text, weights, *inputs)
        case ops.DeltaRule():
            return delta_rule(op, text, weights, *inputs)
        case ops.Scan():
            return scan(op, text, weights, *inputs)
        case ops.Rope():
            return rotated(op, *angles(op, weights, text), *inputs)
        case ops.Attend():
            return attend(op, text, weights, *inputs)
        case ops.Moe():
            return moe(op, weights, observer, *inputs)
        case ops.PickRows():
            return np.asarray(inputs[0][text.pick])
        case _:
            raise UnsupportedError(f"op {type(op).__name__} cannot be run layer by layer")
