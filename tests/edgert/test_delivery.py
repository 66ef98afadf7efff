"""Events on their way from the engine's thread: in order, all of them, with few wakings."""

import asyncio
import threading
from queue import Empty

import pytest

from edgert.delivery import Batches, delivery
from edgert.engine.request import Ending, Event, Token
from edgert.engine.sampling import TokenLogprob


def token(number: int, at: float, ending: Ending | None = None) -> Token:
    return Token(TokenLogprob(number, 0.0), at, ending)


def test_tokens_wait_for_a_while_and_come_in_order() -> None:
    batches = Batches()
    early = [token(0, 1.0), token(1, 1.001), token(2, 1.002)]
    for event in early:
        batches.put(0, event)
    assert batches.get() == [(0, early[0])]
    with pytest.raises(Empty):
        batches._ready.get_nowait()
    late = token(3, 1.02)
    batches.put(1, late)
    assert batches.get() == [(0, early[1]), (0, early[2]), (1, late)]


def test_an_end_comes_at_once() -> None:
    batches = Batches()
    events = [token(0, 1.0), token(1, 1.001), token(2, 1.002, Ending.LENGTH)]
    for event in events:
        batches.put(0, event)
    assert [*batches.get(), *batches.get()] == [(0, event) for event in events]


def test_a_loop_is_woken_once_for_what_comes_together() -> None:
    events = [token(number, float(number)) for number in range(100)]
    wakings = 0

    async def run() -> list[tuple[str, Event]]:
        nonlocal wakings
        found: list[tuple[str, Event]] = []
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def counted(*arguments: object) -> asyncio.Handle:
            nonlocal wakings
            wakings += 1
            return wake(*arguments)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counted  # type: ignore[assignment, method-assign]

        def put_all() -> None:
            give = [delivery(loop, lambda event, who=who: found.append((who, event))) for who in "ab"]  # type: ignore[misc]
            for number, event in enumerate(events):
                give[number % 2](event)

        thread = threading.Thread(target=put_all)
        thread.start()
        thread.join()  # the loop stands still meanwhile
        assert found == []
        while len(found) < len(events):
            await asyncio.sleep(0)
        return found

    assert asyncio.run(run()) == [("ab"[number % 2], event) for number, event in enumerate(events)]
    assert wakings == 1


def test_a_loop_that_is_closed_is_told_each_time() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            delivery(loop, lambda event: None)(token(0, 1.0))
