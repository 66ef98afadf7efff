"""Small plans of a few ops, run by a backend and by the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from edgert_models.graph import Graph, Plan, Weight
from edgert_models.ops import Value
from edgert_quant.blocks import BlockType

from edgert_runtimes.base import Backend, Batch, Float32, LoadReport, WeightProvider
from edgert_runtimes.conformance.tiny import ALL_F32, batch, limits, normalized_error, random_weights, tiny_spec
from edgert_runtimes.reference.backend import ReferenceBackend
from edgert_runtimes.weights import MemoryWeights

FLOAT, QUANTIZED = 1e-7, 5e-4
"""Bounds of the normalized squared error: of ops on floats, and of products with quantized matrices."""

ROUNDING = {"float32": 0.0, "float16": 1e-5, "bfloat16": 1e-3}
"""The least bound by the type in which a session computes: a few roundings."""

AMPLIFIED = 10
"""How much greater the error of a result may be than that of weights which a backend, as it says, keeps inexactly."""

Wire = Callable[[Graph, Value], Value]


@dataclass(frozen=True, kw_only=True)
class Case:
    """embed → `wire` → pick the rows, for `steps` one after another.

    `spec` and `limits` are changes to `tiny_spec` and `tiny.limits`; weights are random, of types that `type_of`
    chooses, but for those in `values`. No step's normalized squared error may be greater than `bound`.
    """

    op: str
    name: str
    wire: Wire
    steps: Sequence[Batch]
    bound: float = FLOAT
    spec: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    type_of: Callable[[Weight], BlockType] = ALL_F32
    values: Mapping[str, Float32] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op}: {self.name}"

    def weights(self, plan: Plan) -> MemoryWeights:
        """What the plan needs."""
        return with_values(random_weights(plan, 3, self.type_of), self.values)


def with_values(weights: MemoryWeights, values: Mapping[str, Float32]) -> MemoryWeights:
    """The same weights, but for those named."""
    tensors = {name: (stored.type, stored.shape, weights.read(name)) for name, stored in weights.weights.items()}
    for name, x in values.items():
        tensors[name] = (BlockType.F32, x.shape, np.atleast_2d(x.astype(np.float32)).view(np.uint8))
    return MemoryWeights(tensors)


def plan_of(wire: Wire, **changes: Any) -> Plan:
    """embed → wire → pick the rows."""
    graph = Graph(tiny_spec(**changes))
    result = graph.pick_rows(wire(graph, graph.embed()))
    return graph.plan(result, result)


def tokens(count: int, seed: int = 1) -> list[int]:
    """Some of the tiny vocabulary."""
    return [int(token) for token in np.random.default_rng(seed).integers(0, 96, count)]


def one_sequence(rows: int) -> Batch:
    """So many rows of one sequence."""
    return batch([(tokens(rows), 0, range(16))])


def run(
    backend: Backend, plan: Plan, steps: Sequence[Batch], weights: WeightProvider, **changes: Any
) -> tuple[list[Float32], LoadReport]:
    """What a backend gives for each step, and what it says of loading."""
    session = backend.load(plan, weights, limits(**changes))
    try:
        return [session.step(step) for step in steps], session.report
    finally:
        session.close()


def compare(backend: Backend, case: Case) -> tuple[float, float]:
    """The largest normalized squared error of a step, and what it may be on this backend. Raises what the backend
    raises, and ValueError where a result has another shape or type than it should.
    """
    plan = plan_of(case.wire, **case.spec)
    weights = case.weights(plan)
    found, report = run(backend, plan, case.steps, weights, **case.limits)
    wanted, _ = run(ReferenceBackend(), plan, case.steps, weights, **case.limits)
    for ours, reference in zip(found, wanted, strict=True):
        if ours.shape != reference.shape or ours.dtype != np.float32:
            raise ValueError(f"the result is {ours.dtype} {list(ours.shape)}, not float32 {list(reference.shape)}")
    error = float(np.max([normalized_error(*pair) for pair in zip(found, wanted, strict=True)]))  # NaN stays NaN
    inexact = AMPLIFIED * max((weight.error for weight in report.weights), default=0.0)
    return error, max(case.bound, ROUNDING[report.precision]) + inexact
