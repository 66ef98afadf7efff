import gc
import threading
import time
import weakref

import numpy as np
import pytest
from edgert_models.errors import BackendError, CancelledError, EngineError

from edgert.engine import worker
from edgert.engine.params import SamplingParams
from edgert.engine.request import Failed
from tests.edgert.engine.fake import (
    FakeSession,
    expected,
    greedy,
    limits,
    make_engine,
    start,
)


def test_a_failed_step_ends_only_who_is_at_fault() -> None:
    session = FakeSession(limits(), poison=49)
    engine = make_engine(session)
    session.gate.clear()
    good = [start(engine, [n], max_tokens=8, temperature=0, logit_bias={49: -100}) for n in range(2)]
    bad = start(engine, [49, 1], max_tokens=8)[1]
    session.gate.set()
    for n, (_, collector) in enumerate(good):
        tokens = collector.tokens()
        assert tokens == expected([n], lambda logits, _: int(logits[:49].argmax()), 8)
    with pytest.raises(BackendError, match="layer 3: the router gave NaN"):
        bad.tokens()
    assert engine.statistics().blocks_held == 0
    # What the failed step left behind is not found by a prompt that begins alike.
    session.poison = None
    assert start(engine, [49, 1, 2], max_tokens=4, temperature=0)[1].tokens() == expected([49, 1, 2], greedy, 4)
    engine.close()


def test_any_exception_of_a_step_becomes_a_backend_error() -> None:
    session = FakeSession(limits())
    engine = make_engine(session)
    session.step = lambda batch, hidden=False: 1 / 0  # type: ignore[assignment, misc]
    with pytest.raises(BackendError, match="the step failed: ZeroDivisionError: division by zero"):
        start(engine, [1])[1].tokens()
    engine.close()


def test_a_failed_copy_ends_the_step() -> None:
    session = FakeSession(limits())
    engine = make_engine(session)
    start(engine, [1, 2, 3], max_tokens=2)[1].tokens()
    session.copy_blocks = lambda pairs: 1 / 0  # type: ignore[assignment, misc]
    with pytest.raises(BackendError, match="ZeroDivisionError"):
        start(engine, [1, 2, 4], max_tokens=2)[1].tokens()
    assert engine.statistics().blocks_held == 0
    assert len(start(engine, [9, 2, 4], max_tokens=2)[1].tokens()) == 2
    engine.close()


def test_nan_logits_end_their_request() -> None:
    session = FakeSession(limits())
    engine = make_engine(session)
    plain = session.step

    def broken(batch: object, *, hidden: bool = False) -> np.ndarray:
        out = plain(batch, hidden=hidden)  # type: ignore[arg-type]
        out[0, 3] = np.nan
        return out

    session.step = broken  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="logits at position 2 are not finite"):
        start(engine, [1, 2])[1].tokens()
    session.step = plain  # type: ignore[method-assign]
    assert len(start(engine, [1, 2], max_tokens=2)[1].tokens()) == 2
    engine.close()


def test_a_broken_scheduler_closes_the_engine_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    session = FakeSession(limits())
    engine = make_engine(session)
    engine._worker.scheduler.plan = lambda: 1 / 0  # type: ignore[assignment, misc]
    with pytest.raises(BackendError, match="the engine stopped: ZeroDivisionError"):
        start(engine, [1])[1].tokens()
    with pytest.raises(BackendError, match="the engine stopped"):
        start(engine, [1])
    engine.close()
    assert session.closed == 1
    assert "the engine failed" in caplog.text


def test_a_broken_engine_is_mended() -> None:
    """Who was there when it broke is told so; it goes on with another session, and loses no block."""
    first, second = FakeSession(limits(sequences=1)), FakeSession(limits(sequences=1))
    opened = threading.Event()

    def reopen() -> FakeSession:
        assert first.closed == 1
        assert opened.wait(20)
        return second

    engine = make_engine(first, reopen=reopen)
    first.gate.clear()
    there = [start(engine, [n], max_tokens=40)[1] for n in range(3)]  # one runs, two wait
    assert first.entered.wait(20)
    engine._worker.scheduler.plan = lambda: 1 / 0  # type: ignore[assignment, misc]
    first.gate.set()
    for each in there:
        with pytest.raises(
            EngineError, match=r"the engine failed \(ZeroDivisionError: division by zero\) and is started"
        ):
            each.tokens()
    assert not engine.available
    with pytest.raises(EngineError, match="try again"):
        start(engine, [1])
    with pytest.raises(EngineError, match="try again"):
        engine.borrow(1, print)
    opened.set()
    deadline = time.monotonic() + 20
    while not engine.available:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert start(engine, [7], max_tokens=4, temperature=0)[1].tokens() == expected([7], greedy, 4)
    statistics = engine.statistics()
    assert (statistics.restarts, statistics.waiting, statistics.running, statistics.blocks_held) == (1, 0, 0, 0)
    engine.close()
    assert (first.closed, second.closed) == (1, 1)


