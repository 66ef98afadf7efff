"""The experts that routers choose are counted, as many as the reference computes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from edgert_models.registry import build_plan
from edgert_runtimes.conformance.tiny import batch, limits, random_weights, tiny_spec
from edgert_runtimes.cpu.backend import CpuBackend
from edgert_runtimes.experts import CountingSession, mixtures_of
from edgert_runtimes.reference.backend import ReferenceBackend
from edgert_runtimes.reference.ops import Weights

STEPS = [batch([(list(range(1, 30)), 0, range(16)), ([5, 6, 7], 0, range(20, 36))]), batch([([8], 29, range(16))])]


@pytest.mark.parametrize("threads", [1, 2])
def test_load_is_what_the_reference_computes(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = build_plan(tiny_spec())
    weights = random_weights(plan, 1)
    computed: Counter[tuple[str, int]] = Counter()
    compute = Weights.expert

    def counted(self: Weights, x: np.ndarray, name: str, bias: str | None, expert: int, out: int) -> np.ndarray:
        computed[name, expert] += len(x)
        return compute(self, x, name, bias, expert, out)

    monkeypatch.setattr(Weights, "expert", counted)
    ours, reference = (each.load(plan, weights, limits(threads=threads)) for each in (CpuBackend(), ReferenceBackend()))
    assert isinstance(ours, CountingSession)
    mixtures = mixtures_of(plan).values()
    for step in STEPS:
        ours.step(step)
        reference.step(step)
        expected = [[computed[op.gate, expert] for expert in range(op.experts)] for op in mixtures]
        assert ours.expert_load().tolist() == expected
    assert len({tuple(row) for row in expected}) > 1
    ours.close()
    assert ours.expert_load().tolist() == expected


def test_a_dense_model_has_no_load() -> None:
    plan = build_plan(tiny_spec("llama"))
    session = CpuBackend().load(plan, random_weights(plan, 1), limits())
    session.step(STEPS[0])
    assert session.expert_load().shape == (0, 0)
    session.close()
