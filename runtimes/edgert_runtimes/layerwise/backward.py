"""Derivatives of the ops: from that of a loss by an op's result to those by its inputs and weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from edgert_models import ops
from edgert_models.errors import UnsupportedError

from edgert_runtimes.layerwise import forward as f
from edgert_runtimes.layerwise.floats import Floats, Floats_
from edgert_runtimes.layerwise.sequences import Sequences


class Sink(Protocol):
    """Takes derivatives by weights. A weight that serves twice, as a tied embedding, comes twice: they add up."""

    def wants(self, name: str) -> bool:
        """Whether to compute the derivative by a weight."""

    def take(self, name: str, gradient: Floats_, expert: int | None = None) -> None:
        """The derivative by a weight, in its shape; of one matrix (or bias) of several where `expert` says which."""


def run(
    op: ops.Op, text: Sequences, weights: Floats, inputs: list[Floats_], given: Floats_, sink: Sink
) -> list[Floats_]:
    """Derivatives by the inputs, in the order of `op.inputs`."""
    match op:
        case ops.Embed():
            return _embed(op, text, weights, given, sink)
        case ops.RmsNorm():
            return [_rms_norm(op, weights, sink, given, *inputs)]
        case ops.LayerNorm():
            return [_layer_norm(op, weights, sink, given, *inputs)]
        case ops.Linear():
            return [_linear(op, weights, sink, given, *inputs)]
        case ops.HeadLinear():
            return [_head_linear(op, weights, sink, given, *inputs)]
        case ops.Add():
            return [given, given]
        case ops.Scale():
            if op.weight is not None and sink.wants(op.weight):
                sink.take(op.weight, np.array([op.factor * (given * inputs[0]).sum()], given.dtype))
            return [f.scale(op, weights, given)]
        case ops.PositionScale():
            return [f.position_scale(op, text, given)]
        case ops.SoftCap():
            return [given * _capped_slope(inputs[0], op.cap)]
        case ops.Clamp():
            return [given * (np.abs(inputs[0]) < op.limit)]
        case ops.GatedActivation():
            by_gate, by_up = _gated(op.kind, given, f.spread(*inputs), inputs[1])
            return [by_gate.reshape(*inputs[0].shape, -1).sum(axis=-1), by_up]
        case ops.Slice():
            return [_sliced(op, given, *inputs)]
        case ops.ShortConv():
            return [_short_conv(op, text, weights, sink, given, *inputs)]
        case ops.Rope():
            cos, sin = f.angles(op, weights, text)
            if op.factors is not None and sink.wants(op.factors):
                raise UnsupportedError(f"no derivative by {op.factors}")
            return [_rotated_back(op, given, cos, sin)]
        case ops.Attend():
            return _attend(op, text, weights, sink, given, *inputs)
        case ops.Moe():
            return _moe(op, weights, sink, given, *inputs)
        case ops.PickRows():
            out = np.zeros_like(inputs[0])
            np.add.at(out, text.pick, given)
            return [out]
        case _:
            raise UnsupportedError(f"op {type(op).__name__} has no derivative here")


def _embed(op: ops.Embed, text: Sequences, weights: Floats, given: Floats_, sink: Sink) -> list[Floats_]:
    if sink.wants(op.weight):
        gradient = np.zeros(weights.weights[op.weight].shape, given.dtype)
        np.add.at(gradient, text.tokens, given)
        sink.take(op.weight, gradient)
    return []


def _rms_norm(op: ops.RmsNorm, weights: Floats, sink: Sink, given: Floats_, x: Floats_) -> Floats_:
    parts, scale = f.rms_parts(op, x)
    normal = parts * scale
    out = given.reshape(len(x), op.groups, -1).copy()
    grouped = out[:, :, : op.size]
    if op.weight is not None and sink.wants(op.weight):
        sink.take(op.weight, np.einsum("rgn,rgn->gn" if op.own else "rgn,rgn->n", grouped, normal))
    inner = grouped if op.weight is None else grouped * weights.whole(op.weight)
    shared = np.einsum("rgn,rgn->rg", inner, normal)[..., None] / normal.shape[-1]
    out[:, :, : op.size] = scale * (inner - normal * shared)
    return out.reshape(x.shape)


def _layer_norm(op: ops.LayerNorm, weights: Floats, sink: Sink, given: Floats_, x: Floats_) -> Floats_:
    centred, scale = f.layer_norm_parts(op, x)
    normal = centred * scale
    if sink.wants(op.weight):
        sink.take(op.weight, np.einsum("rn,rn->n", given, normal))
    if op.bias is not None and sink.wants(op.bias):
        sink.take(op.bias, given.sum(axis=0))
    inner = given * weights.whole(op.weight)
    shared = np.mean(inner * normal, axis=1, keepdims=True)
    return np.asarray(scale * (inner - inner.mean(axis=1, keepdims=True) - normal * shared))


def _capped_slope(x: Floats_, cap: float) -> Floats_:
    """Of cap · tanh(x / cap): 1 - tanh²(x / cap)."""
    return np.asarray(1 - np.tanh(x / x.dtype.type(cap)) ** 2)


def _linear(op: ops.Linear, weights: Floats, sink: Sink, given: Floats_, x: Floats_) -> Floats_:
    if sink.wants(op.weight):
        sink.take(op.weight, (given.T @ x).reshape(weights.weights[op.weight].shape))
    if op.bias is not None and sink.wants(op.bias):
        sink.take(op.bias, given.sum(axis=0))
    return np.asarray(given @ f.matrix(op, weights))


def _head_linear(op: ops.HeadLinear, weights: Floats, sink: Sink, given: Floats_, x: Floats_) -> Floats_:
    outward, inward = given.reshape(len(x), op.heads, -1), x.reshape(len(x), op.heads, -1)
    by_x = np.empty_like(inward)
    for head in range(op.heads):
        by_product = outward[:, head, : op.outward]
        if sink.wants(op.weight):
            sink.take(op.weight, by_product.T @ inward[:, head, : op.inward], head)
        by_x[:, head, : op.inward] = by_product @ weights.expert(op.weight, head)
    by_x[:, :, op.inward :] = outward[:, :, op.outward :]
    return by_x.reshape(x.shape)


def _gated(kind: str, given: Floats_, gate: Floats_, up: Floats_) -> tuple[Floats_, Floats_]:
    """By gate and up."""
    if kind == "silu":
        s = f.sigmoid(gate)
        return given * up * (s * (1 + gate * (1 - s))), given * (gate * s)
    if kind == "gelu":
        s, slope = f.sigmoid(f.gelu_exponent(gate)), 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * gate**2)
        return given * up * (s + gate * s * (1 - s) * slope.astype(gate.dtype)), given * (gate * s)
    if kind == "swiglu_oai":
        a, b = np.minimum(gate, 7), np.clip(up, -7, 7)
        s = f.sigmoid(1.702 * a)
        by_gate = given * (1 + b) * (s * (1 + 1.702 * a * (1 - s)))
        return by_gate * (gate < 7), given * (a * s) * (np.abs(up) < 7)
    if kind == "sigmoid":
        s = f.sigmoid(gate)
        return given * up * (s * (1 - s)), given * s
    if kind == "softplus":
        return given * up * f.sigmoid(gate), given * f.softplus(gate)
    if kind == "relu":
        return given * up * (gate > 0), given * np.maximum(gate, 0)
    if kind == "bilinear":
        return given * up, given * gate
    raise UnsupportedError(f"activation '{kind}' has no derivative here")


def _sliced(op: ops.Slice, given: Floats_, x: Floats_) -> Floats_:
    out = np.zeros_like(x)
    size = op.out.width // op.groups
    out.reshape(len(x), op.groups, -1)[:, :, op.start : op.start + size] = given.reshape(len(x), op.groups, size)
    return out


def _short_conv(op: ops.ShortConv, text: Sequences, weights: Floats, sink: Sink, given: Floats_, x: Floats_) -> Floats_:
    if op.silu:
        linear = f.short_conv(replace(op, silu=False), text, weights, x)
        (given, _) = _gated("silu", given, linear, np.ones_like(linear))
    weight = weights.whole(op.weight).reshape(-1, op.kernel)
    out, by_weight = np.zeros_like(x), np.zeros_like(weight)
    for rows in f.each_sequence(text):
        length = rows.stop - rows.start
        for j in range(op.kernel):
            back = min(op.kernel - 1 - j, length)
            out[rows][: length - back] += given[rows][back:] * weight[:, j]
            by_weight[:, j] += (given[rows][back:] * x[rows][: length - back]).sum(axis=0)
    if sink.wants(op.weight):
        sink.take(op.weight, by_weight)
    if op.bias is not None and sink.wants(op.bias):
        sink.take(op.bias, given.sum(axis=0))
    return out


def _rotated_back(op: ops.Rope, given: Floats_, cos: Floats_, sin: Floats_) -> Floats_:
    """A rotation's transpose turns the other way."""
    return f.rotated(op, cos, -sin, given)


