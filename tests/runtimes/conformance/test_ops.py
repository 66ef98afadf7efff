"""Every op of every backend against the reference: normalized squared error ≤ 1e-7 in float, ≤ 5e-4 quantized."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edgert_models.graph import Graph, Plan, Role, Weight
from edgert_models.ops import Value
from edgert_models.rope import Rope, RopeLayout
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Backend, Batch, Session
from edgert_runtimes.reference.backend import ReferenceBackend
from edgert_runtimes.registry import backend_names, get_backend
from edgert_runtimes.weights import MemoryWeights

from tests.support.tiny import ALL_F32, batch, limits, normalized_error, random_weights, tiny_spec

FLOATS = [BlockType.F32, BlockType.F16, BlockType.BF16]
QUANTIZED = [BlockType.Q8_0, BlockType.Q4_0, BlockType.Q4_K, BlockType.Q5_K, BlockType.Q6_K]
ROWS = [1, 2, 7, 33]


@pytest.fixture(params=[name for name in backend_names() if name != "reference"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return get_backend(request.param)


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
    weights = random_weights(plan, 3, type_of)
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


def only(role: Role, block_type: BlockType) -> Callable[[Weight], BlockType]:
    return lambda weight: block_type if weight.role is role else BlockType.F32


@pytest.mark.parametrize("block_type", FLOATS + QUANTIZED)
def test_embed(backend: Backend, block_type: BlockType) -> None:
    plan = plan_of(lambda g, x: x, width=256)
    check(run_both(backend, plan, [one_sequence(9)], only(Role.EMBEDDING, block_type)), 1e-12)


@pytest.mark.parametrize(("width", "groups"), [(64, 1), (64, 4), (20, 1), (96, 3), (1040, 1)])
@pytest.mark.parametrize("rows", ROWS)
def test_rms_norm(backend: Backend, width: int, groups: int, rows: int) -> None:
    plan = plan_of(lambda g, x: g.rms_norm(x, "norm.weight", groups=groups), width=width)
    check(run_both(backend, plan, [one_sequence(rows)]), 1e-7)


@pytest.mark.parametrize("block_type", FLOATS + QUANTIZED)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("out", [1, 17, 80])
def test_linear(backend: Backend, block_type: BlockType, rows: int, out: int) -> None:
    plan = plan_of(lambda g, x: g.linear(x, "w", out), width=512)
    pairs = run_both(backend, plan, [one_sequence(rows)], only(Role.MATRIX, block_type))
    check(pairs, 5e-4 if block_type in QUANTIZED else 1e-7)


@pytest.mark.parametrize("block_type", FLOATS)
@pytest.mark.parametrize("width", [1, 20, 65])
def test_linear_of_any_width(backend: Backend, block_type: BlockType, width: int) -> None:
    plan = plan_of(lambda g, x: g.linear(x, "w", 33), width=width, heads=1, kv_heads=1)
    check(run_both(backend, plan, [one_sequence(5)], only(Role.MATRIX, block_type)), 1e-7)


@pytest.mark.parametrize("rows", ROWS)
def test_linear_with_bias(backend: Backend, rows: int) -> None:
    plan = plan_of(lambda g, x: g.linear(x, "w", 40, bias=True))
    check(run_both(backend, plan, [one_sequence(rows)]), 1e-7)


@pytest.mark.parametrize("rows", ROWS)
def test_add_and_gate(backend: Backend, rows: int) -> None:
    def wire(g: Graph, x: Value) -> Value:
        return g.add(x, g.gated(g.linear(x, "gate", 64), g.linear(x, "up", 64)))

    check(run_both(backend, plan_of(wire), [one_sequence(rows)]), 1e-7)


@pytest.mark.parametrize("layout", list(RopeLayout))
@pytest.mark.parametrize("dims", [16, 8])
@pytest.mark.parametrize("changes", [{}, {"factors": True}, {"scaling": "linear", "factor": 4.0}], ids=str)
def test_rope(backend: Backend, layout: RopeLayout, dims: int, changes: dict[str, Any]) -> None:
    rope = Rope(dims=dims, layout=layout, **changes)
    plan = plan_of(lambda g, x: g.rope(x, 4), rope=rope)
    check(run_both(backend, plan, [one_sequence(33), batch([(tokens(3), 200, range(16))])]), 1e-7)


def test_rope_magnitude(backend: Backend) -> None:
    rope = Rope(dims=16, layout=RopeLayout.HALVES, scaling="yarn", factor=4.0, original_context=32)
    check(run_both(backend, plan_of(lambda g, x: g.rope(x, 4), rope=rope), [one_sequence(33)]), 1e-7)


def attention(g: Graph, x: Value) -> Value:
    s = g.spec
    q, k, v = (g.linear(x, name, n) for name, n in (("q", s.query_width), ("k", s.kv_width), ("v", s.kv_width)))
    return g.attend(q, k, v)


@pytest.mark.parametrize("kv_type", ["f32", "f16"])
@pytest.mark.parametrize("head_size", [16, 20, 64, 80, 128])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_attend(backend: Backend, kv_type: str, head_size: int, heads: int, kv_heads: int) -> None:
    plan = plan_of(attention, head_size=head_size, heads=heads, kv_heads=kv_heads)
    check(run_both(backend, plan, [one_sequence(45)], kv_type=kv_type), 1e-6 if kv_type == "f16" else 1e-7)


@pytest.mark.parametrize("window", [None, 1, 5, 16, 40])
def test_attend_across_steps(backend: Backend, window: int | None) -> None:
    """Several sequences, in chunks, decoding together, with blocks out of order and rows picked in any order."""
    first, second, third = [5, 3, 9, 1], [2, 8, 0, 4], [7, 10, 6, 11]
    steps = [
        batch([(tokens(37, 1), 0, first)]),
        batch([(tokens(1, 2), 37, first), (tokens(20, 3), 0, second)]),
        batch([(tokens(1, 4), 38, first), (tokens(21, 5), 20, second), (tokens(1, 6), 0, third)], pick=[22, 0, 5]),
        batch([(tokens(1, 7), 39, first), (tokens(1, 8), 41, second), (tokens(1, 9), 1, third)]),
    ]
    check(run_both(backend, plan_of(attention, window=window), steps), 1e-7)


@pytest.mark.parametrize("block_type", [BlockType.F32, BlockType.BF16, *QUANTIZED])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("normalize", [True, False])
def test_moe(backend: Backend, block_type: BlockType, rows: int, normalize: bool) -> None:
    def wire(g: Graph, x: Value) -> Value:
        return g.moe(x, g.linear(x, "router", 8, role=Role.ROUTER), "blk.0")

    plan = plan_of(wire, width=256, expert_feed_forward=256, normalize_experts=normalize)
    pairs = run_both(backend, plan, [one_sequence(rows)], only(Role.EXPERTS, block_type))
    check(pairs, 5e-4 if block_type in QUANTIZED else 1e-7)


def test_moe_of_many_rows_for_few_experts(backend: Backend) -> None:
    """All rows choose the same experts (a tie), which have more rows than go through a matrix together."""

    def wire(g: Graph, x: Value) -> Value:
        return g.moe(x, g.rms_norm(g.linear(x, "router", 8, role=Role.ROUTER), "zeros.weight"), "blk.0")

    plan = plan_of(wire, width=256, expert_feed_forward=320)
    weights = random_weights(plan, 3, only(Role.EXPERTS, BlockType.Q8_0))
    tensors = {name: (s.type, s.shape, weights.read(name)) for name, s in weights.weights.items()}
    tensors["zeros.weight"] = (BlockType.F32, (8,), np.zeros(8, np.float32).view(np.uint8))
    found = []
    for each in (backend, ReferenceBackend()):
        session: Session = each.load(plan, MemoryWeights(tensors), limits())
        found.append(session.step(one_sequence(256)))
        session.close()
    check([(found[0], found[1])], 5e-4)


@pytest.mark.parametrize("block_type", [BlockType.F32, BlockType.Q4_K])
@pytest.mark.parametrize("rows", [1, 33])
@pytest.mark.parametrize("order", ["experts first", "shared first", "two mixtures", "twice"])
def test_experts_and_what_is_added_to_them(backend: Backend, block_type: BlockType, rows: int, order: str) -> None:
    """A shared expert beside the routed ones, and the residual."""

    def wire(g: Graph, x: Value) -> Value:
        y = g.rms_norm(x, "norm.weight")

        def routed(name: str = "blk.0") -> Value:
            return g.moe(y, g.linear(y, f"{name}.router", 8, role=Role.ROUTER), name)

        def shared() -> Value:
            hidden = g.gated(g.linear(y, "gate", 512), g.linear(y, "up", 512))
            return g.linear(hidden, "down", 256)

        if order == "experts first":
            return g.add(x, g.add(routed(), shared()))
        if order == "shared first":
            return g.add(g.add(shared(), routed()), x)
        if order == "two mixtures":
            return g.add(x, g.add(routed(), routed("blk.1")))
        twice = routed()
        return g.add(g.add(twice, twice), x)

    plan = plan_of(wire, width=256, expert_feed_forward=256)

    def type_of(weight: Weight) -> BlockType:
        return block_type if weight.role in (Role.EXPERTS, Role.MATRIX) else BlockType.F32

    pairs = run_both(backend, plan, [one_sequence(rows)], type_of)
    check(pairs, 1e-7 if block_type is BlockType.F32 else 5e-4)


@pytest.mark.parametrize(("experts", "used"), [(1, 1), (5, 5), (64, 8), (128, 6)])
def test_moe_sizes(backend: Backend, experts: int, used: int) -> None:
    def wire(g: Graph, x: Value) -> Value:
        return g.moe(x, g.linear(x, "router", experts, role=Role.ROUTER), "blk.0")

    plan = plan_of(wire, experts=experts, experts_used=used, expert_feed_forward=24)
    check(run_both(backend, plan, [one_sequence(12)]), 1e-7)
