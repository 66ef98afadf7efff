"""The session lent out between steps: its blocks are the borrower's, and requests come out as if nothing had been."""

import threading
from collections.abc import Sequence

import pytest
from edgert_models.errors import CancelledError, RequestError
from edgert_runtimes.base import Session

from edgert.engine.loan import Room
from edgert.engine.params import SamplingParams
from tests.edgert.engine.fake import Collector, FakeSession, expected, greedy, limits, make_engine, start


def scribble(session: Session, room: Room) -> tuple[int, Sequence[int]]:
    """Spoil what is in the blocks."""
    assert isinstance(session, FakeSession)
    blocks = room.blocks
    size = session.limits.block_size
    for block in blocks:
        session._tokens[block * size : (block + 1) * size] = 49
        session._positions[block * size : (block + 1) * size] = 0
    return threading.get_ident(), blocks


def test_requests_do_not_notice() -> None:
    session = FakeSession(limits(blocks=16))
    engine = make_engine(session)
    prompt = list(range(1, 22))
    _, collector = start(engine, prompt, max_tokens=2, temperature=0)
    assert collector.tokens() == expected(prompt, greedy, 2)
    running, collector = start(engine, prompt, max_tokens=20, temperature=0)
    collector.next()
    thread, blocks = engine.borrow(4, scribble)
    assert {thread} == session.threads
    assert len(set(blocks)) == 4
    assert collector.tokens() == expected(prompt, greedy, 20)
    engine.borrow(16, scribble)  # all there are: nothing of the prefix cache is left
    again, collector = start(engine, prompt, max_tokens=2, temperature=0)
    assert collector.tokens() == expected(prompt, greedy, 2)
    assert (running.cached_tokens, again.cached_tokens) == (20, 0)
    assert engine.statistics().blocks_held == 0
    engine.close()


def test_errors_of_the_work_are_the_callers() -> None:
    engine = make_engine(FakeSession(limits(blocks=16)))
    with pytest.raises(RequestError, match="17 blocks of the cache are wanted, 16 of 16 are free"):
        engine.borrow(17, scribble)
    with pytest.raises(ZeroDivisionError):
        engine.borrow(3, lambda session, room: 1 / 0)
    assert engine.statistics().blocks_held == 0
    engine.close()
    with pytest.raises(CancelledError, match="the model was closed"):
        engine.borrow(1, scribble)


def test_a_loan_that_waits_when_the_engine_closes_ends_too() -> None:
    session = FakeSession(limits())
    engine = make_engine(session)
    session.gate.clear()
    collector = Collector()
    engine.submit([1, 2, 3], SamplingParams(max_tokens=50), collector)
    assert session.entered.wait(20)
    errors: list[BaseException] = []

    def borrow() -> None:
        try:
            engine.borrow(1, scribble)
        except CancelledError as error:
            errors.append(error)

    closing = threading.Thread(target=engine.close)
    closing.start()
    while engine._worker._stopped is None:
        pass
    borrower = threading.Thread(target=borrow)
    borrower.start()
    borrower.join(20)
    session.gate.set()
    closing.join(20)
    assert [str(error) for error in errors] == ["the model was closed"]
