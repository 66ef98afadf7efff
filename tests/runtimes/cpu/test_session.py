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
from edgert_models.errors import BackendError, RequestError
from edgert_models.graph import Plan
from edgert_models.registry import build_plan
from edgert_models.router import Router
from edgert_quant.blocks import BlockType
from edgert_runtimes.conformance.tiny import limits, normalized_error, random_weights, tiny_spec, type_of_role
from edgert_runtimes.cpu.backend import CpuBackend, CpuSession
from edgert_runtimes.reference.backend import ReferenceBackend
from edgert_runtimes.weights import MemoryWeights

from tests.support.packed import random_rows
from tests.support.sessions import PLAN, WEIGHTS, one


@pytest.fixture
def session() -> Iterator[CpuSession]:
    loaded = CpuBackend().load(PLAN, WEIGHTS, limits())
    yield loaded
    loaded.close()


def test_types_without_a_kernel_are_expanded() -> None:
    plan = build_plan(tiny_spec(width=256, head_size=64, expert_feed_forward=256))
    weights = random_weights(plan, 1)
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


@pytest.mark.parametrize("name", ["blk.1.ffn_gate_inp.weight", "blk.1.exp_probs_b.bias"])
def test_so_are_sigmoids_and_biases_without_numbers(name: str) -> None:
    plan = build_plan(tiny_spec(router=Router(scoring="sigmoid", epsilon=1e-20, bias=True)))
    weights = random_weights(plan, 1)
    tensors = {key: (s.type, s.shape, weights.read(key)) for key, s in weights.weights.items()}
    stored, shape, data = tensors[name]
    poisoned = data.copy().view(np.float32)
    poisoned[..., 5] = np.nan
    tensors[name] = (stored, shape, poisoned.view(np.uint8))
    damaged = CpuBackend().load(plan, MemoryWeights(tensors), limits(threads=1))
    with pytest.raises(BackendError, match=r"the router before blk\.1\.ffn_gate_exps\.weight gave NaN"):
        damaged.step(one())
    damaged.close()


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


def test_more_threads_than_can_be_used() -> None:
    with pytest.raises(RequestError, match="threads is 5000; 1 to 1024 can be used"):
        CpuBackend().load(PLAN, WEIGHTS, limits(threads=5000))


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
