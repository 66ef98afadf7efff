"""Ops that multiply by matrices."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
from edgert_models import ops

from edgert_runtimes.mlx.matrices import Dense
from edgert_runtimes.mlx.ops.rows import activate
from edgert_runtimes.mlx.step import Function, Step
from edgert_runtimes.mlx.weights import Weights

SORTED = 64
"""Pairs of a row and an expert from which on they are put in order of experts, whose matrices are then read once."""


def linear(op: ops.Linear, weights: Weights) -> Function:
    """Matrix product and bias. A weight of one row may be a vector."""
    bias = weights.vector(op.bias)
    vector = weights.vectors.get(op.weight)
    matrix = weights.matrices[op.weight] if vector is None else Dense(vector.reshape(1, -1))
    return lambda step, x: matrix.multiply(x) if bias is None else matrix.multiply(x) + bias


def low_rank(op: ops.LowRank, weights: Weights) -> Function:
    """Each adapter's part for all rows, of which those that have another take nothing."""
    a, b = weights.vectors[op.a], weights.vectors[op.b]

    def run(step: Step, x: mx.array, y: mx.array) -> mx.array:
        chosen = step.inputs.adapters
        if chosen is None:
            return y
        if op.out.picked:
            chosen = chosen[step.inputs.pick]
        x = x.astype(mx.float32)
        for number in range(len(a)):
            y = y + mx.where((chosen == number)[:, None], (x @ a[number].T) @ b[number], 0.0)
        return y

    return run


def head_linear(op: ops.HeadLinear, weights: Weights) -> Function:
    """Head by head, as experts that every row chose: of many rows, those of a head follow one another."""
    matrix, ids = weights.matrices[op.weight], mx.array(np.arange(op.heads, dtype=np.uint32))

    def run(step: Step, x: mx.array) -> mx.array:
        heads = x.reshape(len(x), op.heads, 1, -1)
        inward, rest = heads[..., : op.inward], heads[..., op.inward :]
        if len(x) * op.heads < SORTED:
            y = matrix.gather(inward, mx.broadcast_to(ids, (len(x), op.heads)), ascending=False)
        else:
            pairs = inward.swapaxes(0, 1).reshape(-1, 1, 1, op.inward)
            y = matrix.gather(pairs, mx.repeat(ids, len(x))[:, None], ascending=True)
            y = y.reshape(op.heads, len(x), 1, -1).swapaxes(0, 1)
        return (
            mx.concatenate([y, rest.astype(y.dtype)], axis=-1).reshape(len(x), -1) if op.rest else y.reshape(len(x), -1)
        )

    return run


def route(op: ops.Moe, weights: Weights) -> Callable[[mx.array], tuple[mx.array, mx.array]]:
    """logits [rows, experts] → the chosen experts and their weights, both [rows, used]. Of equals the first wins: the
    sort is stable.
    """
    router, bias = op.router, weights.vector(op.selection_bias)

    def best_groups(ranked: mx.array) -> mx.array:
        """Whether each expert [rows, experts] is in one of the groups that may be chosen from."""
        groups = ranked.reshape(len(ranked), router.groups, -1)
        scores = mx.sort(groups, axis=-1)[..., -router.group_best :].sum(axis=-1)
        places = mx.argsort(mx.argsort(-scores, axis=-1), axis=-1)
        return mx.repeat(places < router.groups_used, groups.shape[-1], axis=-1)

    def sparse_mix(logits: mx.array, chosen: mx.array, rank: int) -> mx.array:
        """The weights [rows, 1] of the experts chosen as number `rank`."""
        own = mx.take_along_axis(logits, chosen[:, rank : rank + 1], axis=-1)
        near = own - logits <= router.band * mx.maximum(mx.abs(logits), own)
        for before in range(rank):
            near = near & (mx.arange(op.experts) != chosen[:, before : before + 1])
        return 1 / mx.where(near, mx.exp(mx.minimum(logits - own, 0)), 0).sum(axis=-1, keepdims=True)

    def run(logits: mx.array) -> tuple[mx.array, mx.array]:
        softmax = router.scoring == "softmax"
        if softmax and router.normalize and not router.epsilon and bias is None and not router.limited:
            chosen = mx.argsort(-logits, axis=-1)[:, : op.used]
            return chosen, router.scale * mx.softmax(mx.take_along_axis(logits, chosen, axis=-1), axis=-1)
        exact = logits.astype(mx.float32)
        if router.scoring == "sparsemixer":
            chosen = mx.argsort(-exact, axis=-1)[:, : op.used]
            shares = [sparse_mix(exact, chosen, rank) for rank in range(op.used)]
            return chosen, (router.scale * mx.concatenate(shares, axis=-1)).astype(logits.dtype)
        scores = mx.softmax(exact, axis=-1) if softmax else mx.sigmoid(exact)
        choice = logits if bias is None else (exact if router.bias_logits else scores) + bias
        if router.limited:
            choice = mx.where(best_groups(scores if bias is None else choice), choice, -mx.inf)
        chosen = mx.argsort(-choice, axis=-1)[:, : op.used]
        share = mx.take_along_axis(scores, chosen, axis=-1)
        if router.normalize:
            share = share / (share.sum(axis=-1, keepdims=True) + router.epsilon)
        return chosen, (router.scale * share).astype(logits.dtype)

    return run


