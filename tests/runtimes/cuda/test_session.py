"""Loading, limits, errors and memory of a session; steps that are begun ahead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import BackendError, CancelledError, MemoryBudgetError
from edgert_models.registry import build_plan
from edgert_models.router import Router
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import AheadSession, Batch, Draw, Drawn
from edgert_runtimes.conformance.cases import plan_of
from edgert_runtimes.conformance.tiny import batch, limits, normalized_error, random_weights, tiny_spec, type_of_role
from edgert_runtimes.cuda.backend import CudaBackend
from edgert_runtimes.cuda.session import CudaSession
from edgert_runtimes.experts import CountingSession, OffloadingSession
from edgert_runtimes.reference.backend import ReferenceBackend
from edgert_runtimes.registry import get_backend
from edgert_runtimes.weights import MemoryWeights

from tests.support.cuda_device import HostCudaBackend, HostDevice
from tests.support.sessions import PLAN, PROMPT, WEIGHTS, one


@pytest.fixture
def session(backend: CudaBackend) -> Iterator[CudaSession]:
    loaded = backend.load(PLAN, WEIGHTS, limits())
    yield loaded
    loaded.close()


def decode(*rows: tuple[int, int], first: int = 0) -> Batch:
    """(token, position) of each sequence; sequence i has the blocks from 16 i on."""
    parts = [
        ([token], position, range(first + 16 * i, first + 16 * (i + 1))) for i, (token, position) in enumerate(rows)
    ]
    return batch(parts)


def test_rows_that_pad_a_batch_touch_no_state(backend: CudaBackend) -> None:
    """Nine sequences take a graph of sixteen rows."""
    plan = plan_of(lambda g, x: g.short_conv(x, "conv", 3))
    weights, own = random_weights(plan, 2), limits(sequences=12, states=12)
    ours, reference = (each.load(plan, weights, own) for each in (backend, ReferenceBackend()))
    for position in range(4):
        step = batch([([9 * position + i], position, range(i, i + 1)) for i in range(9)])
        assert normalized_error(ours.step(step), reference.step(step)) < 1e-9
    ours.close()


def test_experts_are_counted_as_on_the_cpu(backend: CudaBackend) -> None:
    """Nine sequences take a graph of sixteen rows, of which seven are none."""
    own = limits(sequences=12)
    ours, cpu = (each.load(PLAN, WEIGHTS, own) for each in (backend, get_backend("cpu")))
    assert isinstance(ours, CountingSession)
    assert isinstance(cpu, CountingSession)
    for step in (one(), batch([([9 + i], 0, range(i, i + 1)) for i in range(9)])):
        ours.step(step)
        cpu.step(step)
        assert np.array_equal(ours.expert_load(), cpu.expert_load())
    counted = ours.expert_load()
    assert counted.sum(axis=1).tolist() == [(7 + 9) * 2] * len(counted)
    ours.close()
    assert np.array_equal(ours.expert_load(), counted)
    cpu.close()


def test_picked_rows_in_pieces(backend: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the logits of all rows have no room: three at a time."""
    for module in ("placing", "session"):
        monkeypatch.setattr(f"edgert_runtimes.cuda.{module}.most_picked", lambda limits, vocabulary: 3)
    ours, reference = (each.load(PLAN, WEIGHTS, limits()) for each in (backend, ReferenceBackend()))
    step = batch([(list(range(20)), 0, range(16))], pick=[19, 3, 3, 0, 7, 11, 18, 2])
    assert normalized_error(ours.step(step), reference.step(step)) < 1e-9
    assert ours.step(batch([(PROMPT, 0, range(16))], pick=[])).shape == (0, 96)
    ours.close()