def _attend(
    op: ops.Attend,
    text: Sequences,
    weights: Floats,
    sink: Sink,
    given: Floats_,
    q: Floats_,
    k: Floats_,
    v: Floats_ | None = None,
) -> list[Floats_]:
    by_q, by_k, by_v = np.empty_like(q), np.empty_like(k), None if v is None else np.empty_like(v)
    scale = q.dtype.type(op.scale)
    by_sinks = np.zeros(op.heads, q.dtype)
    for rows in f.each_sequence(text):
        length = rows.stop - rows.start
        p = f.attention(op, weights, q[rows], k[rows])
        queries, keys = (f.by_head(x[rows], op.kv_heads, op.head_size) for x in (q, k))
        values = f.values_of(op, k[rows], None if v is None else v[rows])
        inner = f.by_head(given[rows], op.kv_heads, op.value_size)
        by_p = inner @ values.transpose(0, 2, 1)
        mean = np.einsum("hqk,hqk->hq", by_p, p)
        by_sinks -= (mean * (1 - p.sum(axis=-1))).reshape(op.heads, length).sum(axis=-1)
        by_p -= mean[..., None]
        by_p *= p
        if op.softcap is not None:
            by_p *= _capped_slope(f.scores_of(op, q[rows], k[rows]), op.softcap)
        by_p *= scale
        by_q[rows] = f.from_heads(by_p @ keys, length)
        by_keys, by_values = by_p.transpose(0, 2, 1) @ queries, p.transpose(0, 2, 1) @ inner
        if by_v is None:
            by_keys[:, :, : op.value_size] += by_values
        else:
            by_v[rows] = f.from_heads(by_values, length)
        by_k[rows] = f.from_heads(by_keys, length)
    if op.sinks is not None and sink.wants(op.sinks):
        sink.take(op.sinks, by_sinks)
    return [by_q, by_k] if by_v is None else [by_q, by_k, by_v]