Routed = Callable[[Step, mx.array], tuple[mx.array, mx.array]]
"""routed(step, logits) -> the chosen experts and their weights, both [rows, used], which the step is told of."""


def router_of(op: ops.Moe, weights: Weights) -> Routed:
    """`route`, and the step is told."""
    choose, expert_scale = route(op, weights), weights.vector(op.expert_scale)

    def run(step: Step, logits: mx.array) -> tuple[mx.array, mx.array]:
        step.peaks.append(logits)
        chosen, share = choose(logits)
        step.chosen.append(chosen)
        return chosen, share if expert_scale is None else share * expert_scale[chosen]

    return run


def experts_of(
    op: ops.Moe, weights: Weights, beside: mx.Stream, routed: Routed | None = None
) -> Callable[[Step, mx.array, mx.array], tuple[mx.array, mx.array]]:
    """(step, x, logits) → what the chosen experts of each row x [rows, width] or [rows, 1, 1, width] give,
    [rows, used, 1, out.width], and their weights [rows, used], by which x has been multiplied where the router weighs
    inputs. One of the inward products is computed on the stream `beside`.
    """
    matrices = [weights.matrices[name] for name in (op.gate, op.up, op.down)]
    biases = [weights.vector(name) for name in (op.gate_bias, op.up_bias, op.down_bias)]
    activation = activate(op.kind)
    routed = router_of(op, weights) if routed is None else routed
    inward = op.router.weighs_inputs

    def experts(x: mx.array, ids: mx.array, ascending: bool) -> mx.array:
        """x [rows, 1 or used, 1, width] and ids [rows, used] → [rows, used, 1, out.width]."""

        def product(index: int, x: mx.array) -> mx.array:
            y = matrices[index].gather(x, ids, ascending=ascending)
            bias = biases[index]
            return y if bias is None else y + bias[ids][:, :, None]

        gate = product(0, x)
        with mx.stream(beside):
            up = product(1, x)
        return product(2, activation(gate, up))

    def run(step: Step, x: mx.array, logits: mx.array) -> tuple[mx.array, mx.array]:
        chosen, share = routed(step, logits)
        if x.ndim == 2:
            x = x[:, None, None]
        if inward:
            x = x * share[..., None, None]
        if chosen.size < SORTED:
            return experts(x, chosen, ascending=False), share
        flat = chosen.flatten()
        order = mx.argsort(flat)
        pairs = x.reshape(-1, 1, 1, op.x.width)[order if inward else order // op.used]
        y = experts(pairs, flat[order, None], ascending=True)
        return y[mx.argsort(order)].reshape(*chosen.shape, 1, -1), share

    return run


def moe(op: ops.Moe, weights: Weights, beside: mx.Stream, routed: Routed | None = None) -> Function:
    """Route each row to its experts and add up what they give."""
    experts = experts_of(op, weights, beside, routed)

    def run(step: Step, x: mx.array, logits: mx.array) -> mx.array:
        y, share = experts(step, x, logits)
        return (y if op.router.weighs_inputs else y * share[..., None, None]).sum(axis=(1, 2))

    return run
