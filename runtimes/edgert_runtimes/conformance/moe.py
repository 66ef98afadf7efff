"""Cases of mixtures of experts: types, shapes, ties, biases, and what is added to their results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from edgert_models.graph import Graph, Role
from edgert_models.ops import Value
from edgert_models.router import Router
from edgert_quant.blocks import BlockType

from edgert_runtimes.conformance.cases import QUANTIZED, Case, one_sequence
from edgert_runtimes.conformance.ops import enlarged
from edgert_runtimes.conformance.types import COMMON, OTHERS, ROWS, bound_of, only


def moe_cases() -> Iterator[Case]:
    """All of them."""
    yield from _alone()
    yield from _routers()
    yield from _beside_a_shared_expert()


def _alone() -> Iterator[Case]:
    def moe(g: Graph, x: Value) -> Value:
        return g.moe(x, g.linear(x, "router", g.spec.experts, role=Role.ROUTER), "blk.0")

    def biased(g: Graph, x: Value, kind: str) -> Value:
        logits = g.linear(x, "router", 8, bias=True, role=Role.ROUTER)
        return g.moe(enlarged(g, x), logits, "blk.0", kind=kind, bias=True)

    def tied(g: Graph, x: Value) -> Value:
        return g.moe(x, g.rms_norm(g.linear(x, "router", 8, role=Role.ROUTER), "zeros.weight"), "blk.0")

    def case(kind: BlockType, rows: int, normalize: bool) -> Case:
        return Case(
            op="moe",
            name=f"{kind.name}, {rows} rows" + ("" if normalize else ", shares as they are"),
            wire=moe,
            steps=[one_sequence(rows)],
            bound=bound_of(kind),
            spec={"width": 256, "expert_feed_forward": 256, "router": Router(normalize=normalize)},
            type_of=only(Role.EXPERTS, kind),
        )

    yield from (case(*one) for one in product((BlockType.F32, BlockType.BF16, *COMMON), ROWS, (True, False)))
    yield from (case(*one) for one in product(OTHERS, (1, 33), (True,)))
    kinds = ((BlockType.F32, BlockType.Q8_0), ROWS, ("silu", "gelu", "swiglu_oai", "relu"), ((64, 32), (96, 608)))
    for stored, rows, kind, (width, hidden) in product(*kinds):
        if kind in ("gelu", "relu") and width > 64:
            continue
        yield Case(
            op="moe",
            name=f"{stored.name} with biases, {kind}, {rows} rows of {width}, {hidden} hidden",
            wire=partial(biased, kind=kind),
            steps=[one_sequence(rows)],
            bound=bound_of(stored),
            spec={"width": width, "expert_feed_forward": hidden},
            type_of=only(Role.EXPERTS, stored),
        )
    yield Case(
        op="moe",
        name="all rows choose the same experts (a tie), which have more rows than go through a matrix together",
        wire=tied,
        steps=[one_sequence(256)],
        bound=QUANTIZED,
        spec={"width": 256, "expert_feed_forward": 320},
        type_of=only(Role.EXPERTS, BlockType.Q8_0),
        values={"zeros.weight": np.zeros(8, np.float32)},
    )
    for experts, used in ((1, 1), (5, 5), (64, 8), (128, 6)):
        spec = {"experts": experts, "experts_used": used, "expert_feed_forward": 24}
        yield Case(op="moe", name=f"{used} of {experts} experts", wire=moe, steps=[one_sequence(12)], spec=spec)


def _routers() -> Iterator[Case]:
    """Every way to choose and to weigh; also rows all of whose logits are the same."""

    def wire(g: Graph, x: Value, tied: bool, scaled: bool = False) -> Value:
        logits = g.linear(x, "router", g.spec.experts, role=Role.ROUTER)
        return g.moe(x, g.rms_norm(logits, "zeros.weight") if tied else logits, "blk.0", scaled=scaled)

    grouped: dict[str, Any] = {"groups": 8, "groups_used": 3}
    routers = {
        "sigmoid": Router(scoring="sigmoid", normalize=False),
        "sigmoid, normalised": Router(scoring="sigmoid", epsilon=0.25, scale=2.5),
        "sigmoid with a bias": Router(scoring="sigmoid", epsilon=1e-20, bias=True),
        "sigmoid with a bias of logits": Router(scoring="sigmoid", bias=True, bias_logits=True),
        "softmax with a bias of logits, groups": Router(bias=True, bias_logits=True, **grouped),
        "softmax with an epsilon": Router(epsilon=0.25),
        "softmax, scaled": Router(normalize=False, scale=16.0),
        "softmax with a bias": Router(epsilon=1e-12, bias=True),
        "softmax, groups by their best": Router(normalize=False, group_best=1, **grouped),
        "softmax, groups by their best two": Router(**grouped),
        "sigmoid, groups": Router(scoring="sigmoid", **grouped),
        "sigmoid with a bias, groups": Router(scoring="sigmoid", epsilon=1e-20, scale=2.5, bias=True, **grouped),
        "sigmoid of inputs": Router(scoring="sigmoid", normalize=False, weighs_inputs=True),
        "sparse mixer": Router(scoring="sparsemixer", normalize=False, band=0.5),
        "softmax with a bias, groups by their best": Router(bias=True, group_best=1, **grouped),
    }

    def case(name: str, router: Router, experts: int, rows: int, tied: bool = False) -> Case:
        values = {"zeros.weight": np.zeros(experts, np.float32)} if tied else {}
        if router.bias:
            bias = np.random.default_rng(experts).uniform(-0.3, 0.3, experts)
            values["blk.0.exp_probs_b.bias"] = bias.astype(np.float32)
        return Case(
            op="moe",
            name=f"router: {name}, {experts} experts, {rows} rows" + (", all logits equal" if tied else ""),
            wire=partial(wire, tied=tied),
            steps=[one_sequence(rows)],
            spec={"experts": experts, "experts_used": 6, "expert_feed_forward": 24, "router": router},
            values=values,
        )

    for name, router in routers.items():
        yield case(name, router, 40, 33)
    for name in ("sigmoid", "softmax"):
        plain = case(f"{name}, experts scaled", routers.get(name, Router()), 40, 7)
        yield replace(plain, wire=partial(wire, tied=False, scaled=True))
    yield case("sigmoid of inputs", routers["sigmoid of inputs"], 8, 1)
    for name in ("sigmoid with a bias, groups", "softmax, groups by their best", "sparse mixer"):
        yield case(name, routers[name], 168, 1)
        yield case(name, routers[name], 40, 2, tied=True)


def _beside_a_shared_expert() -> Iterator[Case]:
    """A shared expert beside the routed ones, and the residual."""

    def wire(g: Graph, x: Value, order: str) -> Value:
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

    def case(kind: BlockType, rows: int, order: str) -> Case:
        return Case(
            op="moe",
            name=f"{kind.name} and a shared expert, {rows} rows, {order}",
            wire=partial(wire, order=order),
            steps=[one_sequence(rows)],
            bound=bound_of(kind),
            spec={"width": 256, "expert_feed_forward": 256},
            type_of=lambda weight: kind if weight.role in (Role.EXPERTS, Role.MATRIX) else BlockType.F32,
        )

    orders = ("experts first", "shared first", "two mixtures", "twice")
    yield from (case(*one) for one in product((BlockType.F32, BlockType.Q4_K), (1, 33), orders))
