"""Layers with a window compute the same in blocks of their own, whatever is in those that nobody sees."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from edgert_models.graph import Graph, Plan
from edgert_models.ops import Value
from edgert_runtimes.base import AheadSession, Batch, Draw, Drawn, Float32, Session, StoringSession
from edgert_runtimes.batches import first_seen_at
from edgert_runtimes.conformance.cases import plan_of as with_outputs
from edgert_runtimes.conformance.cases import tokens
from edgert_runtimes.conformance.tiny import batch, in_rings, limits, normalized_error, random_weights

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


def run(session: Session, plan: Plan, steps: Sequence[Batch], *, poison: bool = False) -> list[Float32]:
    """What the steps give; those of decoding begin the next one ahead, with tokens that are others."""
    found = []
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if poison:
            assert isinstance(session, StoringSession)
            _poison(session, plan, step)
        if following and len(following.tokens) == len(step.pick) and isinstance(session, AheadSession):
            out = session.step_ahead(step, [Draw()] * len(step.pick), following)
            found.append(out.logits.copy() if isinstance(out, Drawn) else out)
        else:
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
        for found, expected in zip(run(session, plan, steps, poison=poison), wanted, strict=True):
            assert normalized_error(found, expected) < 1e-9 if name == "mlx" else np.array_equal(found, expected)


@pytest.mark.parametrize("name", ["reference", *BACKENDS])
def test_the_cache_is_as_large_as_its_blocks(name: str) -> None:
    plan, backend = plan_of("every second layer"), open_backend(name)

    def cache_bytes(blocks: int, window_blocks: int) -> int:
        own = limits(blocks=blocks, window_blocks=window_blocks, kv_type="f32", states=0)
        session = backend.load(plan, random_weights(plan), own)
        session.close()
        return session.report.cache_bytes

    block, more = 2 * 16 * 4 * plan.caches[0].key_width, 2 if backend.name == "cuda" else 0  # for rows that only pad
    assert cache_bytes(64, 0) == (2 * 64 + more) * block
    assert cache_bytes(64, 5) == (64 + 5 + more) * block
    assert cache_bytes(640, 5) == (640 + 5 + more) * block


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
