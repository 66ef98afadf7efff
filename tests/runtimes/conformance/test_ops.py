"""Every op of every backend against the reference: normalized squared error ≤ 1e-7 in float, ≤ 5e-4 quantized."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Role, Weight
from edgert_models.ops import Value
from edgert_models.rope import Rope, RopeLayout
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Backend
from edgert_runtimes.weights import MemoryWeights

from tests.support.backends import BACKENDS, open_backend
from tests.support.conformance import check, one_sequence, plan_of, run_both, run_with, tokens
from tests.support.tiny import batch, limits, random_weights

FLOATS = [BlockType.F32, BlockType.F16, BlockType.BF16]
QUANTIZED = [BlockType.Q8_0, BlockType.Q4_0, BlockType.Q4_K, BlockType.Q5_K, BlockType.Q6_K]
ROWS = [1, 2, 7, 33]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return open_backend(request.param)


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


def enlarged(g: Graph, x: Value) -> Value:
    """Four times x: large enough for activations to be clamped."""
    twice = g.add(x, x)
    return g.add(twice, twice)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", ["silu", "swiglu_oai"])
def test_add_and_gate(backend: Backend, rows: int, kind: str) -> None:
    def wire(g: Graph, x: Value) -> Value:
        y = enlarged(g, x)
        return g.add(x, g.gated(g.linear(y, "gate", 64), g.linear(y, "up", 64), kind))

    check(run_both(backend, plan_of(wire), [one_sequence(rows)]), 1e-7)


def test_an_unknown_activation_is_refused(backend: Backend) -> None:
    plan = plan_of(lambda g, x: g.gated(x, x, "relu"))
    with pytest.raises(UnsupportedError, match=r"^activation 'relu' is not supported"):
        backend.load(plan, random_weights(plan), limits())


@pytest.mark.parametrize("width", [64, 20, 257])
@pytest.mark.parametrize("rows", ROWS)
def test_a_gate_for_whole_rows(backend: Backend, width: int, rows: int) -> None:
    """The gate is the product with a vector; what it lets through is of any width."""

    def wire(g: Graph, x: Value) -> Value:
        return g.gated(g.dot(x, "vector.weight"), g.linear(x, "up", width), "sigmoid")

    check(run_both(backend, plan_of(wire), [one_sequence(rows)]), 1e-7)


@pytest.mark.parametrize("logit", [-1e4, -90.0, 90.0, 1e4])
def test_a_gate_for_whole_rows_far_from_zero(backend: Backend, logit: float) -> None:
    plan = plan_of(lambda g, x: g.gated(g.dot(g.rms_norm(x, "ones.weight"), "vector.weight"), x, "sigmoid"))
    weights = random_weights(plan, 3)
    tensors = {name: (s.type, s.shape, weights.read(name)) for name, s in weights.weights.items()}
    same = np.full((96, 64), 0.5, np.float32)
    for name, values in (("token_embd", same), ("ones", np.ones(64)), ("vector", np.full(64, logit / 64))):
        shape = (1, 64) if name == "vector" else values.shape  # as other programs store it
        tensors[f"{name}.weight"] = (BlockType.F32, shape, np.atleast_2d(values.astype(np.float32)).view(np.uint8))
    ((ours, reference),) = run_with(backend, plan, [one_sequence(3)], MemoryWeights(tensors))
    np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-30)


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


@pytest.mark.parametrize("block_type", [BlockType.F32, BlockType.BF16, *QUANTIZED])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("normalize", [True, False])
def test_moe(backend: Backend, block_type: BlockType, rows: int, normalize: bool) -> None:
    def wire(g: Graph, x: Value) -> Value:
        return g.moe(x, g.linear(x, "router", 8, role=Role.ROUTER), "blk.0")

    plan = plan_of(wire, width=256, expert_feed_forward=256, normalize_experts=normalize)
    pairs = run_both(backend, plan, [one_sequence(rows)], only(Role.EXPERTS, block_type))
    check(pairs, 5e-4 if block_type in QUANTIZED else 1e-7)


@pytest.mark.parametrize("block_type", [BlockType.F32, BlockType.Q8_0])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", ["silu", "swiglu_oai"])
@pytest.mark.parametrize(("width", "hidden"), [(64, 32), (96, 608)])
def test_moe_with_biases(
    backend: Backend, block_type: BlockType, rows: int, kind: str, width: int, hidden: int
) -> None:
    def wire(g: Graph, x: Value) -> Value:
        logits = g.linear(x, "router", 8, bias=True, role=Role.ROUTER)
        return g.moe(enlarged(g, x), logits, "blk.0", kind=kind, bias=True)

    plan = plan_of(wire, width=width, expert_feed_forward=hidden)
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
    check(run_with(backend, plan, [one_sequence(256)], MemoryWeights(tensors)), 5e-4)


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
