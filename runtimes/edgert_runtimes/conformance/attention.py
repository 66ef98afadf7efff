"""Cases of attention: every type of cache, shapes of heads, long contexts, windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from edgert_models.graph import Graph
from edgert_models.ops import Value
from edgert_models.spec import Scales

from edgert_runtimes.base import Batch
from edgert_runtimes.conformance.cases import Case, one_sequence, tokens
from edgert_runtimes.conformance.tiny import batch, in_rings
from edgert_runtimes.kv_types import KV_TYPES

BOUNDS = {"f32": 1e-7, "f16": 1e-6, "bf16": 1e-5, "q8_0": 1e-5, "q4_0": 1e-3}
"""A key or value that lies between two numbers of the cache's type may become either: the reference computes them in
float64.
"""

LONG = (  # type of the cache, heads of queries and of keys, size of a block, window
    ("f32", 1, 1, 16, None),
    ("f32", 4, 2, 3, 300),
    ("f32", 53, 1, 32, None),  # more heads than go together
    ("f16", 3, 1, 1, None),
    ("f16", 4, 4, 16, 100),
    ("bf16", 4, 1, 16, 256),
    ("bf16", 8, 1, 32, 257),
    ("q8_0", 8, 4, 16, None),
    ("q8_0", 3, 1, 3, 270),
    ("q4_0", 8, 1, 16, None),
    ("q4_0", 4, 2, 32, 511),
)


def attention(g: Graph, x: Value, sinks: str | None = None, *, chunked: bool = False) -> Value:
    """Nothing but queries, keys, values and attention."""
    s = g.spec
    q, k, v = (g.linear(x, name, n) for name, n in (("q", s.query_width), ("k", s.kv_width), ("v", s.value_width)))
    return g.attend(q, k, v, window=s.window, sinks=sinks, chunked=chunked)


def shared(g: Graph, x: Value) -> Value:
    """The same, where values are the beginning of their keys."""
    s = g.spec
    q, k = g.linear(x, "q", s.query_width), g.linear(x, "k", s.kv_width)
    return g.attend(q, k, None, window=s.window, sinks="sinks" if s.window else None)


def attention_with_sinks(g: Graph, x: Value) -> Value:
    """The same with sinks."""
    return attention(g, x, "sinks")


def attention_cases() -> Iterator[Case]:
    """All of them."""
    yield from _heads()
    yield from _values()
    yield from _steps()
    yield from _sinks()
    yield from _chunks()
    yield from _soft_caps()
    yield from _long_contexts()
    yield from _rings()


def _heads() -> Iterator[Case]:
    sizes, shapes = (16, 20, 32, 64, 80, 128, 160), ((4, 4), (4, 2), (6, 1))
    for kv_type, size, (heads, kv_heads) in product(KV_TYPES, sizes, shapes):
        if size % KV_TYPES[kv_type].block_size == 0:
            yield Case(
                op="attend",
                name=f"{kv_type} cache, {heads} heads of {size}, {kv_heads} of keys",
                wire=attention,
                steps=[one_sequence(45)],
                bound=BOUNDS[kv_type],
                spec={"head_size": size, "heads": heads, "kv_heads": kv_heads},
                limits={"kv_type": kv_type},
            )


def _values() -> Iterator[Case]:
    """Of another size than keys, or the beginning of these."""
    for kv_type, heads, kv_heads, size, value_size in (
        ("f32", 4, 2, 32, 16),
        ("f16", 4, 1, 24, 40),
        ("q8_0", 4, 4, 96, 64),
    ):
        yield Case(
            op="attend",
            name=f"{kv_type} cache, values of {value_size}, {heads} heads of {size}, {kv_heads} of keys",
            wire=attention,
            steps=_several_steps(),
            bound=BOUNDS[kv_type],
            spec={"head_size": size, "value_length": value_size, "heads": heads, "kv_heads": kv_heads},
            limits={"kv_type": kv_type},
        )
    for kv_type, heads, kv_heads, size, value_size, window in (
        ("f32", 3, 1, 40, 24, None),
        ("f32", 4, 2, 16, 16, 5),
        ("f16", 16, 1, 576, 512, None),
        ("bf16", 50, 1, 40, 32, None),
        ("q8_0", 5, 1, 96, 64, 40),
        ("q4_0", 4, 1, 64, 32, None),
    ):
        yield Case(
            op="attend",
            name=f"{kv_type} cache, values are the first {value_size} elements of keys, {heads} heads of {size}, "
            f"{kv_heads} of keys, window {window}",
            wire=shared,
            steps=_several_steps(),
            bound=BOUNDS[kv_type],
            spec={
                "head_size": size,
                "value_length": value_size,
                "heads": heads,
                "kv_heads": kv_heads,
                "window": window,
            },
            limits={"kv_type": kv_type},
        )


def _several_steps() -> list[Batch]:
    """Several sequences, in chunks, decoding together, with blocks out of order and rows picked in any order."""
    first, second, third = [5, 3, 9, 1], [2, 8, 0, 4], [7, 10, 6, 11]
    return [
        batch([(tokens(37, 1), 0, first)]),
        batch([(tokens(1, 2), 37, first), (tokens(20, 3), 0, second)]),
        batch([(tokens(1, 4), 38, first), (tokens(21, 5), 20, second), (tokens(1, 6), 0, third)], pick=[22, 0, 5]),
        batch([(tokens(1, 7), 39, first), (tokens(1, 8), 41, second), (tokens(1, 9), 1, third)]),
    ]


def _steps() -> Iterator[Case]:
    for wire, window in product((attention, attention_with_sinks), (None, 1, 5, 16, 40)):
        name = f"several steps, {wire.__name__.replace('_', ' ')}, window {window}"
        yield Case(op="attend", name=name, wire=wire, steps=_several_steps(), spec={"window": window})


def _sinks() -> Iterator[Case]:
    """That take nothing, a part, or nearly all; every head has its own."""
    for low, high in ((-1e30, -90.0), (-3.0, 3.0), (20.0, 25.0)):
        yield Case(
            op="attend",
            name=f"sinks from {low:g} to {high:g}",
            wire=attention_with_sinks,
            steps=[one_sequence(45)],
            spec={"heads": 6, "kv_heads": 2},
            values={"sinks": np.linspace(low, high, 6, dtype=np.float32)},
        )


def _chunks() -> Iterator[Case]:
    """Windows that do not slide, smaller and larger than what is done together."""

    def wire(g: Graph, x: Value) -> Value:
        return attention(g, x, chunked=True)

    for chunk in (1, 5, 16, 40):
        yield Case(op="attend", name=f"chunks of {chunk}", wire=wire, steps=_several_steps(), spec={"window": chunk})
    yield Case(
        op="attend",
        name="long contexts in chunks",
        wire=wire,
        steps=_long_steps(50, 16),
        bound=BOUNDS["f16"],
        spec={"heads": 2, "kv_heads": 2, "head_size": 32, "window": 300, "context": 1024},
        limits={"kv_type": "f16", "context": 800, "rows": 512, "blocks": 150, "block_size": 16},
    )


def _soft_caps() -> Iterator[Case]:
    """Of scores that they change much, in both ways of attending: of many rows and of one."""
    first, second = range(16), range(16, 32)
    steps = [batch([(tokens(45, 1), 0, first)]), batch([(tokens(1, 2), 45, first), (tokens(3, 3), 0, second)])]
    for wire, kv_type, window in product((attention, attention_with_sinks), ("f32", "f16"), (None, 7)):
        yield Case(
            op="attend",
            name=f"soft cap, {wire.__name__.replace('_', ' ')}, {kv_type} cache, window {window}",
            wire=wire,
            steps=steps,
            bound=BOUNDS[kv_type],
            spec={"window": window, "scales": Scales(attention=1.0, attention_cap=2.0)},
            limits={"kv_type": kv_type},
        )


def _long_contexts() -> Iterator[Case]:
    for kv_type, heads, kv_heads, block_size, window in LONG:
        count = -(-800 // block_size)
        yield Case(
            op="attend",
            name=f"long contexts, {kv_type} cache in blocks of {block_size}, {heads} heads, {kv_heads} of keys, "
            f"window {window}",
            wire=attention_with_sinks if heads == 4 else attention,
            steps=_long_steps(count, block_size),
            bound=BOUNDS[kv_type],
            spec={"heads": heads, "kv_heads": kv_heads, "head_size": 32, "window": window, "context": 1024},
            limits={
                "kv_type": kv_type,
                "context": 800,
                "rows": 512,
                "blocks": 3 * count,
                "block_size": block_size,
            },
        )


def _rings() -> Iterator[Case]:
    """Layers with a window that have blocks of their own, beside some that have not."""

    def case(name: str, steps: Sequence[Batch], window: int, *, chunked: bool = False, **limits: Any) -> Case:
        def wire(g: Graph, x: Value) -> Value:
            s = g.spec
            for layer, own in enumerate((None, window, window)):
                names = ((f"{layer}.q", s.query_width), (f"{layer}.k", s.kv_width), (f"{layer}.v", s.value_width))
                y = g.attend(*(g.linear(x, *each) for each in names), window=own, chunked=chunked)
                x = g.add(x, g.linear(y, f"{layer}.o", s.width))
            return x

        reach = -window if chunked else window
        steps, blocks = in_rings(steps, reach, limits.get("block_size", 16))
        return Case(
            op="attend",
            name=f"{name}, {'chunks' if chunked else 'windows'} of {window} in blocks of their own",
            wire=wire,
            steps=steps,
            bound=1e-5,
            spec={"context": 1024},
            limits={"window_blocks": blocks, **limits},
        )

    for window in (1, 5, 17):
        yield case("several steps", _several_steps(), window)
    yield case("several steps", _several_steps(), 16, chunked=True)
    long: dict[str, Any] = {"context": 800, "rows": 512, "blocks": 150}
    yield case("long contexts, f16 cache", _long_steps(50, 16), 100, kv_type="f16", **long)
    yield case("long contexts, f32 cache", _long_steps(50, 16), 300, chunked=True, **long)


def _long_steps(count: int, block_size: int) -> list[Batch]:
    """Chunks that end anywhere, then decoding beside a short sequence and a chunk of another long one."""
    order = np.random.default_rng(1).permutation(3 * count).tolist()
    first, second, third = (order[i * count : (i + 1) * count] for i in range(3))
    rounds = [
        [(tokens(500, 1), 0, first)],
        [(tokens(140, 2), 500, first), (tokens(290, 3), 0, second)],
        [(tokens(1, 4), 640, first), (tokens(20, 5), 0, third), (tokens(300, 6), 290, second)],
        [(tokens(1, 7), 641, first), (tokens(1, 8), 20, third), (tokens(1, 9), 590, second)],
        [(tokens(130, 10), 642, first)],
    ]
    return [batch(parts, block_size=block_size) for parts in rounds]
