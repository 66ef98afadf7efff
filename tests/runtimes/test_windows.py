"""Layers with a window compute the same in blocks of their own, whatever is in those that nobody sees."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from edgert_models.graph import Graph, Plan
from edgert_models.ops import Value
from edgert_runtimes.base import Batch, Float32, StoringSession
from edgert_runtimes.batches import first_seen_at
from edgert_runtimes.conformance.cases import plan_of as with_outputs
from edgert_runtimes.conformance.cases import tokens
from edgert_runtimes.conformance.tiny import batch, in_rings, limits, random_weights

from tests.support.backends import BACKENDS, open_backend

FIRST, SECOND = range(8), range(8, 16)
STEPS = [
    batch([(tokens(50, 1), 0, FIRST)]),
    batch([(tokens(1, 2), 50, FIRST), (tokens(20, 3), 0, SECOND)]),
    batch([(tokens(3, 4), 51, FIRST), (tokens(40, 5), 20, SECOND)]),
    *(batch([(tokens(1, i), 54 + i, FIRST), (tokens(1, i), 60 + i, SECOND)]) for i in range(12)),
]
LIMITS = {"kv_type": "f16", "context": 128}
KINDS = ("every second layer", "every layer", "chunks")


def plan_of(kind: str) -> Plan:
    """Two layers of attention."""

    def wire(g: Graph, x: Value) -> Value:
        x = attention(g, x, window=17, chunked=kind == "chunks")
        return attention(g, x, window=17 if kind == "every layer" else None)

    def attention(g: Graph, x: Value, *, window: int | None, chunked: bool = False) -> Value:
        q, k, v = (g.linear(x, name, width) for name, width in (("q", 64), ("k", 32), ("v", 32)))
        return g.add(x, g.attend(q, k, v, window=window, chunked=chunked))

    return with_outputs(wire)


def run(session: StoringSession, plan: Plan, steps: Sequence[Batch], *, poison: bool = False) -> list[Float32]:
    found = []
    for step in steps:
        if poison:
            _poison(session, plan, step)
        found.append(session.step(step))
    session.close()
    return found


def _poison(session: StoringSession, plan: Plan, step: Batch) -> None:
    """NaNs wherever a step must not look: only blocks with positions that it sees stay as they are."""
    size, unseen = session.limits.block_size, set(range(session.limits.window_blocks))
    for index, table in enumerate(step.window_tables):
        positions = step.positions[step.sequence == index]
        begin = first_seen_at(int(positions.min()), plan.reach)
        unseen -= set(table[begin // size : int(positions.max()) // size + 1].tolist())
    content = session.read_blocks(sorted(unseen), windows=True)
    session.write_blocks(sorted(unseen), np.full_like(content, 255), windows=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["reference", *BACKENDS])
def test_results_are_the_same(name: str, kind: str) -> None:
    plan, backend = plan_of(kind), open_backend(name)
    weights = random_weights(plan)
    wanted = run(backend.load(plan, weights, limits(**LIMITS)), plan, STEPS)
    small, blocks = in_rings(STEPS, plan.reach)
    roomy = [replace(step, window_slots=step.slots, window_tables=step.tables) for step in STEPS]
    for steps, count, poison in ((small, blocks, False), (roomy, 16, True)):
        session = backend.load(plan, weights, limits(window_blocks=count, **LIMITS))
        assert isinstance(session, StoringSession)
        for found, expected in zip(run(session, plan, steps, poison=poison), wanted, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["reference", *BACKENDS])
def test_the_cache_is_as_large_as_its_blocks(name: str) -> None:
    plan, backend = plan_of("every second layer"), open_backend(name)

    def cache_bytes(blocks: int, window_blocks: int) -> int:
        own = limits(blocks=blocks, window_blocks=window_blocks, kv_type="f32", states=0)
        session = backend.load(plan, random_weights(plan), own)
        session.close()
        return session.report.cache_bytes

    block = 2 * 16 * 4 * plan.caches[0].key_width
    assert cache_bytes(64, 0) == 2 * 64 * block
    assert cache_bytes(64, 5) == (64 + 5) * block
    assert cache_bytes(640, 5) == (640 + 5) * block


@pytest.mark.parametrize("name", ["reference", *BACKENDS])
def test_blocks_are_stored_by_pool(name: str) -> None:
    plan, backend = plan_of("every second layer"), open_backend(name)
    session = backend.load(plan, random_weights(plan), limits(window_blocks=8, **LIMITS))
    assert isinstance(session, StoringSession)
    session.step(in_rings(STEPS[:1], plan.reach)[0][0])
    own, others = session.read_blocks([0, 7], windows=True), session.read_blocks([0, 63])
    assert own.shape == others.shape
    session.copy_blocks([(0, 63)])
    np.testing.assert_array_equal(session.read_blocks([0, 7], windows=True), own)
    np.testing.assert_array_equal(session.read_blocks([63]), others[:1])
    session.write_blocks([7], own[:1], windows=True)
    np.testing.assert_array_equal(session.read_blocks([7], windows=True), own[:1])
    np.testing.assert_array_equal(session.read_blocks([0, 63]), others[[0, 0]])
    session.close()