def test_types_without_a_kernel_are_expanded(backend: CudaBackend) -> None:
    tensors = {name: (s.type, s.shape, WEIGHTS.read(name)) for name, s in WEIGHTS.weights.items()}
    values = np.random.default_rng(0).normal(0, 0.1, (96, 64))
    tensors["output.weight"] = (BlockType.F64, (96, 64), values.view(np.uint8))
    given = MemoryWeights(tensors)
    ours, reference = (each.load(PLAN, given, limits()) for each in (backend, ReferenceBackend()))
    assert normalized_error(ours.step(one()), reference.step(one())) < 1e-9
    notes = {weight.name: weight.note for weight in ours.report.weights if weight.note}
    assert notes == {"output.weight": "F64 has no kernel: kept as F32, 0.5 times its size"}
    ours.close()


def test_report(session: CudaSession) -> None:
    report = session.report
    assert report.backend == "cuda"
    assert report.instruction_set.startswith("sm_")
    assert {weight.name for weight in report.weights} == set(PLAN.weights)
    assert {weight.layout for weight in report.weights} == {"F32, on the GPU"}
    assert report.mapped_bytes == 0
    assert report.cache_bytes == 2 * 2 * (64 + 1) * 16 * 32 * 4
    assert isinstance(session, AheadSession)
    assert session.expert_use() is None


def test_a_session_that_does_not_fit_is_refused_before_it_takes_memory() -> None:
    backend = HostCudaBackend()
    plan = build_plan(tiny_spec("llama"))
    message = r"^the model needs .* of the GPU's memory \(weights .*, cache .*, workspace .*\), 0\.1 MiB are available;"
    with pytest.raises(MemoryBudgetError, match=message):
        backend.load(plan, random_weights(plan), limits(memory=100 << 10))
    with pytest.raises(MemoryBudgetError) as caught:
        backend.load(plan, random_weights(plan), limits(blocks=1 << 30))
    assert caught.value.needed > 1 << 40
    assert all(device.closed and not device.uploaded for device in backend.devices)


def test_what_no_gpu_can_hold_of_experts_is_refused() -> None:
    message = r"^the model needs .* of the GPU's memory \(weights .*, an expert of each kind .*\), 0\.9 MiB are avail"
    backend = HostCudaBackend(lambda: HostDevice(free=(384 << 20) + (900 << 10)))
    with pytest.raises(MemoryBudgetError, match=message):
        backend.load(PLAN, WEIGHTS, limits(blocks=100))


def test_an_error_of_one_step_is_gone_with_the_next(session: CudaSession) -> None:
    """A NaN comes with the batch: keys that overflow halves would do it; here the flag itself is set."""
    expected = session.step(one())
    failed = session._memory.workspace + session._program.failed
    flags = np.zeros(len(PLAN.ops), np.int32)
    flags[next(i for i, op in enumerate(PLAN.ops) if type(op).__name__ == "Moe")] = 1
    session._device.upload(failed, flags.view(np.uint8))
    with pytest.raises(BackendError, match=r"the router before blk\.0\.ffn_gate_exps\.weight gave NaN"):
        session.step(one())
    np.testing.assert_array_equal(session.step(one()), expected)


