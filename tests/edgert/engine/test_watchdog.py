"""A step that does not come back: everybody is told, and it is mended when it does."""

import threading
import time

import pytest
from edgert_models.errors import EngineError

from edgert.engine.watchdog import HungError, Watchdog
from tests.edgert.engine.fake import FakeSession, expected, greedy, limits, make_engine, start

HANGS = r"a step of the model has not come back for 0\.\d+ s; try again later"


def until(holds: object) -> None:
    deadline = time.monotonic() + 20
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_step_that_hangs_is_told_of_and_mended() -> None:
    sessions = [FakeSession(limits(sequences=2)), FakeSession(limits(sequences=2))]
    first = sessions[0]
    engine = make_engine(first, reopen=lambda: sessions[1], step_timeout=0.2)
    assert start(engine, [1, 2], max_tokens=2, temperature=0)[1].tokens() == expected([1, 2], greedy, 2)
    assert (engine.available, engine.hangs) == (True, False)
    first.gate.clear()
    requests = [start(engine, [n], max_tokens=3)[1] for n in range(5)]  # running, and waiting
    for collector in requests:
        with pytest.raises(EngineError, match=HANGS):
            collector.tokens()
    assert (engine.available, engine.hangs) == (False, True)
    with pytest.raises(EngineError, match=HANGS):
        start(engine, [1], max_tokens=1)
    assert first.interrupted.is_set()
    first.gate.set()
    until(lambda: engine.available)
    assert not engine.hangs
    assert start(engine, [1, 2], max_tokens=2, temperature=0)[1].tokens() == expected([1, 2], greedy, 2)
    now = engine.statistics()
    assert (now.restarts, now.waiting, now.running, now.blocks_held) == (1, 0, 0, 0)
    assert (first.closed, len(sessions[1].batches)) == (1, 2)
    assert all(collector.queue.empty() for collector in requests)
    engine.close()


def test_an_engine_that_hangs_can_be_left() -> None:
    session = FakeSession(limits())
    engine = make_engine(session, step_timeout=0.05)
    session.gate.clear()
    _, collector = start(engine, [1], max_tokens=1)
    with pytest.raises(EngineError):
        collector.tokens()
    engine.close()
    assert session.closed == 0
    session.gate.set()
    until(lambda: session.closed)


def test_a_slow_step_in_time_is_no_hanging() -> None:
    barked = threading.Event()
    dog = Watchdog(0.5, lambda seconds: barked.set())
    for _ in range(4):
        with dog.watching():
            time.sleep(0.2)
    assert not dog.barked
    with pytest.raises(HungError, match=r"a step of the model did not come back for 0\.5 s"), dog.watching():
        assert barked.wait(20)
    dog.close()
