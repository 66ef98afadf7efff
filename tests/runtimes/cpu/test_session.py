"""Loading, limits, errors, threads and memory of a session."""

import gc
import multiprocessing
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import BackendError, MemoryBudgetError, RequestError
from edgert_models.graph import Graph, Plan, Role
from edgert_models.registry import build_plan
from edgert_models.router import Router
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Batch
from edgert_runtimes.conformance.tiny import batch, limits, normalized_error, random_weights, tiny_spec, type_of_role
from edgert_runtimes.cpu.backend import CpuBackend, CpuSession
from edgert_runtimes.reference.backend import ReferenceBackend
from edgert_runtimes.weights import MemoryWeights

from tests.support.callers import results_from_threads
from tests.support.packed import random_rows

PLAN = build_plan(tiny_spec())
WEIGHTS = random_weights(PLAN, 1)
PROMPT = [1, 2, 3, 4, 5, 6, 7]


@pytest.fixture
def session() -> Iterator[CpuSession]:
    loaded = CpuBackend().load(PLAN, WEIGHTS, limits())
    yield loaded
    loaded.close()


def one(tokens: list[int] = PROMPT) -> Batch:
    return batch([(tokens, 0, range(16))])


@pytest.mark.parametrize("architecture", ["llama", "olmoe", "qwen3moe"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("block_type", [BlockType.F32, BlockType.BF16, BlockType.Q8_0])
def test_whole_models_agree_with_the_reference(architecture: str, tied: bool, block_type: BlockType) -> None:
    plan = build_plan(tiny_spec(architecture, tied=tied))
    weights = random_weights(plan, 2, type_of_role(block_type))
    ours, reference = (each.load(plan, weights, limits()) for each in (CpuBackend(), ReferenceBackend()))
    for step in (one(), batch([([8], 7, range(16)), (PROMPT, 0, range(20, 36))])):
        bound = 1e-9 if block_type is not BlockType.Q8_0 else 1e-7
        assert normalized_error(ours.step(step), reference.step(step)) < bound
        assert normalized_error(ours.step(step, hidden=True), reference.step(step, hidden=True)) < bound
    ours.close()


@pytest.mark.parametrize("block_size", [1, 5, 16, 20, 32])
@pytest.mark.parametrize("kv_type", ["f16", "f32"])
@pytest.mark.parametrize("window", [None, 9])
def test_any_block_size(block_size: int, kv_type: str, window: int | None) -> None:
    plan = build_plan(tiny_spec(window=window))
    weights = random_weights(plan, 2)
    sizes = limits(block_size=block_size, kv_type=kv_type, context=40, blocks=100)
    ours, reference = (each.load(plan, weights, sizes) for each in (CpuBackend(), ReferenceBackend()))
    first, second = list(range(50, 50 + 40 // block_size + 1)), list(range(40 // block_size, -1, -1))
    steps = [
        batch([(list(range(33)), 0, first), (PROMPT, 0, second)], block_size=block_size),
        batch([([40], 33, first), (PROMPT, 7, second)], block_size=block_size),
    ]
    for step in steps:
        assert normalized_error(ours.step(step), reference.step(step)) < (1e-9 if kv_type == "f32" else 1e-6)
    ours.close()


def test_types_without_a_kernel_are_expanded() -> None:
    plan = build_plan(tiny_spec(width=256, head_size=64, expert_feed_forward=256))
    weights = random_weights(plan, 1, type_of_role(BlockType.Q8_0))
    rng = np.random.default_rng(0)
    tensors = {name: (stored.type, stored.shape, weights.read(name)) for name, stored in weights.weights.items()}
    odd = BlockType.F64
    for name in ("token_embd.weight", "output.weight", "blk.0.ffn_down_exps.weight"):
        shape = tensors[name][1]
        rows = int(np.prod(shape[:-1]))
        tensors[name] = (odd, shape, rng.normal(0, 0.1, (rows, shape[-1])).view(np.uint8))
    given = MemoryWeights(tensors)
    ours, reference = (each.load(plan, given, limits()) for each in (CpuBackend(), ReferenceBackend()))
    assert normalized_error(ours.step(one()), reference.step(one())) < 1e-7
    notes = {weight.name: weight.note for weight in ours.report.weights if weight.note}
    assert set(notes) == {"token_embd.weight", "output.weight", "blk.0.ffn_down_exps.weight"}
    assert notes["output.weight"] == "F64 has no kernel: kept as F32, 0.5 times its size"
    ours.close()


@pytest.mark.parametrize("block_type", [BlockType.IQ4_NL, BlockType.IQ2_XXS])
def test_types_that_convert_does_not_write(block_type: BlockType) -> None:
    plan = build_plan(tiny_spec(width=256, head_size=64, expert_feed_forward=256))
    weights = random_weights(plan, 1, type_of_role(BlockType.Q8_0))
    tensors = {name: (stored.type, stored.shape, weights.read(name)) for name, stored in weights.weights.items()}
    for name in ("token_embd.weight", "output.weight", "blk.0.ffn_down_exps.weight"):
        shape = tensors[name][1]
        raw = random_rows(block_type, int(np.prod(shape[:-1])), shape[-1])
        tensors[name] = (block_type, shape, raw)
    given = MemoryWeights(tensors)
    ours, reference = (each.load(plan, given, limits()) for each in (CpuBackend(), ReferenceBackend()))
    assert normalized_error(ours.step(one()), reference.step(one())) < 5e-4
    assert not any(weight.note for weight in ours.report.weights)
    assert {weight.layout for weight in ours.report.weights} >= {f"{block_type.name}, mapped"}
    ours.close()


def test_report(session: CpuSession) -> None:
    report = session.report
    assert (report.backend, report.threads) == ("cpu", 2)
    assert {weight.name for weight in report.weights} == set(PLAN.weights)
    layouts = {weight.name: weight.layout for weight in report.weights}
    assert layouts["token_embd.weight"] == layouts["output.weight"] == "F32, mapped"
    assert layouts["output_norm.weight"] == "float32"
    assert report.mapped_bytes == sum(weight.bytes for weight in report.weights if weight.layout != "float32")
    assert report.cache_bytes == 2 * 2 * 64 * 16 * 32 * 4
    assert report.weight_bytes >= sum(4 * int(np.prod(weight.shape)) for weight in PLAN.weights.values())


def test_a_session_that_does_not_fit_is_refused_before_it_takes_memory() -> None:
    with pytest.raises(MemoryBudgetError, match=r"the model needs .* of memory \(weights .*0\.1 MiB are available"):
        CpuBackend().load(PLAN, WEIGHTS, limits(memory=100 << 10))
    with pytest.raises(MemoryBudgetError) as caught:
        CpuBackend().load(PLAN, WEIGHTS, limits(blocks=1 << 40))
    assert caught.value.needed > 1 << 40
    assert 0 < caught.value.available < 1 << 50


@pytest.mark.parametrize("changes", [{"threads": 0}, {"rows": 0}, {"block_size": 0}, {"threads": 5000}])
def test_limits_are_checked(changes: dict[str, int]) -> None:
    (name,) = changes
    with pytest.raises(RequestError, match=f"{name} is {changes[name]}"):
        CpuBackend().load(PLAN, WEIGHTS, limits(**changes))


def changed(field: str, index: int | tuple[int, int], value: int) -> Batch:
    good = batch([(PROMPT, 0, range(16)), ([9], 20, range(16, 32))])
    arrays = {name: getattr(good, name).copy() for name in Batch.__slots__}
    arrays[field][index] = value
    return Batch(**arrays)


@pytest.mark.parametrize(
    ("field", "index", "value"),
    [
        ("tokens", 3, 96),
        ("tokens", 0, -1),
        ("positions", 2, 256),
        ("positions", 2, -1),
        ("sequence", 7, 2),
        ("slots", 7, 64 * 16),
        ("slots", 1, -1),
        ("tables", (1, 0), 64),
        ("tables", (1, 1), -1),
        ("pick", 4, 8),
    ],
)
def test_what_is_out_of_range_is_refused(
    session: CpuSession, field: str, index: int | tuple[int, int], value: int
) -> None:
    with pytest.raises(RequestError, match=rf"{field}\[\d\] is out of range"):
        session.step(changed(field, index, value))
    assert np.isfinite(session.step(one())).all()


def test_blocks_beyond_a_sequence_are_not_looked_at(session: CpuSession) -> None:
    assert np.isfinite(session.step(changed("tables", (1, 2), 1 << 30))).all()


def test_too_many_rows_are_refused() -> None:
    small = CpuBackend().load(PLAN, WEIGHTS, limits(rows=4))
    with pytest.raises(RequestError, match="the batch has 7 rows, the session takes 4"):
        small.step(one())
    small.close()
    with pytest.raises(BackendError, match="the session is closed"):
        small.step(one())
    small.close()


def test_blocks_that_do_not_exist_are_not_copied(session: CpuSession) -> None:
    with pytest.raises(RequestError, match="the cache has blocks 0 to 63"):
        session.copy_blocks([(0, 1), (1, 64)])


@pytest.mark.parametrize("name", ["blk.1.ffn_gate_inp.weight", "blk.1.exp_probs_b.bias"])
def test_so_are_sigmoids_and_biases_without_numbers(name: str) -> None:
    plan = build_plan(tiny_spec(router=Router(scoring="sigmoid", epsilon=1e-20, bias=True)))
    weights = random_weights(plan, 1)
    tensors = {key: (s.type, s.shape, weights.read(key)) for key, s in weights.weights.items()}
    stored, shape, data = tensors[name]
    poisoned = data.copy().view(np.float32)
    poisoned[..., 5] = np.nan
    tensors[name] = (stored, shape, poisoned.view(np.uint8))
    damaged = CpuBackend().load(plan, MemoryWeights(tensors), limits())
    with pytest.raises(BackendError, match=r"the router before blk\.1\.ffn_gate_exps\.weight gave NaN"):
        damaged.step(one())
    damaged.close()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_router_without_numbers_is_an_error_that_names_the_layer(poison: float, threads: int) -> None:
    tensors = {name: (s.type, s.shape, WEIGHTS.read(name)) for name, s in WEIGHTS.weights.items()}
    router = tensors["blk.1.ffn_gate_inp.weight"][2].copy().view(np.float32)
    router[3, 5] = poison
    stored, shape, _ = tensors["blk.1.ffn_gate_inp.weight"]
    tensors["blk.1.ffn_gate_inp.weight"] = (stored, shape, router.view(np.uint8))
    damaged = CpuBackend().load(PLAN, MemoryWeights(tensors), limits(threads=threads))
    for _ in range(3):
        with pytest.raises(BackendError, match=r"the router before blk\.1\.ffn_gate_exps\.weight gave NaN"):
            damaged.step(one())
    damaged.close()


def test_experts_are_unique_and_in_range_for_equal_and_infinite_logits() -> None:
    """Ties go to the lower index; logits of minus infinity still choose each expert once."""
    graph = Graph(tiny_spec(experts=8, experts_used=8))
    x = graph.embed()
    logits = graph.linear(x, "router", 8, role=Role.ROUTER)
    result = graph.pick_rows(graph.moe(x, logits, "blk.0"))
    plan = graph.plan(result, result)
    weights = random_weights(plan, 1)
    tensors = {name: (s.type, s.shape, weights.read(name)) for name, s in weights.weights.items()}
    router = np.zeros((8, 64), np.float32)
    tensors["router.weight"] = (BlockType.F32, (8, 64), router.view(np.uint8))
    ours, reference = (each.load(plan, MemoryWeights(tensors), limits()) for each in (CpuBackend(), ReferenceBackend()))
    assert normalized_error(ours.step(one()), reference.step(one())) < 1e-7
    ours.close()


def test_calls_from_several_threads_wait_for_each_other(session: CpuSession) -> None:
    expected = session.step(one()).tobytes()
    results = results_from_threads(lambda: session.step(one()).tobytes(), 50)
    assert results == [expected] * 200


def _step_in_child(session: CpuSession, queue: "multiprocessing.Queue[str]") -> None:
    try:
        session.step(one())
        queue.put("ran")
    except BackendError as error:
        queue.put(str(error))
    session.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_told_so(session: CpuSession) -> None:
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[str] = context.Queue()
    child = context.Process(target=_step_in_child, args=(session, queue))
    child.start()
    assert "loaded before the process forked" in queue.get(timeout=20)
    child.join(20)
    assert child.exitcode == 0
    assert np.isfinite(session.step(one())).all()


def _resident() -> int:
    if Path("/proc/self/statm").exists():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_loading_a_hundred_times_leaves_memory_and_threads_as_they_were() -> None:
    def cycle(count: int) -> None:
        for _ in range(count):
            loaded = CpuBackend().load(PLAN, WEIGHTS, limits())
            loaded.step(one())
            loaded.close()

    cycle(10)
    gc.collect()
    memory, threads = _resident(), threading.active_count()
    cycle(100)
    gc.collect()
    assert threading.active_count() == threads
    assert _resident() - memory < 4 << 20


def test_a_forgotten_session_ends_its_threads() -> None:
    threads = threading.active_count()
    forgotten = CpuBackend().load(PLAN, WEIGHTS, limits())
    forgotten.step(one())
    del forgotten
    gc.collect()
    assert threading.active_count() == threads


def test_progress_and_warmup() -> None:
    told: list[tuple[str, int, int]] = []
    CpuBackend().load(PLAN, WEIGHTS, limits(), lambda *event: told.append(event)).close()
    loads = [event for event in told if event[0] == "load"]
    stored = sum(WEIGHTS.read(name).nbytes for name in PLAN.weights)
    assert loads[-1] == ("load", stored, stored)
    CpuBackend().warmup()
    assert CpuBackend().warmup() == 0


def test_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = CpuBackend().probe()
    assert probe.available
    assert {"cpu", "instruction_set", "features", "cores"} <= set(probe.details)
    monkeypatch.setenv("EDGERT_CPU", "portable")
    assert CpuBackend().probe().details["instruction_set"] == "portable"
    monkeypatch.setenv("EDGERT_CPU", "abacus")
    assert not CpuBackend().probe().available


def test_the_portable_kernels_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    plan: Plan = build_plan(tiny_spec(width=256, head_size=64, expert_feed_forward=256))
    weights = random_weights(plan, 1, type_of_role(BlockType.Q4_K))
    found = []
    for name in ("", "portable"):
        monkeypatch.setenv("EDGERT_CPU", name)
        loaded = CpuBackend().load(plan, weights, limits())
        found.append(loaded.step(one()))
        assert loaded.report.instruction_set == (name or loaded.report.instruction_set)
        loaded.close()
    assert normalized_error(*found) < 1e-9
