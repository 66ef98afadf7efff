"""A profile accounts for every byte and product of a step; an interrupted step ends with an error."""

import threading

import numpy as np
import pytest
from edgert_models.errors import CancelledError
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_runtimes.conformance.tiny import batch, limits, random_weights, tiny_spec, type_of_role
from edgert_runtimes.cpu.backend import CpuBackend

ROWS = 12


def test_bytes_and_operations_are_those_of_the_model() -> None:
    spec = tiny_spec("llama")
    plan = build_plan(spec)
    session = CpuBackend().load(plan, random_weights(plan, 1, type_of_role(BlockType.F32)), limits(kv_type="f32"))
    one = batch([(list(range(ROWS)), 0, range(16))], pick=[ROWS - 1])
    session.step(one)
    session.profile(True)
    session.step(one)
    session.step(one)
    times = session.profile(False)
    session.step(one)
    session.close()
    matrices = [w for w in plan.weights.values() if len(w.shape) == 2 and w.name != "token_embd.weight"]
    panels = sum(-(-w.shape[0] // 16) * 16 * w.shape[1] * 4 for w in matrices)
    cache = ROWS * 2 * spec.kv_width * 4 * spec.layers
    assert sum(item.bytes for item in times) == 2 * (panels + cache)
    products = sum(int(np.prod(w.shape)) * (1 if w.name == "output.weight" else ROWS) for w in matrices)
    attended = ROWS * (ROWS + 1) // 2 * 2 * spec.query_width * spec.layers
    assert sum(item.operations for item in times) == 2 * 2 * (products + attended)
    assert [item.seconds for item in times] == sorted((item.seconds for item in times), reverse=True)
    assert all(item.calls % 2 == 0 for item in times)


def test_experts_count_where_they_are_chosen() -> None:
    spec = tiny_spec("qwen3moe")
    plan = build_plan(spec)
    session = CpuBackend().load(plan, random_weights(plan, 1), limits())
    session.profile(True)
    session.step(batch([([5], 0, range(16))]))
    times = {item.name.split()[0]: item for item in session.profile(False)}
    session.close()
    weights = plan.weights["blk.0.ffn_down_exps.weight"]
    assert (
        times["moe.outward"].bytes == spec.layers * int(np.prod(weights.shape)) * 4 // spec.experts * spec.experts_used
    )


def test_nothing_is_measured_unasked() -> None:
    plan = build_plan(tiny_spec())
    session = CpuBackend().load(plan, random_weights(plan, 1), limits())
    session.step(batch([([5], 0, range(16))]))
    assert session.profile(False) == []
    session.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupted_step_ends_and_the_next_is_whole(threads: int) -> None:
    plan = build_plan(tiny_spec())
    session = CpuBackend().load(plan, random_weights(plan, 1), limits(threads=threads))
    one = batch([(list(range(ROWS)), 0, range(16))])
    expected = session.step(one)
    session.interrupt()  # between steps: nothing to end
    assert (session.step(one) == expected).all()
    done = threading.Event()

    def interrupt() -> None:
        while not done.is_set():
            session.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()

    def step_often() -> None:
        for _ in range(100_000):
            session.step(one)

    try:
        with pytest.raises(CancelledError, match="interrupted"):
            step_often()
    finally:
        done.set()
        thread.join()
    assert (session.step(one) == expected).all()
    session.close()
