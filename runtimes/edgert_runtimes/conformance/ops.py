"""Cases of every op but attention and mixtures: shapes, kinds, types of weights, one row and many."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from edgert_models.graph import Graph, Role
from edgert_models.ops import Value
from edgert_models.rope import Rope, RopeLayout
from edgert_quant.blocks import BlockType

from edgert_runtimes.conformance.cases import Case, Wire, one_sequence, tokens
from edgert_runtimes.conformance.tiny import batch
from edgert_runtimes.conformance.types import COMMON, FLOATS, OTHERS, ROWS, bound_of, only


def op_cases() -> Iterator[Case]:
    """All of them."""
    yield from _embed()
    yield from _rms_norm()
    yield from _layer_norm()
    yield from _scales()
    yield from _linear()
    yield from _head_linear()
    yield from _gates()
    yield from _slice()
    yield from _rope()


def enlarged(g: Graph, x: Value) -> Value:
    """Four times x: large enough for activations to be clamped."""
    twice = g.add(x, x)
    return g.add(twice, twice)


def _embed() -> Iterator[Case]:
    for kind in (*FLOATS, *COMMON, *OTHERS):
        yield Case(
            op="embed",
            name=kind.name,
            wire=lambda g, x: x,
            steps=[one_sequence(9)],
            bound=1e-12,
            spec={"width": 256},
            type_of=only(Role.EMBEDDING, kind),
        )


def _rms_norm() -> Iterator[Case]:
    def case(rows: int, width: int, groups: int, rest: int = 0) -> Case:
        return Case(
            op="rms_norm",
            name=f"{rows} rows of {width}, {groups} groups" + (f", but the last {rest} elements" if rest else ""),
            wire=lambda g, x: g.rms_norm(x, "norm.weight", groups=groups, rest=rest),
            steps=[one_sequence(rows)],
            spec={"width": width},
        )

    shapes = ((64, 1), (64, 4), (20, 1), (96, 3), (1040, 1), (96, 1, 32), (60, 2, 10))
    yield from (case(rows, *shape) for shape, rows in product(shapes, ROWS))
    for rows in (1, 33):
        yield Case(
            op="rms_norm",
            name=f"{rows} rows, four groups with weights of their own",
            wire=lambda g, x: g.rms_norm(x, "norm.weight", groups=4, own=True),
            steps=[one_sequence(rows)],
            spec={"width": 68},
        )
    for rows, groups in product((1, 7), (1, 4)):
        yield Case(
            op="rms_norm",
            name=f"without a weight, {rows} rows of 64, {groups} groups",
            wire=partial(lambda g, x, groups: g.rms_norm(x, None, groups=groups), groups=groups),
            steps=[one_sequence(rows)],
        )


def _layer_norm() -> Iterator[Case]:
    def case(rows: int, width: int, bias: bool) -> Case:
        """Of values far from zero, whose mean has to go."""
        return Case(
            op="layer_norm",
            name=f"{rows} rows of {width}" + (" with bias" if bias else ""),
            wire=lambda g, x: g.layer_norm(g.linear(x, "far", width, bias=True), "norm", bias=bias),
            steps=[one_sequence(rows)],
            values={"far.bias": np.linspace(5.0, 9.0, width, dtype=np.float32)},
        )

    yield from (case(rows, width, bias) for rows, width, bias in product(ROWS, (64, 20), (False, True)))
    yield case(1, 1040, True)


def _scales() -> Iterator[Case]:
    for rows, width in product(ROWS, (64, 20)):
        common: dict[str, Any] = {"steps": [one_sequence(rows)], "spec": {"width": width}}
        yield Case(op="scale", name=f"{rows} rows of {width}", wire=lambda g, x: g.scale(x, -0.22), **common)
        for ahead in (0, 3):
            wire = partial(Graph.position_scale, strength=0.3, length=7, ahead=ahead)
            name = f"{rows} rows of {width}" + (f", {ahead} positions ahead" if ahead else "")
            yield Case(op="position_scale", name=name, wire=wire, **common)
        yield Case(op="clamp", name=f"{rows} rows of {width}", wire=lambda g, x: g.clamp(x, 0.7), **common)
        yield Case(
            op="scale", name=f"by a weight, {rows} rows of {width}", wire=lambda g, x: g.scale_by(x, "w"), **common
        )
        yield Case(op="soft_cap", name=f"{rows} rows of {width}", wire=lambda g, x: g.soft_cap(x, 1.5), **common)
        yield Case(
            op="soft_cap",
            name=f"of a product, {rows} rows of {width}",
            wire=lambda g, x: g.soft_cap(g.linear(x, "w", 96), 0.5),
            **common,
        )


def _linear() -> Iterator[Case]:
    def case(kind: BlockType, rows: int, width: int, out: int, bias: bool = False, **spec: Any) -> Case:
        return Case(
            op="linear",
            name=f"{kind.name}, {rows} rows of {width} to {out}" + (" with bias" if bias else ""),
            wire=lambda g, x: g.linear(x, "w", out, bias=bias),
            steps=[one_sequence(rows)],
            bound=bound_of(kind),
            spec={"width": width, **spec},
            type_of=only(Role.MATRIX, kind),
        )

    yield from (case(*shape) for shape in product((*FLOATS, *COMMON), ROWS, (512,), (1, 17, 80)))
    yield from (case(*shape) for shape in product(OTHERS, (1, 33), (512,), (17,)))
    for kind, width in product(FLOATS, (1, 20, 65)):
        yield case(kind, 5, width, 33, heads=1, kv_heads=1)
    yield from (case(BlockType.F32, rows, 64, 40, bias=True) for rows in ROWS)


def _head_linear() -> Iterator[Case]:
    def case(kind: BlockType, rows: int, heads: int, inward: int, outward: int, rest: int) -> Case:
        return Case(
            op="head_linear",
            name=f"{kind.name}, {rows} rows of {heads} heads, {inward} + {rest} to {outward} + {rest}",
            wire=lambda g, x: g.head_linear(x, "w.weight", heads, outward, rest=rest),
            steps=[one_sequence(rows)],
            bound=bound_of(kind),
            spec={"width": heads * (inward + rest)},
            type_of=only(Role.HEADS, kind),
        )

    shapes = ((3, 20, 24, 4), (2, 10, 34, 2), (5, 16, 48, 0))
    yield from (case(BlockType.F32, rows, *shape) for rows, shape in product(ROWS, shapes))
    kinds = (BlockType.BF16, BlockType.Q8_0, BlockType.Q4_K)
    yield from (case(kind, rows, 3, 256, 80, 64) for kind, rows in product(kinds, (1, 33)))
    yield case(BlockType.Q8_0, 5, 2, 64, 36, 8)


def _gates() -> Iterator[Case]:
    def gated(g: Graph, x: Value, kind: str) -> Value:
        y = enlarged(g, x)
        return g.add(x, g.gated(g.linear(y, "gate", 64), g.linear(y, "up", 64), kind))

    def whole_rows(g: Graph, x: Value, width: int) -> Value:
        """The gate is the product with a vector; what it lets through is of any width."""
        return g.gated(g.dot(x, "vector.weight"), g.linear(x, "up", width), "sigmoid")

    def parts(g: Graph, x: Value, kind: str, width: int) -> Value:
        return g.gated(g.linear(x, "gate", 3), g.linear(x, "up", 3 * width), kind)

    def case(name: str, rows: int, wire: Wire) -> Case:
        return Case(op="gated", name=f"{name}, {rows} rows", wire=wire, steps=[one_sequence(rows)])

    for rows, kind in product(ROWS, ("silu", "gelu", "swiglu_oai", "relu", "bilinear", "sigmoid", "softplus")):
        yield case(kind, rows, partial(gated, kind=kind))
    for rows, width in product(ROWS, (64, 20, 257)):
        yield case(f"sigmoid for whole rows of {width}", rows, partial(whole_rows, width=width))
    for kind, width in product(("sigmoid", "softplus"), (64, 20)):
        yield case(f"{kind} for parts of {width}", 5, partial(parts, kind=kind, width=width))


def _slice() -> Iterator[Case]:
    for rows, (groups, start, width) in product((1, 33), ((1, 0, 20), (1, 44, 20), (4, 5, 11), (8, 7, 1))):

        def wire(g: Graph, x: Value, groups: int = groups, start: int = start, width: int = width) -> Value:
            return g.slice(x, start, width, groups=groups)

        name = f"{rows} rows, {width} of each of {groups} parts from {start}"
        yield Case(op="slice", name=name, wire=wire, steps=[one_sequence(rows)], bound=1e-12)


def _rope() -> Iterator[Case]:
    def case(name: str, rope: Rope, first: int = 0) -> Case:
        steps = [one_sequence(33), batch([(tokens(3), 200, range(16))])]
        return Case(
            op="rope",
            name=name + (f", from element {first} on" if first else ""),
            wire=lambda g, x: g.rope(x, 4, rope, first=first),
            steps=steps,
            spec={"rope": rope},
        )

    changes: tuple[dict[str, Any], ...] = ({}, {"factors": True}, {"scaling": "linear", "factor": 4.0})
    for layout, dims, change in product(RopeLayout, (16, 8), changes):
        described = ", ".join(f"{key} {value}" for key, value in change.items())
        name = f"{layout.value}, {dims} of 16" + (f", {described}" if described else "")
        yield case(name, Rope(dims=dims, layout=layout, **change))
        if dims == 8:
            yield case(name, Rope(dims=dims, layout=layout, **change), first=6)
    yield case("yarn", Rope(dims=16, layout=RopeLayout.HALVES, scaling="yarn", factor=4.0, original_context=32))
