"""Steps of decoding as one compiled function of few kernels: products are those of other steps, what a plan has between
them is found by its pattern, whatever the model, and left to the kernels of `metal.fused`. The rest goes op by op.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from edgert_models import ops
from edgert_models.graph import Plan
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout

from edgert_runtimes.mlx.cache import LayerCache, Plain
from edgert_runtimes.mlx.matrices import Dense, HostRows
from edgert_runtimes.mlx.metal import fused
from edgert_runtimes.mlx.ops.products import Routed, experts_of, moe
from edgert_runtimes.mlx.step import Function, Inputs, Pages, Step, highest, together
from edgert_runtimes.mlx.turns import frequencies
from edgert_runtimes.mlx.weights import Weights

MOST_ROWS = 8
"""Rows of a step that goes so."""

TABLE_STEP = 16
"""Tables are widened to multiples of so many blocks: for each width, MLX traces the function again."""


@dataclass(frozen=True)
class Call:
    """outputs = function(step, *inputs), values by id."""

    outputs: tuple[int, ...]
    function: Callable[..., Sequence[mx.array]]
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class _Chain:
    """Where the queries or keys of an attention come from: of `source`, normalised, then turned."""

    source: Value
    norm: ops.RmsNorm | None
    rope: ops.Rope | None


class Decoding:
    """Steps of at most `MOST_ROWS` rows, each of a sequence of its own and all picked."""

    def __init__(self, calls: Sequence[Call], result: int, caches: Sequence[LayerCache]) -> None:
        self._calls, self._result = calls, result
        self._caches = [copy(cache) for cache in caches]  # to hold what they are called with
        self._compiled: Any = mx.compile(self._pure)

    def run(
        self, inputs: Inputs, pages: Sequence[Pages], caches: Sequence[LayerCache]
    ) -> tuple[mx.array, mx.array, mx.array]:
        """The result, what routers gave at most and what they chose, as `Running` has them; caches become what they are
        after the step.
        """
        kept = [cache.arrays for cache in caches]
        places = [[each.slots, each.tables] for each in pages]
        result, peaks, chosen, after = self._compiled(inputs.arrays, places, kept)
        for cache, arrays in zip(caches, after, strict=True):
            cache.keys, cache.values = [arrays[0]], [arrays[1]]
        return result, peaks, chosen

    def close(self) -> None:
        """See Part."""
        self._compiled = None

    def _pure(
        self, arrays: list[Any], places: list[list[mx.array]], kept: list[list[mx.array]]
    ) -> tuple[mx.array, mx.array, mx.array, list[list[mx.array]]]:
        pages = [Pages(slots, slots if len(slots) == 1 else None, tables) for slots, tables in places]
        step = Step(Inputs(*arrays), pages=pages, caches=self._caches)
        for cache, (keys, values) in zip(self._caches, kept, strict=True):
            cache.keys, cache.values = [keys], [values]
        found: dict[int, mx.array] = {}
        for call in self._calls:
            found |= zip(call.outputs, call.function(step, *[found[key] for key in call.inputs]), strict=True)
        after = [cache.arrays for cache in self._caches]
        for cache in self._caches:
            cache.keys, cache.values = [], []
        return found[self._result].astype(mx.float32), highest(step.peaks), together(step.chosen), after


def widened(tables: np.ndarray) -> mx.array:
    """Tables [rows, blocks] with some columns of zeros more."""
    rows, blocks = tables.shape
    wide = np.zeros((rows, -(-blocks // TABLE_STEP) * TABLE_STEP), np.int32)  # np.pad takes longer
    wide[:, :blocks] = tables
    return mx.array(wide)


def fuse(
    plan: Plan,
    functions: Sequence[Function],
    weights: Weights,
    dtype: mx.Dtype,
    beside: mx.Stream,
    caches: Sequence[LayerCache],
    block_size: int,
) -> Decoding | None:
    """None for plans with recurrent states, with values that are part of the keys, with keys that layers share, or
    with embeddings that the host looks up, and for caches in blocks.
    """
    attends = [op for op in plan.ops if isinstance(op, ops.Attend)]
    on_host = any(isinstance(table, HostRows) for table in weights.embeddings.values())
    plain = all(isinstance(cache.kind, Plain) for cache in caches)
    shared = len(attends) > len(caches)
    if plan.states or on_host or not plain or shared or any(op.v is None for op in attends):
        return None
    plans = _Patterns(plan)
    calls: dict[int, Call] = {}
    inside: set[int] = set()  # ops that are part of another's call
    normed: set[int] = set()  # values of which there is one in the type of products too

    def entering(op: ops.Moe) -> int:
        floats = any(_multiplies_floats(weights, name) for name in (op.gate, op.up))
        return op.x.id if floats or op.x.id not in normed else _cast(op.x.id)

    for index, op in enumerate(plan.ops):
        if isinstance(op, ops.Attend):
            q, k = plans.chains(op)
            inside |= {plans.made[each.out.id] for chain in (q, k) for each in (chain.norm, chain.rope) if each}
            assert op.v is not None
            function = _attend(op, q, k, weights, dtype, block_size)
            calls[index] = Call((op.out.id,), function, (q.source.id, k.source.id, op.v.id))
        elif isinstance(op, ops.Moe):
            function = _single(moe(op, weights, beside, _router(op, weights)))
            calls[index] = Call((op.out.id,), function, (entering(op), op.logits.id))
        elif isinstance(op, ops.Add) and (norm := plans.norm_of(op)) is not None:
            inside.add(plans.made[norm.out.id])
            outputs, numbers = (op.out.id, norm.out.id, _cast(norm.out.id)), mx.array([norm.eps])
            weight = weights.vectors[str(norm.weight)]
            mixture = plans.mixture_of(op)
            normed.add(norm.out.id)
            between = _as_experts_take(plans.readers(norm.out), weights)
            if mixture is None:
                calls[index] = Call(outputs, _sum_norm(weight, numbers, dtype, between), (op.a.id, op.b.id))
                continue
            inside.add(plans.made[mixture.out.id])
            other = op.b if op.a.id == mixture.out.id else op.a
            experts = experts_of(mixture, weights, beside, _router(mixture, weights))
            given = (other.id, entering(mixture), mixture.logits.id)
            calls[index] = Call(outputs, _mixture_sum_norm(experts, weight, numbers, dtype, between), given)
    ordered = []
    for index, op in enumerate(plan.ops):
        if index in inside:
            continue
        if isinstance(op, ops.Linear) and op.x.id in normed and not _multiplies_floats(weights, op.weight):
            calls[index] = Call((op.out.id,), _single(functions[index]), (_cast(op.x.id),))
        inputs = tuple(value.id for value in op.inputs)
        ordered.append(calls.get(index) or Call((op.out.id,), _single(functions[index]), inputs))
    return Decoding(ordered, plan.logits.id, caches)


def _cast(value: int) -> int:
    """The number of a value in the type of products."""
    return -1 - value


def _multiplies_floats(weights: Weights, name: str) -> bool:
    """Whether a matrix may be of another type than products are, as a router's is."""
    return isinstance(weights.matrices.get(name), Dense | None)


