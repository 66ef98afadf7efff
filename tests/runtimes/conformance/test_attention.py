"""Attention of every backend against the reference: every type of cache, shapes of heads, long contexts, windows."""

from collections.abc import Callable

import numpy as np
import pytest
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph
from edgert_models.ops import Value
from edgert_runtimes.base import Backend
from edgert_runtimes.kv_types import KV_TYPES
from edgert_runtimes.weights import MemoryWeights

from tests.support.backends import BACKENDS, open_backend
from tests.support.conformance import (
    attention,
    attention_with_sinks,
    check,
    one_sequence,
    plan_of,
    run_both,
    run_with,
    tokens,
)
from tests.support.tiny import batch, limits, random_weights

BOUNDS = {"f32": 1e-7, "f16": 1e-6, "bf16": 1e-5, "q8_0": 1e-5, "q4_0": 1e-3}
"""A key or value that lies between two numbers of the cache's type may become either: the reference computes them in
float64.
"""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return open_backend(request.param)


@pytest.mark.parametrize(
    ("kv_type", "head_size"),
    [(t, n) for t in KV_TYPES for n in (16, 20, 32, 64, 80, 128, 160) if n % KV_TYPES[t].block_size == 0],
)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_attend(backend: Backend, kv_type: str, head_size: int, heads: int, kv_heads: int) -> None:
    plan = plan_of(attention, head_size=head_size, heads=heads, kv_heads=kv_heads)
    if backend.name == "cuda" and head_size % 8:
        with pytest.raises(UnsupportedError, match=r"^layer 0: heads of 20 are not supported by the cuda backend"):
            backend.load(plan, random_weights(plan), limits(kv_type=kv_type))
        return
    check(run_both(backend, plan, [one_sequence(45)], kv_type=kv_type), BOUNDS[kv_type])


@pytest.mark.parametrize("kind", [attention, attention_with_sinks])
@pytest.mark.parametrize("window", [None, 1, 5, 16, 40])
def test_attend_across_steps(backend: Backend, window: int | None, kind: Callable[[Graph, Value], Value]) -> None:
    """Several sequences, in chunks, decoding together, with blocks out of order and rows picked in any order."""
    first, second, third = [5, 3, 9, 1], [2, 8, 0, 4], [7, 10, 6, 11]
    steps = [
        batch([(tokens(37, 1), 0, first)]),
        batch([(tokens(1, 2), 37, first), (tokens(20, 3), 0, second)]),
        batch([(tokens(1, 4), 38, first), (tokens(21, 5), 20, second), (tokens(1, 6), 0, third)], pick=[22, 0, 5]),
        batch([(tokens(1, 7), 39, first), (tokens(1, 8), 41, second), (tokens(1, 9), 1, third)]),
    ]
    check(run_both(backend, plan_of(kind, window=window), steps), 1e-7)


@pytest.mark.parametrize(("low", "high"), [(-1e30, -90.0), (-3.0, 3.0), (20.0, 25.0)])
def test_sinks_of_any_size(backend: Backend, low: float, high: float) -> None:
    """That take nothing, a part, or nearly all; every head has its own."""
    plan = plan_of(attention_with_sinks, heads=6, kv_heads=2)
    weights = random_weights(plan, 3)
    stored = {name: (weight.type, weight.shape, weights.read(name)) for name, weight in weights.weights.items()}
    sinks = np.linspace(low, high, 6, dtype=np.float32).view(np.uint8)[None]
    stored["sinks"] = (*stored["sinks"][:2], sinks)
    pairs = run_with(backend, plan, [one_sequence(45)], MemoryWeights(stored))
    check(pairs, 1e-7)
    (without,) = run_both(backend, plan_of(attention, heads=6, kv_heads=2), [one_sequence(45)])
    ratio = np.linalg.norm(pairs[0][0]) / np.linalg.norm(without[0])
    assert ratio == pytest.approx(1, abs=1e-6) if high < 0 else ratio < 0.99


@pytest.mark.parametrize(
    ("kv_type", "heads", "kv_heads", "block_size", "window"),
    [
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
    ],
)
def test_long_contexts(
    backend: Backend, kv_type: str, heads: int, kv_heads: int, block_size: int, window: int | None
) -> None:
    """Chunks that end anywhere, then decoding beside a short sequence and a chunk of another long one."""
    kind = attention_with_sinks if heads == 4 else attention
    plan = plan_of(kind, heads=heads, kv_heads=kv_heads, head_size=32, window=window, context=1024)
    count = -(-800 // block_size)
    order = np.random.default_rng(1).permutation(3 * count).tolist()
    first, second, third = (order[i * count : (i + 1) * count] for i in range(3))
    rounds = [
        [(tokens(500, 1), 0, first)],
        [(tokens(140, 2), 500, first), (tokens(290, 3), 0, second)],
        [(tokens(1, 4), 640, first), (tokens(20, 5), 0, third), (tokens(300, 6), 290, second)],
        [(tokens(1, 7), 641, first), (tokens(1, 8), 20, third), (tokens(1, 9), 590, second)],
        [(tokens(130, 10), 642, first)],
    ]
    steps = [batch(parts, block_size=block_size) for parts in rounds]
    sizes = {"context": 800, "rows": 512, "blocks": 3 * count, "block_size": block_size}
    check(run_both(backend, plan, steps, kv_type=kv_type, **sizes), BOUNDS[kv_type])


@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_groups_that_do_not_divide_a_head_are_refused(backend: Backend, kv_type: str) -> None:
    plan = plan_of(attention, head_size=80)
    message = (
        f"layer 0: a cache of type '{kv_type}' needs a head size that is a multiple of 32, this one is 80; use f16$"
    )
    with pytest.raises(UnsupportedError, match=message):
        backend.load(plan, random_weights(plan), limits(kv_type=kv_type))


def test_unknown_types_are_refused(backend: Backend) -> None:
    plan = plan_of(attention)
    with pytest.raises(UnsupportedError, match=r"'q3' is not supported; there are: f32, f16, bf16, q8_0, q4_0$"):
        backend.load(plan, random_weights(plan), limits(kv_type="q3"))
