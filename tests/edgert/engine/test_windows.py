"""Layers with a window in blocks of their own: every answer is the one that its request gets alone."""

from collections.abc import Sequence

import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_runtimes.base import Batch, Draw
from edgert_runtimes.batches import first_seen_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgert.engine.batch import make_batch
from edgert.engine.engine import Engine
from edgert.engine.request import Kind, Request
from edgert.engine.scheduler import Part, Scheduler
from edgert.engine.speculation import Speculation
from edgert.engine.windows import Window, WindowPool, window_blocks
from tests.edgert.engine.fake import (
    Collector,
    WindowedSession,
    expected,
    greedy,
    history_logits,
    limits,
    make_engine,
    start,
)

PROMPT = list(range(1, 23))  # five blocks of four, and two tokens
REACHES = (1, 6, 9, -6, -8)  # a negative one: windows that do not slide


def session_of(reach: int, sequences: int = 4, **changes: int) -> WindowedSession:
    """With as few blocks as so many sequences need."""
    own = window_blocks(reach, sequences, limits(**changes))
    return WindowedSession(limits(window_blocks=own, **changes), reach)


def answers(engine: Engine, *prompts: Sequence[int], count: int = 30) -> list[int]:
    """Run prompts together, check what they give, and return how many tokens of each were cached."""
    started = [start(engine, prompt, max_tokens=count, temperature=0) for prompt in prompts]
    for prompt, (_, collector) in zip(prompts, started, strict=True):
        assert collector.tokens() == expected(prompt, greedy, count)
    return [request.cached_tokens for request, _ in started]


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("sequences", [1, 4])
def test_sequences_side_by_side_are_as_alone(sequences: int, reach: int) -> None:
    engine = make_engine(session_of(reach, sequences))
    answers(engine, *([n, *PROMPT[n:]] for n in range(6)))
    evaluation = Collector()
    engine.evaluate(PROMPT, evaluation)
    answers(engine, PROMPT, [7, 8])
    rows = [history_logits(PROMPT[: i + 1]) for i in range(len(PROMPT))]
    np.testing.assert_array_equal(evaluation.rows(), rows)
    now = engine.statistics()
    assert (now.blocks_held, now.window_blocks_held) == (0, 0)
    assert now.window_blocks == window_blocks(reach, sequences, limits())
    assert 0 < now.window_blocks_cached <= now.window_blocks
    engine.close()


def test_prefixes_are_continued_where_their_windows_are() -> None:
    session = session_of(6)
    engine = make_engine(session)
    assert answers(engine, PROMPT, count=12) == [0]
    assert answers(engine, PROMPT, count=12) == [20]  # whole blocks
    longer = [*PROMPT, *expected(PROMPT, greedy, 12), 7, 7]
    assert answers(engine, longer, count=12) == [32]
    assert session.copies == 0
    engine.close()


def test_a_prefix_that_others_went_on_from_stays() -> None:
    """What is shared ends within the first prompt; what lies in the midst of others goes before it."""
    engine = make_engine(session_of(6, 2))
    shared = PROMPT[:13]
    assert answers(engine, [*shared, *range(30, 48)]) == [0]
    cached = [answers(engine, [*shared, *range(n, n + 18)])[0] for n in range(22, 26)]
    assert cached[1:] == [12, 12, 12]
    engine.close()


def test_a_text_is_found_after_a_long_one() -> None:
    engine = make_engine(session_of(6, 2))
    answers(engine, PROMPT, count=4)
    answers(engine, list(range(40))[::-1], count=4)
    assert answers(engine, PROMPT) == [20]
    engine.close()


def test_preempted_requests_are_computed_again() -> None:
    for session in (session_of(9, blocks=16), session_of(40, 2)):
        engine = make_engine(session)
        answers(engine, *([n, *PROMPT[:5]] for n in range(4)), count=40)
        assert engine.statistics().preemptions > 0
        engine.close()


def test_failed_and_cancelled_steps_spoil_nothing() -> None:
    session = session_of(6)
    session.poison = 49
    engine = make_engine(session)
    session.gate.clear()
    started = [start(engine, [n, *PROMPT], max_tokens=9, temperature=0) for n in range(2)]
    bad, gone = start(engine, [5, 49], max_tokens=9), start(engine, [4, *PROMPT], max_tokens=40)
    gone[0].cancel()
    session.gate.set()
    assert "gave NaN" in str(bad[1].finish())
    for n, (_, collector) in enumerate(started):
        assert collector.tokens() == expected([n, *PROMPT], greedy, 9)
    gone[1].finish()
    assert engine.statistics().window_blocks_held == 0
    engine.close()


def test_contexts_that_slide() -> None:
    engine = make_engine(session_of(6))
    _, collector = start(engine, PROMPT, max_tokens=100, temperature=0, overflow="sliding", seed=1)
    assert len(collector.tokens()) == 100
    answers(engine, PROMPT)
    engine.close()


