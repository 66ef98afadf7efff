import asyncio
import os
import threading
import time

import numpy as np
import pytest
from edgert_models.errors import BackendError, RequestError

from edgert.engine.params import SamplingParams
from edgert.engine.request import Token
from tests.edgert.engine.fake import (
    FakeSession,
    expected,
    greedy,
    limits,
    make_engine,
    start,
)


def test_from_many_threads() -> None:
    engine = make_engine(FakeSession(limits()))
    wrong: list[int] = []

    def work(n: int) -> None:
        for turn in range(5):
            prompt = [n, turn]
            if start(engine, prompt, max_tokens=6, temperature=0)[1].tokens() != expected(prompt, greedy, 6):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert engine.statistics().requests == 40
    engine.close()


def test_from_asyncio() -> None:
    engine = make_engine(FakeSession(limits()))

    async def answer(prompt: list[int]) -> list[int]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Token] = asyncio.Queue()
        engine.submit(
            prompt,
            SamplingParams(max_tokens=6, temperature=0),
            lambda event: loop.call_soon_threadsafe(queue.put_nowait, event),  # type: ignore[arg-type, return-value]
        )
        tokens = []
        while True:
            event = await queue.get()
            tokens.append(event.choice.token)
            if event.ending:
                return tokens

    async def several() -> list[list[int]]:
        return await asyncio.gather(*(answer([n]) for n in range(6)))

    assert asyncio.run(several()) == [expected([n], greedy, 6) for n in range(6)]
    engine.close()


def test_a_loop_that_is_gone_cancels_its_requests() -> None:
    session = FakeSession(limits(), delay=0.002)
    engine = make_engine(session)

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        engine.submit([1], SamplingParams(), lambda event: loop.call_soon_threadsafe(print) and None)

    asyncio.run(leave())
    until = time.monotonic() + 5
    while engine.statistics().requests < 1 or engine.statistics().running:
        assert time.monotonic() < until
        time.sleep(0.005)
    assert engine.statistics().blocks_held == 0
    engine.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_child_is_told_why_it_cannot() -> None:
    engine = make_engine(FakeSession(limits()))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            start(engine, [1])
            message = "no error"
        except BackendError as error:
            message = str(error)
        engine.close()
        os.write(write, message.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert "loaded before this process was forked" in pipe.read()
    os.waitpid(child, 0)
    assert len(start(engine, [1], max_tokens=2)[1].tokens()) == 2
    engine.close()


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(RequestError, match="5 sequences need as many rows a step, not 4"):
        make_engine(FakeSession(limits(sequences=5, rows=4)))
    with pytest.raises(RequestError, match="a context of 64 needs 16 blocks, not 15"):
        make_engine(FakeSession(limits(blocks=15)))


def test_a_storm_of_requests_and_cancellations_leaves_nothing_behind() -> None:
    session = FakeSession(limits(context=48, blocks=20, rows=9, sequences=4))
    engine = make_engine(session)
    generator = np.random.default_rng(0)
    kept = []
    for number in range(150):
        prompt = [int(t) for t in generator.integers(0, 3, generator.integers(1, 30))]
        count = int(generator.integers(1, 18))
        request, collector = start(engine, prompt, max_tokens=count, temperature=0)
        if number % 5 == 0:
            request.cancel()
        else:
            kept.append((prompt, count, collector))
    for prompt, count, collector in kept:
        assert collector.tokens() == expected(prompt, greedy, count)
    until = time.monotonic() + 5
    while engine.statistics().running or engine.statistics().waiting:
        assert time.monotonic() < until
        time.sleep(0.005)
    assert engine.statistics().blocks_held == 0
    assert engine.statistics().cached_tokens > 0
    engine.close()
