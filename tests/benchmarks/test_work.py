"""Bytes and operations of trials, against sums made by hand."""

import numpy as np
import pytest
from edgert_models import build_plan
from edgert_models.graph import Plan, Role
from edgert_runtimes.conformance.tiny import random_weights, tiny_spec

from benchmarks.work import Work, work
from edgert.measure import Phase, Trial


def matrices(plan: Plan, *roles: Role) -> dict[str, int]:
    return {name: int(np.prod(weight.shape)) for name, weight in plan.weights.items() if weight.role in roles}


def test_decode_reads_every_weight_once() -> None:
    plan = build_plan(tiny_spec("llama"))
    elements = sum(matrices(plan, Role.MATRIX).values())
    found = work(plan, random_weights(plan), Trial(phase=Phase.DECODE, tokens=1, depth=9))
    spec = plan.spec
    assert found.bytes == 4 * elements + 10 * 2 * spec.kv_width * 2 * spec.layers
    assert found.operations == 2 * elements + 10 * 4 * spec.query_width * spec.layers
    several = work(plan, random_weights(plan), Trial(phase=Phase.DECODE, tokens=1, depth=9, batch=3))
    assert several.operations == 3 * found.operations
    assert several.bytes == found.bytes + 2 * 10 * 2 * spec.kv_width * 2 * spec.layers


def test_prefill_wants_the_output_of_its_last_row_only() -> None:
    plan = build_plan(tiny_spec("llama"))
    sizes = matrices(plan, Role.MATRIX)
    output = sizes.pop("output.weight")
    found = work(plan, random_weights(plan), Trial(phase=Phase.PREFILL, tokens=6))
    attended = 21 * 4 * plan.spec.query_width * plan.spec.layers
    assert found.operations == 2 * (6 * sum(sizes.values()) + output) + attended
    assert work(plan, random_weights(plan), Trial(phase=Phase.FIRST_TOKEN, tokens=6)) == found


def test_experts_are_read_as_far_as_rows_choose_them() -> None:
    plan = build_plan(tiny_spec("qwen3moe"))
    spec = plan.spec

    def trial(batch: int) -> Work:
        return work(plan, random_weights(plan), Trial(phase=Phase.DECODE, tokens=1, batch=batch))

    experts = 4 * sum(matrices(plan, Role.EXPERTS).values())
    cache = 2 * spec.kv_width * 2 * spec.layers
    others = trial(1).bytes - experts * spec.experts_used / spec.experts - cache
    for batch in (2, 50):
        missed = (1 - spec.experts_used / spec.experts) ** batch
        assert trial(batch).bytes == pytest.approx(others + experts * (1 - missed) + batch * cache)
