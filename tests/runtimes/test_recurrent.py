"""Recurrent states: however a text is cut into steps, and from whatever slots, the results are the same."""

from dataclasses import replace

import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_models.graph import Graph
from edgert_models.ops import Value
from edgert_models.spec import Recurrence
from edgert_runtimes.base import Backend
from edgert_runtimes.batches import runs_of
from edgert_runtimes.conformance.cases import plan_of, tokens, with_values
from edgert_runtimes.conformance.tiny import batch, limits, random_weights
from edgert_runtimes.cpu.backend import CpuBackend
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.backends import BACKENDS, open_backend

TEXT = tokens(40)
BLOCKS = range(3)


def wire(g: Graph, x: Value) -> Value:
    """Every op with a state."""
    x = g.add(x, g.short_conv(x, "conv", 4, bias=True, silu=True))
    a, b = g.linear(x, "a", 4), g.linear(x, "b", 4)
    x = g.add(x, g.delta_rule(g.linear(x, "qkv", 2 * 2 * 8 + 64), a, b, "blk.0"))
    return g.add(x, g.scan(x, a, g.linear(x, "in", 16), g.linear(x, "out", 16), "blk.1"))


SIZES = Recurrence(layers=(True, False), kernel=4, inner=64, state=8, heads=4, groups=2)
DECAYS = {
    f"blk.{i}.ssm_a": -np.array([0.1, 0.5, 1.0, 2.0], np.float32).reshape(shape)
    for i, shape in enumerate(((1, 4), (4, 1)))
}
PLAN = plan_of(wire, recurrence=SIZES)
WEIGHTS = with_values(random_weights(PLAN), DECAYS)


@pytest.fixture(scope="module")
def session() -> object:
    session = CpuBackend().load(PLAN, WEIGHTS, limits())
    yield session
    session.close()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 12)), st.booleans())
def test_cuts_change_no_bit(session, cuts: list[int], apart: bool) -> None:  # type: ignore[no-untyped-def]
    whole = session.step(batch([(TEXT, 0, BLOCKS)]))
    found, start = [], 0
    for number, count in enumerate([*cuts, len(TEXT)]):
        if start == len(TEXT):
            break
        end = min(start + count, len(TEXT))
        step = batch([(TEXT[start:end], start, BLOCKS)])
        if apart:
            slots = [np.array([(number + after) % 2 + 7], np.int32) for after in range(2)]
            step = replace(step, state_from=slots[0], state_to=slots[1])
        found.append(session.step(step))
        start = end
    np.testing.assert_array_equal(np.concatenate(found), whole)


@pytest.mark.parametrize("name", ["reference", *BACKENDS])
def test_a_step_that_wrote_elsewhere_can_be_asked_for_again(name: str) -> None:
    backend: Backend = open_backend(name)
    session = backend.load(PLAN, WEIGHTS, limits())
    step = replace(batch([(TEXT[5:9], 5, BLOCKS)]), state_to=np.array([9], np.int32))
    session.step(batch([(TEXT[:5], 0, BLOCKS)]))
    once, again = session.step(step), session.step(step)
    session.close()
    np.testing.assert_array_equal(once, again)


def test_what_batches_must_be() -> None:
    own = limits(states=4)
    two = batch([(TEXT[:3], 0, [0]), (TEXT[:2], 5, [1])])
    assert runs_of(two, own).tolist() == [[0, 3, -1, 0], [3, 2, 1, 1]]

    def refused(match: str, **changes: list[int]) -> None:
        with pytest.raises(RequestError, match=match):
            runs_of(replace(two, **{name: np.array(each, np.int32) for name, each in changes.items()}), own)

    refused(r"^state_from has shape \(0,\), the batch has 2 sequences, and the model recurrent states$", state_from=[])
    refused(r"^state_to\[1\] is out of range: 4$", state_to=[0, 4])
    refused("^rows of one sequence must follow one another", sequence=[0, 1, 0, 0, 1])
    refused("^rows of one sequence must follow one another", positions=[0, 1, 3, 5, 6])
    refused("^a slot of states is written for two sequences, or read for another$", state_to=[2, 2])
    refused("^a slot of states is written for two sequences, or read for another$", state_to=[1, 2])


@pytest.mark.parametrize("name", ["reference", *BACKENDS])
def test_batches_without_slots_are_refused(name: str) -> None:
    session = open_backend(name).load(PLAN, WEIGHTS, limits())
    step = replace(batch([(TEXT[:2], 0, BLOCKS)]), state_from=np.empty(0, np.int32))
    with pytest.raises(RequestError, match=r"^state_from has shape"):
        session.step(step)
    session.close()
