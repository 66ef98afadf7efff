"""Gates and sinks far from zero, where an error relative to the whole result says little."""

import numpy as np
import pytest
from edgert_runtimes.base import Backend
from edgert_runtimes.conformance import CASES
from edgert_runtimes.conformance.attention import attention
from edgert_runtimes.conformance.cases import one_sequence, plan_of, run, with_values
from edgert_runtimes.conformance.tiny import random_weights
from edgert_runtimes.reference.backend import ReferenceBackend


@pytest.mark.parametrize("logit", [-1e4, -90.0, 90.0, 1e4])
def test_a_gate_for_whole_rows(backend: Backend, logit: float) -> None:
    plan = plan_of(lambda g, x: g.gated(g.dot(g.rms_norm(x, "ones.weight"), "vector.weight"), x, "sigmoid"))
    values = {
        "token_embd.weight": np.full((96, 64), 0.5),
        "ones.weight": np.ones(64),
        "vector.weight": np.full((1, 64), logit / 64),  # as other programs store it
    }
    weights = with_values(random_weights(plan, 3), values)
    (ours,), _ = run(backend, plan, [one_sequence(3)], weights)
    (reference,), _ = run(ReferenceBackend(), plan, [one_sequence(3)], weights)
    np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize(("low", "takes"), [(-1e30, False), (-3, True), (20, True)])
def test_what_the_cases_of_sinks_take(low: float, takes: bool) -> None:
    (case,) = (case for case in CASES if case.name.startswith(f"sinks from {low:g}"))
    with_sinks, without = (plan_of(wire, **case.spec) for wire in (case.wire, attention))
    (some,), _ = run(ReferenceBackend(), with_sinks, case.steps, case.weights(with_sinks))
    (whole,), _ = run(ReferenceBackend(), without, case.steps, random_weights(without, 3))
    ratio = np.linalg.norm(some) / np.linalg.norm(whole)
    assert ratio < 0.99 if takes else ratio == pytest.approx(1, abs=1e-6)
