"""Ops with a state, run by run."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
from edgert_models import ops

from edgert_runtimes.mlx.step import Function, Step
from edgert_runtimes.mlx.weights import Weights

Rows = Callable[..., tuple[mx.array, mx.array]]
"""rows(state [sequences, …], *values [sequences, count, width]) → (results [sequences, count, width], state)."""


def _run_by_run(number: int, rows: Rows) -> Function:
    def run(step: Step, *values: mx.array) -> mx.array:
        slots, results, after = step.states[number], [], []
        for each in step.runs:
            out, state = rows(each.state(slots), *(each.rows_of(value) for value in values))
            results.append(out.reshape(-1, out.shape[-1]))
            after.append(state)
        for each, state in zip(step.runs, after, strict=True):
            slots[each.target] = state
        return results[0] if len(results) == 1 else mx.concatenate(results)

    return run


def short_conv(op: ops.ShortConv, weights: Weights) -> Function:
    """A convolution over rows, as a sum over them shifted."""
    taps = mx.array(np.asarray(weights.vectors[op.weight]).reshape(-1, op.kernel).T)
    bias = weights.vector(op.bias)

    def rows(state: mx.array, x: mx.array) -> tuple[mx.array, mx.array]:
        known, count = mx.concatenate([state, x.astype(mx.float32)], axis=1), x.shape[1]
        out = known[:, :count] * taps[0]
        for tap in range(1, op.kernel):
            out = out + known[:, tap : tap + count] * taps[tap]
        if bias is not None:
            out = out + bias
        return out * mx.sigmoid(out) if op.silu else out, known[:, count:]

    return _run_by_run(op.state, rows)


CHUNK = 16
"""Positions whose changes of a state are found together. Their system of equations is solved by products of powers of
its matrix, whose rounding errors grow with this.
"""


def delta_rule(op: ops.DeltaRule, weights: Weights) -> Function:
    """Chunk by chunk: within one, what the state changes by follows from a triangular system of equations (the UT
    transform of "Parallelizing Linear Transformers with the Delta Rule over Sequence Length").
    """
    decay, bias = mx.array(np.asarray(weights.vectors[op.decay]).reshape(-1, 1)), weights.vectors[op.bias]
    heads = mx.array([op.keys_of(head) for head in range(op.heads)])

    def rows(state: mx.array, x: mx.array, a: mx.array, b: mx.array, *others: mx.array) -> tuple[mx.array, mx.array]:
        sequences, count, _ = x.shape
        *pair, v = (x, *others) if others else mx.split(x, [op.key_width, 2 * op.key_width], axis=-1)
        q, k = (
            _normalized(part.astype(mx.float32).reshape(sequences, count, op.key_heads, op.key_size)) for part in pair
        )
        q, k = q[:, :, heads].swapaxes(1, 2) * op.key_size**-0.5, k[:, :, heads].swapaxes(1, 2)
        v = v.astype(mx.float32).reshape(sequences, count, op.heads, op.value_size).swapaxes(1, 2)
        shift = (a.astype(mx.float32) + bias).reshape(sequences, count, op.heads, op.decays)
        shrink = op.floor * mx.sigmoid(decay * shift) if op.floor else decay * mx.logaddexp(shift, 0.0)
        shrink = shrink.swapaxes(1, 2)  # its logarithm
        rate = mx.sigmoid(b.astype(mx.float32)).swapaxes(1, 2)[..., None]
        if count == 1:
            state = state * mx.exp(shrink).swapaxes(2, 3)
            state = state + k.swapaxes(2, 3) * (rate * (v - k @ state))
            return (q @ state).reshape(sequences, 1, -1), state
        out, state = _chunks(state, q, k, v, shrink, rate)
        return out.swapaxes(1, 2).reshape(sequences, count, -1), state

    return _run_by_run(op.state, rows)


def _normalized(x: mx.array) -> mx.array:
    return x * mx.rsqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)


def _chunks(
    state: mx.array, q: mx.array, k: mx.array, v: mx.array, shrink: mx.array, rate: mx.array
) -> tuple[mx.array, mx.array]:
    """Results [sequences, heads, count, size] of the rows of all chunks, and the last state; shrink has one number of a
    row, or as many as keys have.

    In a chunk from S on, with L the sums of `shrink` so far, S_i = e^L_i S + Σ_j≤i e^(L_i - L_j) k_j u_jᵀ, where the u
    solve u_i + rate_i Σ_j<i (k_i e^(L_i - L_j) k_j) u_j = rate_i (v_i - (e^L_i S)ᵀ k_i).
    """
    count = q.shape[2]
    chunks = -(-count // CHUNK)
    pad = [(0, 0), (0, 0), (0, chunks * CHUNK - count), (0, 0)]  # with rate and shrink 0: nothing changes there
    q, k, v, rate, shrink = (
        mx.pad(each, pad).reshape(*each.shape[:2], chunks, CHUNK, -1) for each in (q, k, v, rate, shrink)
    )
    sums = mx.cumsum(shrink, axis=3)
    earlier, seen = _decayed_products(sums, k, k), _decayed_products(sums, q, k)
    power = -rate * earlier * mx.array(np.tril(np.ones((CHUNK, CHUNK), np.float32), -1))
    inverse = mx.eye(CHUNK) + power
    for _ in range((CHUNK - 1).bit_length() - 1):
        power = power @ power
        inverse = inverse + inverse @ power
    since = mx.exp(sums)
    own, taken = inverse @ (rate * v), inverse @ (rate * since * k)
    queries, keys = q * since, k * mx.exp(sums[..., -1:, :] - sums)
    results = []
    for i in range(chunks):
        change = own[:, :, i] - taken[:, :, i] @ state
        results.append(queries[:, :, i] @ state + seen[:, :, i] @ change)
        state = state * since[:, :, i, -1:].swapaxes(2, 3) + keys[:, :, i].swapaxes(2, 3) @ change
    return mx.concatenate(results, axis=2)[:, :, :count], state


def _decayed_products(sums: mx.array, x: mx.array, k: mx.array) -> mx.array:
    """x_i e^(L_i - L_j) k_j for j ≤ i and 0 elsewhere, [sequences, heads, chunks, CHUNK, CHUNK]. Where channels decay
    apart, chunk by chunk: all at once would take CHUNK times the memory of x.
    """
    before = mx.array(np.tril(np.ones((CHUNK, CHUNK), bool)))
    if sums.shape[-1] == 1:
        between = mx.exp(mx.minimum(sums - sums.swapaxes(3, 4), 0.0))
        return mx.where(before, (x @ k.swapaxes(3, 4)) * between, 0.0)
    found = []
    for i in range(x.shape[2]):
        between = mx.exp(mx.minimum(sums[:, :, i, :, None] - sums[:, :, i, None], 0.0))
        found.append((between * k[:, :, i, None] @ x[:, :, i, ..., None])[..., 0])
    return mx.where(before, mx.stack(found, axis=2), 0.0)


SCANNED = 64
"""Positions of a scan that are computed together, where a head has one decay."""


def scan(op: ops.Scan, weights: Weights) -> Function:
    """Chunk by chunk where a head has one decay: the form of Mamba 2, "Transformers are SSMs". Else row by row."""
    decay = mx.array(np.asarray(weights.vectors[op.decay]).reshape(op.heads, -1))
    bias = weights.vectors[op.bias]
    skip = mx.array(np.asarray(weights.vectors[op.skip]).reshape(op.heads, 1, 1))
    repeats = op.heads // op.groups

    def rows(state: mx.array, x: mx.array, t: mx.array, b: mx.array, c: mx.array) -> tuple[mx.array, mx.array]:
        sequences, count, _ = x.shape
        x, t, b, c = (each.astype(mx.float32) for each in (x, t, b, c))
        x = x.reshape(sequences, count, op.heads, op.size).swapaxes(1, 2)
        b, c = (
            mx.repeat(each.reshape(sequences, count, op.groups, op.state_size).swapaxes(1, 2), repeats, axis=1)
            for each in (b, c)
        )
        span = mx.maximum(mx.logaddexp(t + bias, 0.0), op.least).swapaxes(1, 2)
        entering = x * span[..., None]
        if count > 1 and op.decays == 1:
            out, state = _scan_chunks(state, entering, decay * span, b, c)
        else:
            out, state = _scan_rows(state, entering, span[..., None] * decay[:, None], b, c)
        return (out + skip * x).swapaxes(1, 2).reshape(sequences, count, -1), state

    return _run_by_run(op.state, rows)


def _scan_rows(state: mx.array, x: mx.array, shrink: mx.array, b: mx.array, c: mx.array) -> tuple[mx.array, mx.array]:
    """x [sequences, heads, count, size]; shrink, b and c [sequences, heads, count, numbers (or 1)]."""
    factors, results = mx.exp(shrink), []
    for i in range(x.shape[2]):
        state = factors[:, :, i, None] * state + x[:, :, i, :, None] * b[:, :, i, None]
        results.append(state @ c[:, :, i, :, None])
    return mx.concatenate(results, axis=3).swapaxes(2, 3), state


def _scan_chunks(state: mx.array, x: mx.array, shrink: mx.array, b: mx.array, c: mx.array) -> tuple[mx.array, mx.array]:
    """The same with shrink [sequences, heads, count]: S_i = e^L_i S + Σ_j≤i e^(L_i - L_j) x_j b_jᵀ with L its sums."""
    results = []
    for start in range(0, x.shape[2], SCANNED):
        part = slice(start, start + SCANNED)
        own_x, own_b, own_c, sums = x[:, :, part], b[:, :, part], c[:, :, part], mx.cumsum(shrink[:, :, part], axis=-1)
        before = mx.array(np.tril(np.ones((sums.shape[-1],) * 2, bool)))
        between = mx.where(before, mx.exp(mx.minimum(sums[..., None] - sums[..., None, :], 0.0)), 0.0)
        since, until = mx.exp(sums)[..., None], mx.exp(sums[..., -1:] - sums)[..., None]
        inner = ((own_c @ own_b.swapaxes(2, 3)) * between) @ own_x
        results.append(inner + (own_c @ state.swapaxes(2, 3)) * since)
        state = state * since[:, :, -1:] + (own_x * until).swapaxes(2, 3) @ own_b
    return mx.concatenate(results, axis=2), state