def _as_experts_take(readers: Sequence[ops.Op], weights: Weights) -> tuple[int, ...]:
    """What lies between rows and width of a value's cast: as experts take it, if nobody else does; nothing else."""
    floats = (isinstance(op, ops.Linear) and _multiplies_floats(weights, op.weight) for op in readers)
    alone = all(isinstance(op, ops.Moe) or takes for op, takes in zip(readers, floats, strict=True))
    return (1, 1) if alone else ()


class _Patterns:
    """Who makes and who reads the values of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._ops = plan.ops
        self.made = {op.out.id: index for index, op in enumerate(plan.ops)}
        self._readers: dict[int, list[ops.Op]] = {}
        for op in plan.ops:
            for value in op.inputs:
                self._readers.setdefault(value.id, []).append(op)

    def chains(self, op: ops.Attend) -> tuple[_Chain, _Chain]:
        """Of queries and keys, alike: both normalised or none, turned by the same angles or not at all."""
        q, k = self._chain(op.q, op.heads), self._chain(op.k, op.kv_heads)
        if not (_same_turn(q.rope, k.rope) and (q.norm is None) == (k.norm is None)):
            return _Chain(op.q, None, None), _Chain(op.k, None, None)
        return q, k

    def readers(self, value: Value) -> Sequence[ops.Op]:
        """Who reads it."""
        return self._readers.get(value.id, ())

    def norm_of(self, op: ops.Add) -> ops.RmsNorm | None:
        """A norm of whole rows of what an op gives."""
        for reader in self.readers(op.out):
            if isinstance(reader, ops.RmsNorm) and reader.weight and (reader.groups, reader.rest) == (1, 0):
                return reader
        return None

    def mixture_of(self, op: ops.Add) -> ops.Moe | None:
        """The mixture that is added, if nobody else reads what it gives."""
        for value in (op.a, op.b):
            made = self._made_for_one(value)
            if isinstance(made, ops.Moe) and not made.router.weighs_inputs and op.a.id != op.b.id:
                return made
        return None

    def _made_for_one(self, value: Value) -> ops.Op | None:
        return self._ops[self.made[value.id]] if len(self.readers(value)) == 1 else None

    def _chain(self, value: Value, heads: int) -> _Chain:
        made, rope, norm = self._made_for_one(value), None, None
        if isinstance(made, ops.Rope):
            rope, value = made, made.x
            made = self._made_for_one(value)
        if isinstance(made, ops.RmsNorm) and made.weight and made.groups == heads and not (made.rest or made.own):
            norm, value = made, made.x
        return _Chain(value, norm, rope)


def _same_turn(a: ops.Rope | None, b: ops.Rope | None) -> bool:
    if a is None or b is None:
        return a is b
    names = ("head_size", "frequencies", "magnitude", "layout", "factors", "first")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def _single(function: Function) -> Callable[..., Sequence[mx.array]]:
    return lambda step, *values: (function(step, *values),)


def _attend(
    op: ops.Attend, q: _Chain, k: _Chain, weights: Weights, dtype: mx.Dtype, block_size: int
) -> Callable[..., Sequence[mx.array]]:
    norms = None if q.norm is None or k.norm is None else (q.norm, k.norm)
    scales = None if norms is None else (weights.vectors[str(norms[0].weight)], weights.vectors[str(norms[1].weight)])
    rope = q.rope
    turning = None if rope is None else mx.array(frequencies(rope, weights).astype(np.float32))
    epsilons = (0.0, 0.0) if norms is None else (norms[0].eps, norms[1].eps)
    numbers = mx.array([*epsilons, 1.0 if rope is None else rope.magnitude])
    scores = mx.array([op.scale, op.softcap or 0.0])
    sinks = weights.vector(op.sinks)

    def run(step: Step, q: mx.array, k: mx.array, v: mx.array) -> Sequence[mx.array]:
        cache, pages, positions = step.caches[op.layer], step.pages_of(op), step.inputs.positions
        assert pages.tables is not None
        queries, keys, values = fused.heads(
            *(q, k, v, scales, turning, positions, numbers),
            sizes=(op.heads, op.kv_heads, op.head_size, op.value_size),
            first=0 if rope is None else rope.first,
            interleaved=rope is not None and rope.layout is RopeLayout.INTERLEAVED,
            dtypes=(dtype, cache.keys[0].dtype),
        )
        cache.store(pages.slots, keys, values, start=pages.start)
        y = fused.attention(
            *(queries, cache.keys[0], cache.values[0], pages.tables, positions, sinks, scores),
            heads=op.heads,
            block_size=block_size,
            reach=op.reach,
            capped=op.softcap is not None,
        )
        return (y,)

    return run


def _router(op: ops.Moe, weights: Weights) -> Routed | None:
    """The kernel, for routers that take a softmax of the largest logits; None for others."""
    router = op.router
    if router.scoring != "softmax" or router.epsilon or router.limited or op.selection_bias is not None:
        return None
    numbers, scale = mx.array([router.scale]), weights.vector(op.expert_scale)

    def run(step: Step, logits: mx.array) -> tuple[mx.array, mx.array]:
        chosen, shares, peaks = fused.route(logits, numbers, used=op.used, normalized=router.normalize)
        step.peaks.append(peaks if len(peaks) == 1 else peaks.max(keepdims=True))
        step.chosen.append(chosen)
        return chosen, shares if scale is None else shares * scale[chosen]

    return run


def _sum_norm(
    weight: mx.array, numbers: mx.array, dtype: mx.Dtype, between: tuple[int, ...]
) -> Callable[..., Sequence[mx.array]]:
    return lambda step, a, b: fused.sum_norm(a, b, None, weight, numbers, dtype, between)


def _mixture_sum_norm(
    experts: Callable[..., tuple[mx.array, mx.array]],
    weight: mx.array,
    numbers: mx.array,
    dtype: mx.Dtype,
    between: tuple[int, ...],
) -> Callable[..., Sequence[mx.array]]:
    def run(step: Step, other: mx.array, x: mx.array, logits: mx.array) -> Sequence[mx.array]:
        y, shares = experts(step, x, logits)
        return fused.sum_norm(other, y, shares, weight, numbers, dtype, between)

    return run
