"""What a session keeps of sequences, taken out and put into another one: it goes on as the first does, to the bit."""

from dataclasses import replace

import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_models.graph import Plan
from edgert_models.registry import build_plan
from edgert_runtimes.base import StoringSession
from edgert_runtimes.conformance.cases import tokens
from edgert_runtimes.conformance.tiny import batch, limits, random_weights, tiny_spec
from edgert_runtimes.weights import MemoryWeights

from tests.runtimes.test_recurrent import PLAN as RECURRENT
from tests.runtimes.test_recurrent import WEIGHTS as RECURRENT_WEIGHTS
from tests.support.backends import BACKENDS, CUDA_ON_HOST, open_backend

TEXT = tokens(37)


def opened(name: str, plan: Plan, weights: MemoryWeights, kv_type: str) -> StoringSession:
    session = open_backend(name).load(plan, weights, limits(kv_type=kv_type))
    assert isinstance(session, StoringSession)
    return session


@pytest.mark.parametrize(
    ("name", "kv_type"),
    [*((name, "f16") for name in ("reference", "cpu", CUDA_ON_HOST)), ("cpu", "q8_0"), ("mlx", "q8_0")],
)
def test_blocks_of_the_cache(name: str, kv_type: str) -> None:
    plan = build_plan(tiny_spec(head_size=16 if kv_type == "f16" else 32))
    first, second = (opened(name, plan, random_weights(plan), kv_type) for _ in range(2))
    first.step(batch([(TEXT, 0, [5, 0, 9])]))
    expected = first.step(batch([([3], 37, [5, 0, 9])]))
    content = first.read_blocks([5, 0, 9])
    assert content.dtype == np.uint8
    assert len(content) == 3
    second.step(batch([(TEXT[::-1], 0, [2, 3, 8])]))
    second.write_blocks([7, 2, 3], content)
    np.testing.assert_array_equal(second.step(batch([([3], 37, [7, 2, 3])])), expected)
    np.testing.assert_array_equal(second.read_blocks([2, 7]), content[[1, 0]])
    with pytest.raises(RequestError, match=r"block 64: the cache has blocks 0 to 63"):
        first.read_blocks([0, 64])
    with pytest.raises(RequestError, match=r"block -1: the cache has blocks 0 to 63"):
        first.write_blocks([-1], content[:1])
    with pytest.raises(RequestError, match=rf"content is uint8 \[1, 7\], not uint8 \[1, {content.shape[1]}\]"):
        first.write_blocks([0], content[:1, :7])
    for session in (first, second):
        session.close()


@pytest.mark.parametrize("name", ["reference", *BACKENDS])
def test_recurrent_states(name: str) -> None:
    first, second = (opened(name, RECURRENT, RECURRENT_WEIGHTS, "f16") for _ in range(2))
    first.step(replace(batch([(TEXT, 0, [0, 1, 2])]), state_to=np.array([5], np.int32)))
    content = first.read_states([5])
    going_on = batch([([3], 37, [0, 1, 2])])
    expected = first.step(replace(going_on, state_from=np.array([5], np.int32)))
    second.write_states([4, 2], np.concatenate([content, 0 * content]))
    np.testing.assert_array_equal(second.step(replace(going_on, state_from=np.array([4], np.int32))), expected)
    with pytest.raises(RequestError, match=r"slot 99: the cache has slots 0 to \d+"):
        second.read_states([99])
    with pytest.raises(RequestError, match=r"content is uint8 \[2, \d+\], not uint8 \[1, \d+\]"):
        second.write_states([0], np.concatenate([content, content]))
    for session in (first, second):
        session.close()
