"""What every backend's session does: whole models, blocks of any size, limits, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import BackendError, FileFormatError, MemoryBudgetError, RequestError
from edgert_models.graph import Graph, Role
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Backend, Batch, Session
from edgert_runtimes.conformance.tiny import batch, limits, normalized_error, random_weights, tiny_spec, type_of_role
from edgert_runtimes.reference.backend import ReferenceBackend

from tests.support.backends import BACKENDS, open_backend
from tests.support.callers import results_from_threads
from tests.support.sessions import PLAN, PROMPT, WEIGHTS, changed_weights, one


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return open_backend(request.param)


@pytest.fixture
def session(backend: Backend) -> Iterator[Session]:
    loaded = backend.load(PLAN, WEIGHTS, limits())
    yield loaded
    loaded.close()


@pytest.mark.parametrize(
    ("architecture", "tied", "block_type"),
    [
        ("llama", True, BlockType.F32),
        ("olmoe", False, BlockType.BF16),
        ("qwen3moe", True, BlockType.F32),
        ("gpt-oss", False, BlockType.F32),
    ],
)
def test_whole_models_agree_with_the_reference(
    backend: Backend, architecture: str, tied: bool, block_type: BlockType
) -> None:
    plan = build_plan(tiny_spec(architecture, tied=tied))
    weights = random_weights(plan, 2, type_of_role(block_type))
    ours, reference = (each.load(plan, weights, limits()) for each in (backend, ReferenceBackend()))
    several = batch([([8], 7, range(16)), (list(range(30)), 0, range(20, 36))], pick=[30, 0, 3])
    nothing = batch([([9], 8, range(16))], pick=[])
    decode = batch([([9], 9, range(16)), ([8], 30, range(20, 36)), ([4], 0, range(40, 41))])
    for step in (one(), several, nothing, decode):
        for hidden in (False, True):
            found, wanted = (each.step(step, hidden=hidden) for each in (ours, reference))
            assert found.shape == wanted.shape
            assert normalized_error(found, wanted) < 1e-9
    ours.close()


@pytest.mark.parametrize(
    ("block_size", "kv_type", "window"),
    [(1, "f32", 9), (5, "f16", None), (16, "f16", 9), (20, "f32", None), (32, "f32", 9)],
)
def test_any_block_size(backend: Backend, block_size: int, kv_type: str, window: int | None) -> None:
    plan = build_plan(tiny_spec(window=window))
    weights = random_weights(plan, 2)
    sizes = limits(block_size=block_size, kv_type=kv_type, context=40, blocks=100)
    ours, reference = (each.load(plan, weights, sizes) for each in (backend, ReferenceBackend()))
    first, second = list(range(50, 50 + 40 // block_size + 1)), list(range(40 // block_size, -1, -1))
    steps = [
        batch([(list(range(33)), 0, first), (PROMPT, 0, second)], block_size=block_size),
        batch([([40], 33, first), ([41], 7, second)], block_size=block_size),
        batch([([40], 34, first), (PROMPT, 8, second)], block_size=block_size),
    ]
    for step in steps:
        assert normalized_error(ours.step(step), reference.step(step)) < (1e-9 if kv_type == "f32" else 1e-6)
    ours.close()


def test_blocks_are_copied_in_order(backend: Backend) -> None:
    ours, reference = (each.load(PLAN, WEIGHTS, limits()) for each in (backend, ReferenceBackend()))
    first = batch([(list(range(40)), 0, [0, 1, 2]), (list(range(50, 60)), 0, [3])])
    continued = batch([([5], 40, [9, 10, 11]), ([6], 10, [4])])
    for each in (ours, reference):
        each.step(first)
        each.copy_blocks([(0, 9), (1, 10), (2, 11), (9, 4), (3, 4)])
        for wrong in (64, -1):
            with pytest.raises(RequestError, match=f"^block {wrong}: the cache has blocks 0 to 63$"):
                each.copy_blocks([(0, 1), (1, wrong)])
    assert normalized_error(ours.step(continued), reference.step(continued)) < 1e-9
    ours.close()


def test_a_session_that_does_not_fit_is_refused_before_it_takes_memory(backend: Backend) -> None:
    plan = build_plan(tiny_spec("llama"))
    message = r"^the model needs .*memory \(weights .*, cache .*, workspace .*\), 0\.1 MiB are available; .* less$"
    with pytest.raises(MemoryBudgetError, match=message):
        backend.load(plan, random_weights(plan), limits(memory=100 << 10))
    with pytest.raises(MemoryBudgetError) as caught:
        backend.load(plan, random_weights(plan), limits(blocks=1 << 30))
    assert caught.value.needed > 1 << 40
    assert 0 < caught.value.available < 1 << 50


@pytest.mark.parametrize("name", ["threads", "rows", "block_size"])
def test_limits_are_checked(backend: Backend, name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} is 0"):
        backend.load(PLAN, WEIGHTS, limits(**{name: 0}))


def test_a_missing_tensor_is_named(backend: Backend) -> None:
    name = "blk.1.ffn_down_exps.weight"
    with pytest.raises(FileFormatError, match=f"tensor {name}: the tensor is missing"):
        backend.load(PLAN, changed_weights({name: None}), limits())


def test_what_is_out_of_range_is_refused(session: Session) -> None:
    """`test_batches.py` has all that may be wrong."""
    good = batch([(PROMPT, 0, range(16)), ([9], 20, range(16, 32))])
    for field in ("tokens", "positions", "sequence", "slots", "tables", "pick"):
        arrays: dict[str, Any] = {name: getattr(good, name).copy() for name in Batch.__slots__}
        arrays[field][1] = 1 << 20
        with pytest.raises(RequestError, match=rf"{field}\[1\] is out of range"):
            session.step(Batch(**arrays))
    assert np.isfinite(session.step(one())).all()


def test_too_many_rows_and_closed_sessions_are_refused(backend: Backend) -> None:
    small = backend.load(PLAN, WEIGHTS, limits(rows=4))
    with pytest.raises(RequestError, match="the batch has 7 rows, the session takes 4"):
        small.step(one())
    small.close()
    small.close()
    for use in (lambda: small.step(one()), lambda: small.copy_blocks([(0, 1)]), lambda: small.profile(True)):
        with pytest.raises(BackendError, match="the session is closed"):
            use()


def test_a_router_without_numbers_is_an_error_that_names_the_layer(backend: Backend) -> None:
    refuses_routers(backend, np.nan)


@pytest.mark.parametrize("name", ["cpu", pytest.param("mlx", marks=pytest.mark.mlx)])
def test_so_is_an_infinity_that_makes_a_nan(name: str) -> None:
    """On CUDA none is made: the expert with the infinite logit has all the weight."""
    refuses_routers(open_backend(name), np.inf)


def refuses_routers(backend: Backend, poison: float) -> None:
    name = "blk.1.ffn_gate_inp.weight"
    router = WEIGHTS.read(name).view(np.float32).copy()
    router[3, 5] = poison
    damaged = backend.load(PLAN, changed_weights({name: router}), limits())
    for rows in (1, 40, 40):
        with pytest.raises(BackendError, match=r"the router before blk\.1\.ffn_gate_exps\.weight gave NaN"):
            damaged.step(one([1] * rows))
    damaged.close()


@pytest.mark.parametrize("used", [3, 8])
def test_equal_logits_choose_the_first_experts_each_once(backend: Backend, used: int) -> None:
    graph = Graph(tiny_spec(experts=8, experts_used=used))
    x = graph.embed()
    result = graph.pick_rows(graph.moe(x, graph.linear(x, "router", 8, role=Role.ROUTER), "blk.0"))
    plan = graph.plan(result, result)
    given = changed_weights({"router.weight": np.zeros((8, 64), np.float32)}, random_weights(plan, 1))
    ours, reference = (each.load(plan, given, limits()) for each in (backend, ReferenceBackend()))
    for rows in (1, 40):  # unsorted, and in order of experts
        assert normalized_error(ours.step(one([1] * rows)), reference.step(one([1] * rows))) < 1e-9
    ours.close()


def test_calls_from_several_threads_wait_for_each_other(session: Session) -> None:
    expected = session.step(one()).tobytes()
    results = results_from_threads(lambda: session.step(one()).tobytes(), 10)
    assert results == [expected] * 40