class Oracle:
    """Guesses what follows, wrong every third time."""

    def __init__(self) -> None:
        self.count = 0

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int]]:
        found = []
        for request, count in zip(requests, most, strict=True):
            guesses = expected(request.tokens, greedy, count)
            self.count += 1
            if guesses and self.count % 3 == 0:
                guesses[len(guesses) // 2] = (guesses[len(guesses) // 2] + 1) % 50
            found.append(guesses)
        return found

    def forget(self, request: Request) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("reach", REACHES)
def test_guesses_are_rows_that_may_be_taken_back(reach: int) -> None:
    engine = make_engine(session_of(reach, 2), speculation=Speculation(Oracle(), always=True))
    answers(engine, PROMPT, [9, 8, 7], [3], count=35)
    now = engine.statistics()
    assert 0 < now.right_guesses < now.guessed_tokens
    assert now.window_blocks_held == 0
    engine.close()


class Ahead(WindowedSession):
    """Begins what it is told will follow, which writes to slots of its own."""

    told = 0

    def step_ahead(self, batch: Batch, draws: Sequence[Draw], following: Batch) -> np.ndarray:
        out = self.step(batch)
        assert not set(following.window_slots.tolist()) & set(batch.window_slots.tolist())
        assert (following.window_slots // self.limits.block_size == batch.window_slots // self.limits.block_size).all()
        assert (following.window_slots == batch.window_slots + 1).all()
        self.seen[following.window_slots] = -1
        self.told += 1
        return out


def test_steps_ahead() -> None:
    own = window_blocks(6, 4, limits(block_size=16))
    session = Ahead(limits(window_blocks=own, block_size=16), 6)
    engine = make_engine(session)
    answers(engine, PROMPT, [9, 8, 7])
    assert session.told > 20
    engine.close()


def test_borrowers_get_the_blocks_that_nobody_has() -> None:
    session = session_of(6)
    engine = make_engine(session)
    answers(engine, PROMPT)
    room = engine.borrow(1, lambda session, room: room)
    assert (sorted(room.windows), room.reach) == (list(range(session.limits.window_blocks)), 6)
    assert answers(engine, PROMPT) == [0]
    engine.close()


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(RequestError, match=r"^a sequence needs 8 blocks of layers with a window, not 7$"):
        make_engine(WindowedSession(limits(window_blocks=7), 6))


class EngineMachine(RuleBasedStateMachine):
    """Requests come, are computed with right and wrong guesses, and go, in pools that are as small as can be; the
    session says whether every row has found its window.
    """

    def __init__(self) -> None:
        super().__init__()
        self.session = session_of(6, 2, blocks=20)
        self.scheduler = Scheduler(self.session.limits, 7, reach=6)
        self.size = self.session.limits.block_size

    def requests(self) -> list[Request]:
        return [*self.scheduler.running, *self.scheduler.waiting]

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=30),
        kind=st.sampled_from([*[Kind.GENERATE] * 4, Kind.LOGITS]),
    )
    def come(self, tokens: list[int], kind: Kind) -> None:
        self.scheduler.waiting.append(Request(kind, tokens, len(tokens), lambda _: None, lambda _: None))

    @precondition(lambda self: self.scheduler.busy)
    @rule(tokens=st.lists(st.integers(0, 1), min_size=20, max_size=20), right=st.integers(0, 4))
    def step(self, tokens: list[int], right: int) -> None:
        step = self.scheduler.plan()
        parts = [
            self.scheduler.with_guesses(part, tokens[:4]) if part.request.remaining == 1 and not step.filling else part
            for part in step.parts
        ]
        self.session.copy_blocks(step.copies)
        self.session.step(make_batch(parts, self.size))
        for part in parts:
            request = part.request
            if part.guessed:
                for token in (*part.guessed[:right], tokens[-1]):
                    self.scheduler.done(Part(request, 1))
                    request.tokens.append(token)
                self.scheduler.drop_guesses(request)
            else:
                self.scheduler.done(part)
                request.tokens += tokens[:1] if request.kind is Kind.GENERATE and not request.remaining else []
            if len(request.tokens) >= 60 or not request.remaining:
                self.scheduler.remove(request)

    @precondition(lambda self: self.scheduler.busy)
    @rule(which=st.integers(0, 99))
    def go(self, which: int) -> None:
        requests = self.requests()
        self.scheduler.remove(requests[which % len(requests)])

    @invariant()
    def every_block_is_in_one_place(self) -> None:
        pool = self.scheduler.windows
        holders = [0] * pool.size
        for request in self.requests():
            for block in request.window.blocks:
                holders[block] += 1
        assert holders == pool._holders
        blocks_for = self.scheduler.pool.blocks_for
        assert all(each.window.end <= blocks_for(len(each.tokens)) for each in self.scheduler.running)
        held = [block for block, count in enumerate(holders) if count]
        assert sorted([*pool._free, *pool._idle, *held]) == list(range(pool.size))
        assert pool._found == {serial: block for block, (serial, _) in pool._serials.items()}
        assert all(block in pool._serials for block in pool._idle)
        assert not any(block in pool._serials for block in pool._free)


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@given(
    st.sampled_from(REACHES),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 16)), min_size=1, max_size=4),
)
def test_what_fits_has_room_in_every_step(reach: int, sequences: int, parts: list[tuple[int, int]]) -> None:
    own = limits()
    pool = WindowPool(limits(window_blocks=window_blocks(reach, sequences, own)), reach)
    assert pool.fits([64] * sequences)
    rows = own.rows
    if pool.fits([computed + count for computed, count in parts]):
        for computed, count in parts:
            count = min(count, rows)
            rows -= count
            pool.grow(Window(first_seen_at(computed, reach) // 4), computed + count)