def test_interrupting(session: CudaSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without effect between steps; while one runs, it ends."""
    session.interrupt()
    expected = session.step(one())
    device, launch = session._device, session._device.launch

    def interrupting(work: Any) -> None:
        session.interrupt()
        launch(work)

    monkeypatch.setattr(device, "launch", interrupting)
    with pytest.raises(CancelledError, match="the step was interrupted"):
        session.step(one())
    monkeypatch.undo()
    np.testing.assert_array_equal(session.step(one()), expected)


def test_a_profile_accounts_for_bytes_and_products(backend: CudaBackend) -> None:
    spec = tiny_spec("llama")
    plan = build_plan(spec)
    session = backend.load(plan, random_weights(plan, 1), limits())
    step = batch([(list(range(12)), 0, range(16))], pick=[11])
    session.step(step)
    session.profile(True)
    session.step(step)
    session.step(step)
    times = session.profile(False)
    session.step(step)
    matrices = [w for w in plan.weights.values() if len(w.shape) == 2 and w.name != "token_embd.weight"]
    cache = 12 * 2 * spec.kv_width * 4 * spec.layers
    looked_up = 12 * 4 * spec.width
    assert sum(item.bytes for item in times) == 2 * (
        sum(4 * int(np.prod(w.shape)) for w in matrices) + cache + looked_up
    )
    products = sum(int(np.prod(w.shape)) * (1 if w.name == "output.weight" else 12) for w in matrices)
    attended = 12 * 13 // 2 * 2 * spec.query_width * spec.layers
    assert sum(item.operations for item in times) == 2 * 2 * (products + attended)
    assert all(item.calls % 2 == 0 and item.seconds > 0 for item in times)
    assert {"gemm attn_q F32", "attend", "rms_norm", "embed token_embd.weight F32"} <= {item.name for item in times}
    assert session.profile(False) == []
    session.close()


def test_profiled_experts_count_where_they_are_chosen(backend: CudaBackend) -> None:
    session = backend.load(PLAN, WEIGHTS, limits())
    session.profile(True)
    step = one([3, 3, 3])  # all rows choose the same in the first layer at least
    session.step(step)
    times = {item.name: item for item in session.profile(False)}
    op = next(op for op in PLAN.ops if type(op).__name__ == "Moe")
    inward = times["experts_up ffn_gate_exps ffn_up_exps F32"]
    each = 2 * 4 * op.hidden * op.x.width  # type: ignore[attr-defined]
    assert 2 * op.used * each <= inward.bytes <= (op.used + 3 * op.used) * each  # type: ignore[attr-defined]
    session.close()


def greedy(count: int) -> list[Draw]:
    return [Draw()] * count


def test_a_step_begun_ahead_is_the_step(backend: CudaBackend) -> None:
    """Greedy, twice: once asked for step by step, once ahead."""
    plain, ahead = (backend.load(PLAN, WEIGHTS, limits()) for _ in range(2))
    for each in (plain, ahead):
        each.step(batch([(PROMPT, 0, range(16)), (PROMPT[::-1], 0, range(16, 32))]))
    tokens, wanted = [5, 9], []
    for position in range(7, 12):
        logits = plain.step(decode((tokens[0], position), (tokens[1], position)))
        tokens = [int(token) for token in logits.argmax(axis=1)]
        wanted.append(logits)
    tokens = [5, 9]
    for index, position in enumerate(range(7, 12)):
        now = decode((tokens[0], position), (tokens[1], position))
        following = decode((0, position + 1), (0, position + 1))
        before = backend.devices[1].downloaded if isinstance(backend, HostCudaBackend) else 0
        drawn = ahead.step_ahead(now, greedy(2), following)
        assert isinstance(drawn, Drawn)
        tokens = drawn.tokens.tolist()
        assert tokens == wanted[index].argmax(axis=1).tolist()
        if isinstance(
            backend, HostCudaBackend
        ):  # tokens as they were drawn, those that are certain, and failed routers
            assert backend.devices[1].downloaded - before == 2 * 8 + 4 * len(PLAN.ops)
        np.testing.assert_array_equal(drawn.logits, wanted[index])
    if isinstance(backend, HostCudaBackend):
        assert backend.devices[1].replays == 6  # the first, and one ahead of every answer
    for each in (plain, ahead):
        each.close()


@pytest.mark.parametrize("other", ["token", "sequence", "prompt", "hidden"])
def test_a_step_begun_in_vain_changes_nothing(backend: CudaBackend, other: str) -> None:
    ours, reference = (each.load(PLAN, WEIGHTS, limits()) for each in (backend, ReferenceBackend()))
    for each in (ours, reference):
        each.step(one())
    now = decode((4, 7))
    begun = ours.step_ahead(now, greedy(1), decode((0, 8)))
    assert isinstance(begun, Drawn)
    assert normalized_error(begun.logits, reference.step(now)) < 1e-9
    drawn = int(reference.step(now).argmax())
    asked = {
        "token": decode(((drawn + 1) % 96, 8)),
        "sequence": decode((drawn, 8), (3, 0)),
        "prompt": batch([([drawn], 8, range(16)), (PROMPT, 0, range(16, 32))]),
        "hidden": decode((drawn, 8)),
    }[other]
    hidden = other == "hidden"
    assert normalized_error(ours.step(asked, hidden=hidden), reference.step(asked, hidden=hidden)) < 1e-9
    ours.close()


def test_experts_that_do_not_fit_are_computed_all_the_same() -> None:
    """Whatever room the GPU has, from two experts to all of them."""
    plan = build_plan(tiny_spec("gpt-oss", experts=16, experts_used=4))
    weights = random_weights(plan, 3)
    whole = HostCudaBackend().load(plan, weights, limits(rows=32))
    everything = whole.report.weight_bytes + whole.report.cache_bytes + whole.report.workspace_bytes + 65536
    whole.close()
    rng = np.random.default_rng(0)

    def steps() -> Iterator[Batch]:
        yield batch([(rng.integers(0, 96, 20).tolist(), 0, range(16))])
        for i in range(6):
            yield decode((int(rng.integers(96)), 20 + i))
        for i in range(4):
            yield decode((1, 26 + i), (int(rng.integers(96)), i), (int(rng.integers(96)), i))

    residents = []
    for spared in (0, 200_000, 500_000, 680_000):
        backend = HostCudaBackend()
        ours = backend.load(plan, weights, limits(rows=32, memory=everything - spared))
        reference = ReferenceBackend().load(plan, weights, limits(rows=32))
        for step in steps():
            assert normalized_error(ours.step(step), reference.step(step)) < 1e-9
        assert backend.devices[0].held <= everything - spared
        assert isinstance(ours, OffloadingSession)
        use = ours.expert_use()
        assert (use is None) == (spared == 0)
        if use is not None:
            residents.append(use.resident)
            assert use.experts == 32
            assert use.hits > 0
            assert use.fetched + use.on_host > 0
            assert 0 < use.hit_rate < 1
        ours.close()
    assert residents == sorted(residents, reverse=True)
    assert residents[-1] < 7


def test_experts_whose_inputs_are_weighed_are_divided_too() -> None:
    router = Router(scoring="sigmoid", normalize=False, weighs_inputs=True)
    plan = build_plan(tiny_spec("llama4", experts=16, experts_used=4, shared_feed_forward=32, router=router))
    weights = random_weights(plan, 3)
    whole = HostCudaBackend().load(plan, weights, limits(rows=32))
    held = whole.report.weight_bytes + whole.report.cache_bytes + whole.report.workspace_bytes
    whole.close()
    ours = HostCudaBackend().load(plan, weights, limits(rows=32, memory=held - 400_000))
    reference = ReferenceBackend().load(plan, weights, limits(rows=32))
    for step in (batch([(list(range(20)), 0, range(16))]), decode((5, 20)), decode((1, 21), (7, 0))):
        assert normalized_error(ours.step(step), reference.step(step)) < 1e-9
    use = ours.expert_use()
    assert use is not None
    assert use.on_host > 0
    ours.close()


def test_quantized_experts_are_divided_between_gpu_and_host() -> None:
    plan = build_plan(tiny_spec(width=256, head_size=64, expert_feed_forward=256, experts=16, experts_used=4))
    weights = random_weights(plan, 1, type_of_role(BlockType.Q4_K))
    ours = HostCudaBackend().load(plan, weights, limits(memory=8 << 20))
    reference = ReferenceBackend().load(plan, weights, limits())
    for step in (one(), decode((5, 7)), decode((6, 8), (7, 0))):
        assert normalized_error(ours.step(step), reference.step(step)) < 2e-3
    use = ours.expert_use()
    assert use is not None
    assert use.resident < use.experts
    notes = [weight.note for weight in ours.report.weights if weight.note]
    assert notes[0].startswith("experts in the host's memory, the GPU's has ")
    ours.close()


def test_nothing_reads_beside_its_memory_and_all_is_given_back() -> None:
    backend = HostCudaBackend()
    session = backend.load(PLAN, WEIGHTS, limits())
    session.step(one())
    (device,) = backend.devices
    assert device.held > session.report.weight_bytes
    session.close()  # looks at the guards
    assert device.held == 0
