"""Ops with a state, in NumPy: in float64 within a step, kept as float32 from one to the next."""

from __future__ import annotations

import numpy as np
from edgert_models import ops

from edgert_runtimes.base import Float32, Int32
from edgert_runtimes.reference.cache import Float64
from edgert_runtimes.reference.ops import Weights, activate

Recurrent = ops.ShortConv | ops.DeltaRule | ops.Scan
RECURRENT = (ops.ShortConv, ops.DeltaRule, ops.Scan)
NO_RUNS: Int32 = np.empty((0, 4), np.int32)


def recur(op: Recurrent, runs: Int32, weights: Weights, states: Float32, inputs: list[Float32]) -> Float32:
    """One op on its inputs, run by run (see `batches.runs_of`); `states` [slots, …] are those of the op."""
    x = [value.astype(np.float64) for value in inputs]
    before = {slot: states[slot].astype(np.float64) for slot in runs[:, 2].tolist() if slot >= 0}
    out = np.zeros((len(x[0]), op.out.width))
    for first, count, source, target in runs.tolist():
        if not count:
            continue
        rows = slice(first, first + count)
        state = before[source] if source >= 0 else np.zeros(states.shape[1:])
        own = [value[rows] for value in x]
        match op:
            case ops.ShortConv():
                out[rows], states[target] = short_conv(op, weights, state, *own)
            case ops.DeltaRule():
                out[rows], states[target] = delta_rule(op, weights, state, *own)
            case ops.Scan():
                out[rows], states[target] = scan(op, weights, state, *own)
    return out.astype(np.float32)


def short_conv(op: ops.ShortConv, weights: Weights, state: Float64, x: Float64) -> tuple[Float64, Float64]:
    """Results of the rows x of one sequence, and its last rows."""
    weight = weights.rows(op.weight)
    known = np.concatenate([state, x])
    out = np.asarray(sum(known[j : j + len(x)] * weight[:, j] for j in range(op.kernel)))
    if op.bias is not None:
        out = out + weights.vector(op.bias)
    return activate(out, np.ones_like(out), "silu") if op.silu else out, known[len(x) :]


def delta_rule(
    op: ops.DeltaRule, weights: Weights, state: Float64, x: Float64, a: Float64, b: Float64, *others: Float64
) -> tuple[Float64, Float64]:
    """Results of the rows x of one sequence, and the state after them."""
    heads = [op.keys_of(head) for head in range(op.heads)]
    *pair, v = (x, *others) if others else np.split(x, [op.key_width, 2 * op.key_width], axis=1)
    q, k = (normalized(part.reshape(len(x), op.key_heads, -1))[:, heads] for part in pair)
    v = v.reshape(len(x), op.heads, -1)
    shift, slope = (a + weights.vector(op.bias)).reshape(len(x), op.heads, -1), weights.vector(op.decay)[:, None]
    if op.floor:
        decay = np.exp(activate(slope * shift, np.full_like(shift, op.floor), "sigmoid"))
    else:
        decay = np.exp(slope * np.logaddexp(0.0, shift))
    rate = 1.0 / (1.0 + np.exp(-b))
    out = np.empty_like(v)
    for row in range(len(x)):
        state = state * decay[row, :, :, None]
        change = rate[row, :, None] * (v[row] - np.einsum("hk,hkv->hv", k[row], state))
        state = state + k[row, :, :, None] * change[:, None]
        out[row] = np.einsum("hk,hkv->hv", q[row], state) / np.sqrt(op.key_size)
    return out.reshape(len(x), -1), state


def scan(
    op: ops.Scan, weights: Weights, state: Float64, x: Float64, t: Float64, b: Float64, c: Float64
) -> tuple[Float64, Float64]:
    """Results of the rows x of one sequence, and the state after them."""
    heads = x.reshape(len(x), op.heads, -1)
    b, c = (np.repeat(each.reshape(len(x), op.groups, -1), op.heads // op.groups, axis=1) for each in (b, c))
    span = np.maximum(np.logaddexp(0.0, t + weights.vector(op.bias)), op.least)
    decay = np.exp(span[..., None] * weights.vector(op.decay).reshape(op.heads, -1))
    out = heads * weights.vector(op.skip)[:, None]
    for row in range(len(x)):
        state = decay[row][:, None] * state + (span[row][:, None] * heads[row])[..., None] * b[row][:, None]
        out[row] += np.einsum("hpn,hn->hp", state, c[row])
    return out.reshape(len(x), -1), state


def normalized(x: Float64) -> Float64:
    """Divided by the norm of the last axis."""
    return np.asarray(x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6))
