"""Models with recurrent states: every answer is the one that its request gets alone, whatever shares the engine."""

from collections.abc import Sequence

import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_runtimes.base import Batch, Draw
from hypothesis import given
from hypothesis import strategies as st

from edgert.engine.engine import Engine
from edgert.engine.states import StatePool, States
from tests.edgert.engine.fake import (
    Collector,
    RecurrentSession,
    expected,
    greedy,
    history_logits,
    limits,
    make_engine,
    start,
)

PROMPT = list(range(1, 23))  # five blocks of four, and two tokens


def answers(engine: Engine, *prompts: Sequence[int], count: int = 12) -> list[int]:
    """Run prompts together, check what they give, and return how many tokens of each were cached."""
    started = [start(engine, prompt, max_tokens=count, temperature=0) for prompt in prompts]
    for prompt, (_, collector) in zip(prompts, started, strict=True):
        assert collector.tokens() == expected(prompt, greedy, count)
    return [request.cached_tokens for request, _ in started]


def test_sequences_side_by_side_are_as_alone() -> None:
    engine = make_engine(RecurrentSession(limits(states=8)))
    answers(engine, *([n, *PROMPT[n:]] for n in range(6)))
    evaluation = Collector()
    engine.evaluate(PROMPT, evaluation)
    answers(engine, PROMPT, [7, 8])
    rows = [history_logits(PROMPT[: i + 1]) for i in range(len(PROMPT))]
    np.testing.assert_array_equal(evaluation.rows(), rows)
    engine.close()


def test_prefixes_are_continued_from_checkpoints() -> None:
    session = RecurrentSession(limits(states=16))
    engine = make_engine(session)
    assert answers(engine, PROMPT) == [0]
    assert answers(engine, PROMPT) == [20]  # the last whole block of the prompt
    longer = [*PROMPT, *expected(PROMPT, greedy, 12), 7, 7]
    assert answers(engine, longer) == [32]  # of the answer the last whole block
    assert session.copies == 0
    engine.close()


def test_a_prefix_that_others_went_on_from_is_kept_the_second_time() -> None:
    """What is shared ends within the first prompt, where nobody knew to keep its states."""
    engine = make_engine(RecurrentSession(limits(states=16, rows=32)))
    shared = PROMPT[:13]
    assert answers(engine, [*shared, 30, 31, 32, 33, 34, 35]) == [0]
    assert answers(engine, [*shared, 40, 41, 42, 43]) == [0]
    assert answers(engine, [*shared, 45, 46, 47, 48]) == [12]
    engine.close()


def test_the_same_prompt_at_once_is_computed_once() -> None:
    engine = make_engine(RecurrentSession(limits(states=16)))
    assert answers(engine, PROMPT, PROMPT, PROMPT) == [0, 20, 20]
    engine.close()


def test_preempted_requests_are_computed_again() -> None:
    engine = make_engine(RecurrentSession(limits(blocks=16, states=8)))
    answers(engine, *([n, *PROMPT[:5]] for n in range(4)), count=40)
    assert engine.statistics().preemptions > 0
    engine.close()


def test_with_the_fewest_slots_every_checkpoint_may_go() -> None:
    engine = make_engine(RecurrentSession(limits(states=8)))
    for _ in range(3):
        answers(engine, *([n % 3, *PROMPT[n:]] for n in range(9)))
    states = engine._worker.scheduler.states
    assert len(states._free) + states.checkpoints == 8
    engine.close()


def test_failed_steps_spoil_nothing() -> None:
    session = RecurrentSession(limits(states=8), poison=49)
    engine = make_engine(session)
    session.gate.clear()
    started = [start(engine, [n, *PROMPT], max_tokens=9, temperature=0) for n in range(2)]
    bad = start(engine, [5, 49], max_tokens=9)[1]
    session.gate.set()
    assert "gave NaN" in str(bad.finish())
    for n, (_, collector) in enumerate(started):
        wanted = expected([n, *PROMPT], greedy, 9)
        assert 49 not in wanted
        assert collector.tokens() == wanted
    engine.close()


def test_interrupted_and_cancelled_steps_spoil_nothing() -> None:
    session = RecurrentSession(limits(states=8), delay=0.02)
    engine = make_engine(session)
    first, collector = start(engine, PROMPT, max_tokens=30, temperature=0)
    collector.next()
    first.cancel()
    answers(engine, PROMPT, [3, 4, 5], count=6)
    engine.close()


class Ahead(RecurrentSession):
    """Begins what it is told will follow, and spoils what that writes."""

    told = 0

    def step_ahead(self, batch: Batch, draws: Sequence[Draw], following: Batch) -> np.ndarray:
        out = self.step(batch)
        assert (following.state_from == batch.state_to).all()
        written = set(following.state_to.tolist())
        assert len(written) == len(following.tokens)
        assert not written & {*batch.state_from.tolist(), *batch.state_to.tolist()}
        for slot in written:
            self.states[slot] = None
        self.told += 1
        return out


def test_steps_ahead_write_slots_of_their_own() -> None:
    session = Ahead(limits(states=9, block_size=16))
    engine = make_engine(session)
    answers(engine, PROMPT, [9, 8, 7], count=30)
    assert session.told > 20
    answers(engine, *([n, *PROMPT] for n in range(4)), count=20)  # too many for the slots
    engine.close()


def test_borrowers_get_the_slots_that_nobody_has() -> None:
    engine = make_engine(RecurrentSession(limits(states=8)))
    answers(engine, PROMPT)
    assert engine.borrow(1, lambda session, room: sorted(room.states)) == list(range(8))
    assert answers(engine, PROMPT) == [0]
    engine.close()


def test_too_few_slots_are_refused() -> None:
    with pytest.raises(RequestError, match=r"^4 sequences need 8 slots of states, not 7$"):
        make_engine(RecurrentSession(limits(states=7)))


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["step", "keep", "ahead", "release", "begin"]))))
def test_slots_are_never_shared_but_with_checkpoints(moves: list[tuple[int, str]]) -> None:
    pool, requests = StatePool(6), [States() for _ in range(3)]
    for serial, (who, move) in enumerate(moves):
        states = requests[who]
        if move == "step":
            pool.prepare(states)
            pool.advance(states)
        elif move == "keep" and states.now is not None:
            pool.keep(states, serial, answer=serial % 2 == 0)
        elif move == "ahead" and not any(each.ahead for each in requests):
            pool.prepare(states)
            pool.look_ahead(states)
        elif move == "release":
            pool.release(states)
        elif move == "begin" and pool.checkpoints:
            pool.release(states)
            pool.begin(states, next(iter(pool._checkpoints)))
        written = [slot for each in requests for slot in (each.next, each.ahead) if slot is not None]
        read = {each.now for each in requests if each.now is not None}
        kept = set(pool._checkpoints.values())
        assert len(set(written)) == len(written)
        assert not set(written) & (read | kept)
        assert sorted(pool._free) == sorted(set(range(6)) - set(written) - read - kept)
