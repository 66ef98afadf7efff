"""Adapters in a batch: each row by its own, whatever the company."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_models.graph import Adapters
from edgert_models.registry import build_plan
from edgert_runtimes.base import Batch, Float32
from edgert_runtimes.conformance.tiny import batch, limits, normalized_error, random_weights, tiny_spec

from tests.support.backends import CUDA_ON_HOST, GPUS, open_backend

RANKS = {
    "blk.0.attn_q.weight": 4,
    "blk.0.attn_output.weight": 3,
    "blk.1.attn_v.weight": 17,
    "blk.1.ffn_gate_inp.weight": 2,
    "output.weight": 5,
}
PLAN = build_plan(tiny_spec(tied=False), adapters=Adapters(3, RANKS))
BASE = build_plan(tiny_spec(tied=False))
WEIGHTS = random_weights(PLAN, 5)


def together(*adapters: int) -> Batch:
    """A prompt of nine rows for each of these adapters, with the last two rows picked."""
    made = batch([(range(9), 0, [i]) for i in range(len(adapters))])
    picked = np.array([9 * i + row for i in range(len(adapters)) for row in (7, 8)], np.int32)
    return replace(made, adapters=np.array(adapters, np.int32), pick=picked)


def logits(backend: str, step: Batch, plan: object = PLAN) -> Float32:
    session = open_backend(backend).load(plan, WEIGHTS, limits())  # type: ignore[arg-type]
    try:
        return session.step(step)
    finally:
        session.close()


def test_rows_of_several_adapters_share_a_step() -> None:
    step = together(1, -1, 2, 1)
    found, wanted = logits("cpu", step), logits("reference", step)
    assert normalized_error(found, wanted) < 1e-7
    pairs = found.reshape(4, 2, -1)
    assert np.array_equal(pairs[0], pairs[3])
    for index, adapter in enumerate((1, -1, 2)):
        assert np.array_equal(pairs[index], logits("cpu", together(adapter)))
    assert np.abs(pairs[0] - pairs[2]).max() > 0.1
    # Who has none gets what the model alone gives, to the bit.
    plain = logits("cpu", replace(together(-1), adapters=np.empty(0, np.int32)), BASE)
    assert np.array_equal(pairs[1], plain)
    assert np.array_equal(logits("cpu", replace(together(-1), adapters=np.empty(0, np.int32))), plain)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_adapters_that_are_not_there(backend: str) -> None:
    for adapters in ([3], [-2], [0, 0]):
        with pytest.raises(RequestError, match=r"adapters are .*; there are 3"):
            logits(backend, replace(together(0), adapters=np.array(adapters, np.int32)))


@pytest.mark.parametrize("backend", [*GPUS, CUDA_ON_HOST])
def test_other_backends_serve_them(backend: str) -> None:
    step = together(1, -1, 2)
    assert normalized_error(logits(backend, step), logits("reference", step)) < 1e-7
    one = batch([([5], 0, [0]), ([6], 0, [1])])
    for adapters in ([2, 0], [-1, -1]):  # decoding steps, which are compiled, or graphs
        decoding = replace(one, adapters=np.array(adapters, np.int32))
        assert normalized_error(logits(backend, decoding), logits("reference", decoding)) < 1e-7
    order = np.array([1, 0], np.int32)
    turned = replace(one, adapters=np.array([2, 0], np.int32), pick=order)
    assert normalized_error(logits(backend, turned), logits("reference", turned)) < 1e-7
    with pytest.raises(RequestError, match=r"adapters are .*; there are 3"):
        logits(backend, replace(one, adapters=np.array([3, 0], np.int32)))
