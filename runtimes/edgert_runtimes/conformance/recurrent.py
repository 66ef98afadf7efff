"""Cases of ops with a state: shapes, chunks, sequences that begin, go on and take turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from edgert_models.graph import Graph
from edgert_models.ops import Value
from edgert_models.spec import Recurrence

from edgert_runtimes.base import Batch
from edgert_runtimes.conformance.cases import Case, Wire, tokens
from edgert_runtimes.conformance.tiny import batch


def steps() -> list[Batch]:
    """Sequences of one to 37 rows, in chunks, decoding together, one of them from the states of another."""
    first, second, third = [5, 3, 9], [2, 8, 0], [7, 10, 6]
    found = [
        batch([(tokens(37, 1), 0, first)]),
        batch([(tokens(1, 2), 37, first), (tokens(20, 3), 0, second)]),
        batch([(tokens(1, 4), 38, first), (tokens(2, 5), 20, second), (tokens(1, 6), 0, third)], pick=[2, 0, 3]),
        batch([(tokens(1, 7), 39, first), (tokens(1, 8), 22, second), (tokens(1, 9), 1, third)]),
        batch([(tokens(3, 10), 40, first), (tokens(2, 11), 23, second), (tokens(1, 12), 2, third)]),
        batch([(tokens(1, 13), 43, first), (tokens(1, 14), 25, second)]),
    ]
    forked = batch([(tokens(2, 15), 44, first), (tokens(2, 16), 44, second)])
    slots = {"state_from": [5, 5], "state_to": [20, 21]}
    return [*found, replace(forked, **{name: np.array(each, np.int32) for name, each in slots.items()})]


def recurrent_cases() -> Iterator[Case]:
    """All of them."""
    for kernel, width, bias, silu in ((3, 64, False, False), (4, 300, True, True), (2, 20, True, False)):
        yield _case(
            "short_conv", f"{kernel} rows of {width}, bias {bias}, silu {silu}", _conv(width, kernel, bias, silu)
        )

    for sizes in ((4, 2, 16, 16, False), (4, 2, 20, 40, True), (6, 6, 32, 9, False)):
        heads, key_heads, key_size, value_size, tiled = sizes
        name = f"{heads} heads of {value_size}, {key_heads} of keys of {key_size}{', tiled' if tiled else ''}"
        recurrence = Recurrence(
            layers=(True, False),
            kernel=4,
            inner=heads * value_size,
            state=key_size,
            heads=heads,
            groups=key_heads,
        )
        yield Case(
            op="delta_rule",
            name=name,
            wire=partial(_delta_rule, tiled=tiled),
            steps=steps(),
            spec={"recurrence": recurrence},
            values={"blk.0.ssm_a": -np.linspace(0.05, 3.0, heads, dtype=np.float32)[None]},
        )

    for heads, size, floor in ((3, 24, 0.0), (2, 32, -5.0)):
        recurrence = Recurrence(
            layers=(True, False), kernel=4, inner=heads * size, state=size, heads=heads, groups=heads, floor=floor
        )
        slopes = np.linspace(0.05, 3.0, heads, dtype=np.float32)[:, None]
        yield Case(
            op="delta_rule",
            name=f"{heads} heads of {size}, decays by channel{f', no less than e^{floor}' if floor else ''}",
            wire=_delta_rule_by_channel,
            steps=steps(),
            spec={"recurrence": recurrence},
            values={"blk.0.ssm_a": slopes if floor else -slopes},
        )

    for heads, size, groups, numbers, decays in ((4, 16, 1, 16, 1), (6, 5, 2, 33, 1), (20, 1, 1, 12, 12)):
        recurrence = Recurrence(
            layers=(True, False), kernel=4, inner=heads * size, state=numbers, heads=heads, groups=1
        )
        yield Case(
            op="scan",
            name=f"{heads} heads of {size}, {groups} groups of {numbers}, {decays} decays",
            wire=partial(_scan, heads=heads, size=size, groups=groups, numbers=numbers, decays=decays),
            steps=steps(),
            spec={"recurrence": recurrence},
            values={"blk.0.ssm_a": -np.linspace(0.05, 3.0, heads * decays, dtype=np.float32).reshape(heads, decays)},
        )


def _scan(g: Graph, x: Value, heads: int, size: int, groups: int, numbers: int, decays: int) -> Value:
    y, t, b, c = (
        g.linear(x, name, width)
        for name, width in (("x", heads * size), ("t", heads), ("b", groups * numbers), ("c", groups * numbers))
    )
    return g.scan(y, t, b, c, "blk.0", decays=decays)


def _delta_rule(g: Graph, x: Value, tiled: bool) -> Value:
    r = g.spec.recurrence
    assert r is not None
    a, b = (g.linear(x, name, r.heads) for name in ("a", "b"))
    return g.delta_rule(g.linear(x, "in", 2 * r.groups * r.state + r.inner), a, b, "blk.0", tiled=tiled)


def _delta_rule_by_channel(g: Graph, x: Value) -> Value:
    r = g.spec.recurrence
    assert r is not None
    q, k, v, a = (g.linear(x, name, r.inner) for name in ("q", "k", "v", "a"))
    return g.delta_rule(q, a, g.linear(x, "b", r.heads), "blk.0", k=k, v=v)


def _case(op: str, name: str, wire: Wire) -> Case:
    return Case(op=op, name=name, wire=wire, steps=steps())


def _conv(width: int, kernel: int, bias: bool, silu: bool) -> Wire:
    def wire(g: Graph, x: Value) -> Value:
        return g.short_conv(g.linear(x, "in", width), "conv", kernel, bias=bias, silu=silu)

    return wire