def test_a_session_that_cannot_be_opened_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "_LONGEST_DELAY", 0.01)
    attempts = iter([BackendError("no memory"), OSError("gone"), FakeSession(limits())])

    def reopen() -> FakeSession:
        found = next(attempts)
        if isinstance(found, Exception):
            raise found
        return found

    engine = make_engine(FakeSession(limits()), reopen=reopen)
    engine._worker.scheduler.plan = lambda: 1 / 0  # type: ignore[assignment, misc]
    with pytest.raises(EngineError):
        start(engine, [1])[1].tokens()
    while not engine.available:
        time.sleep(0.001)
    assert start(engine, [7], max_tokens=4, temperature=0)[1].tokens() == expected([7], greedy, 4)
    assert caplog.text.count("the engine cannot be started again; that is tried once more") == 2
    engine.close()


def test_an_engine_that_cannot_be_mended_can_be_closed() -> None:
    engine = make_engine(FakeSession(limits()), reopen=lambda: 1 / 0)
    engine._worker.scheduler.plan = lambda: 1 / 0  # type: ignore[assignment, misc]
    with pytest.raises(EngineError):
        start(engine, [1])[1].tokens()
    engine.close()
    with pytest.raises(CancelledError, match="the model was closed"):
        start(engine, [1])


def test_a_session_whose_every_step_fails_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [FakeSession(limits(), poison=49) for _ in range(2)]
    engine = make_engine(sessions[0], reopen=lambda: sessions[1])
    for _ in range(2):
        with pytest.raises(BackendError, match="the router gave NaN"):
            start(engine, [49])[1].tokens()
        start(engine, [1], max_tokens=1)[1].tokens()  # that worked: it was not the session
    for _ in range(3):
        with pytest.raises(BackendError, match="the router gave NaN"):
            start(engine, [49])[1].tokens()
    while not (engine.statistics().restarts and engine.available):
        time.sleep(0.001)
    for _ in range(9):  # who makes steps fail gets no more sessions of it
        with pytest.raises(BackendError, match="the router gave NaN"):
            start(engine, [49])[1].tokens()
    assert engine.statistics().restarts == 1
    monkeypatch.setattr(sessions[1], "poison", None)
    assert len(start(engine, [49], max_tokens=3)[1].tokens()) == 3
    engine.close()


def test_an_event_handler_that_raises_cancels_its_request(caplog: pytest.LogCaptureFixture) -> None:
    session = FakeSession(limits())
    engine = make_engine(session)

    def handler(event: object) -> None:
        raise ValueError("consumer")

    request = engine.submit([1], SamplingParams(), handler)
    assert start(engine, [2], max_tokens=3, temperature=0)[1].tokens() == expected([2], greedy, 3)
    assert request.ended
    assert engine.statistics().blocks_held == 0
    assert "an event handler failed" in caplog.text
    engine.close()


def test_close_cancels_everything_and_refuses_more() -> None:
    session = FakeSession(limits(sequences=1), delay=0.002)
    engine = make_engine(session)
    collectors = [start(engine, [n])[1] for n in range(4)]
    collectors[0].next()
    engine.close()
    engine.close()
    for collector in collectors:
        last = collector.finish()
        assert isinstance(last, Failed)
        assert isinstance(last.error, CancelledError)
        assert str(last.error) == "the model was closed"
    assert session.closed == 1
    with pytest.raises(CancelledError, match="the model was closed"):
        start(engine, [1])
    with pytest.raises(CancelledError, match="the model was closed"):
        engine.evaluate([1], print)


def test_an_engine_that_is_dropped_closes_itself() -> None:
    session = FakeSession(limits())
    engine = make_engine(session)
    start(engine, [1], max_tokens=2)[1].finish()
    reference = weakref.ref(engine)
    thread = engine._thread
    del engine
    gc.collect()
    thread.join(5)
    assert reference() is None
    assert session.closed == 1
    assert not thread.is_alive()
