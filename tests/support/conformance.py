"""Small plans of a few ops, run by a backend and by the reference."""

from collections.abc import Callable
from typing import Any

import numpy as np
from edgert_models.graph import Graph, Plan, Weight
from edgert_models.ops import Value
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Backend, Batch, Session, WeightProvider
from edgert_runtimes.reference.backend import ReferenceBackend

from tests.support.tiny import ALL_F32, batch, limits, normalized_error, random_weights, tiny_spec


def plan_of(wire: Callable[[Graph, Value], Value], **changes: Any) -> Plan:
    """embed → wire → pick the rows."""
    graph = Graph(tiny_spec(**changes))
    result = graph.pick_rows(wire(graph, graph.embed()))
    return graph.plan(result, result)


def tokens(count: int, seed: int = 1) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 96, count)]


def one_sequence(rows: int) -> Batch:
    return batch([(tokens(rows), 0, range(16))])


def run_both(
    backend: Backend,
    plan: Plan,
    batches: list[Batch],
    type_of: Callable[[Weight], BlockType] = ALL_F32,
    **changes: Any,
) -> list[tuple[np.ndarray, np.ndarray]]:
    return run_with(backend, plan, batches, random_weights(plan, 3, type_of), **changes)


def run_with(
    backend: Backend, plan: Plan, batches: list[Batch], weights: WeightProvider, **changes: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    results = []
    for each in (backend, ReferenceBackend()):
        session: Session = each.load(plan, weights, limits(**changes))
        results.append([session.step(one) for one in batches])
        session.close()
    return list(zip(*results, strict=True))


def check(pairs: list[tuple[np.ndarray, np.ndarray]], bound: float) -> None:
    for ours, reference in pairs:
        assert ours.shape == reference.shape
        assert ours.dtype == np.float32
        assert normalized_error(ours, reference) <= bound


def attention(g: Graph, x: Value, sinks: str | None = None) -> Value:
    """Nothing but queries, keys, values and attention."""
    s = g.spec
    q, k, v = (g.linear(x, name, n) for name, n in (("q", s.query_width), ("k", s.kv_width), ("v", s.kv_width)))
    return g.attend(q, k, v, window=s.window, sinks=sinks)


def attention_with_sinks(g: Graph, x: Value) -> Value:
    """The same with sinks."""
    return attention(g, x, "sinks")