def _moe(op: ops.Moe, weights: Floats, sink: Sink, given: Floats_, x: Floats_, logits: Floats_) -> list[Floats_]:
    routing = f.route(op, weights, logits)
    by_x, by_share = np.zeros_like(x), np.zeros_like(routing.share)
    for expert, rows, rank in routing.parts():
        share = routing.share[rows, rank][:, None]
        inward, outward = x[rows], given[rows]
        if op.router.weighs_inputs:
            inward = inward * share
        gate_w, up_w, down_w = (weights.expert(name, expert) for name in (op.gate, op.up, op.down))
        gate = f.of_expert(weights, inward, op.gate, op.gate_bias, expert)
        up = f.of_expert(weights, inward, op.up, op.up_bias, expert)
        hidden = f.activate(gate, up, op.kind)
        back = outward @ down_w
        if op.router.weighs_inputs:
            share = np.ones_like(share)
        else:
            by_share[rows, rank] = np.einsum("rn,rn->r", hidden, back)
            if op.down_bias is not None:
                by_share[rows, rank] += outward @ weights.expert(op.down_bias, expert)
        by_gate, by_up = _gated(op.kind, back * share, gate, up)
        for name, bias, by_y, entered in (
            (op.down, op.down_bias, outward * share, hidden),
            (op.gate, op.gate_bias, by_gate, inward),
            (op.up, op.up_bias, by_up, inward),
        ):
            if sink.wants(name):
                sink.take(name, by_y.T @ entered, expert)
            if bias is not None and sink.wants(bias):
                sink.take(bias, by_y.sum(axis=0), expert)
        by_inward = by_gate @ gate_w + by_up @ up_w
        if op.router.weighs_inputs:
            by_share[rows, rank] = np.einsum("rn,rn->r", by_inward, x[rows])
            by_inward = by_inward * routing.share[rows, rank][:, None]
        by_x[rows] += by_inward
    if op.selection_bias is not None and sink.wants(op.selection_bias):  # a choice does not change by little
        sink.take(op.selection_bias, np.zeros(op.experts, x.dtype))
    if op.expert_scale is not None:
        scales = weights.whole(op.expert_scale)
        if sink.wants(op.expert_scale):
            by_scale = np.zeros_like(scales)
            np.add.at(by_scale, routing.chosen, by_share * routing.share / scales[routing.chosen])
            sink.take(op.expert_scale, by_scale)
        chosen = scales[routing.chosen]
        routing, by_share = replace(routing, share=routing.share / chosen), by_share * chosen
    return [by_x, _routing_back(op, routing, by_share)]


def _routing_back(op: ops.Moe, routing: f.Routing, by_share: Floats_) -> Floats_:
    """By the logits, from the derivative by the shares of the chosen; the choice itself has none."""
    router, scores = op.router, routing.scores
    if router.scoring == "sparsemixer":
        steep = (by_share * routing.share)[:, :, None]
        by_logits = -(steep * scores).sum(axis=1)
        np.add.at(by_logits, (np.arange(len(by_share))[:, None], routing.chosen), steep[:, :, 0])
        return np.asarray(by_logits)
    by_chosen = by_share * by_share.dtype.type(router.scale)
    if router.normalize:
        total = np.take_along_axis(scores, routing.chosen, axis=1).sum(axis=1, keepdims=True)
        mean = (by_share * routing.share).sum(axis=1, keepdims=True)
        by_chosen = (by_chosen - mean) / (total + by_share.dtype.type(router.epsilon))
    by_scores = np.zeros_like(scores)
    np.put_along_axis(by_scores, routing.chosen, by_chosen, axis=1)
    if router.scoring == "sigmoid":
        return np.asarray(by_scores * scores * (1 - scores))
    return np.asarray(scores * (by_scores - (by_scores * scores).sum(axis=1, keepdims=True)))
