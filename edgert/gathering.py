"""Requests that are begun together and waited for: answers, and rows of what a model computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgert.answer import Answer, Start
from edgert.delivery import Batches, delivery
from edgert.engine.request import Event, Failed, Request, Rows

Floats = NDArray[np.float32]


def answers(starts: Sequence[Start], read: Callable[[int, Request], Answer]) -> list[Answer]:
    """All answers, finished; `read(index, request)` makes them. Nobody sees them before, so their events may come a
    little late; stop texts are found soon after all. The first error ends all.
    """
    events = Batches()
    requests: list[Request] = []
    found: list[Answer] = []
    try:
        for index, start in enumerate(starts):
            requests.append(start(partial(events.put, index)))
            found.append(read(index, requests[-1]))
        unfinished = len(found)
        while unfinished:
            for index, event in events.get():
                if not found[index].finished:
                    found[index].take(event)
                    unfinished -= found[index].finished
    finally:
        for request in requests:
            request.cancel()
    return found


def rows(starts: Sequence[Start]) -> list[Floats]:
    """What each request for `Rows` gives. The first error ends all."""
    events = Batches()
    requests: list[Request] = []
    results: dict[int, Floats] = {}
    try:
        for index, start in enumerate(starts):
            requests.append(start(partial(events.put, index)))
        while len(results) < len(starts):
            results |= {index: _values(event) for index, event in events.get()}
    finally:
        for request in requests:
            request.cancel()
    return [results[index] for index in range(len(starts))]


async def rows_of(start: Start) -> Floats:
    """As `rows` of one request, for the running event loop; to cancel it ends the request."""
    import asyncio  # not at the top: see AsyncStream

    loop = asyncio.get_running_loop()
    result: asyncio.Future[Event] = loop.create_future()

    def settle(event: Event) -> None:
        if not result.done():
            result.set_result(event)

    request = start(delivery(loop, settle))
    try:
        return _values(await result)
    finally:
        request.cancel()


def _values(event: Event) -> Floats:
    if isinstance(event, Failed):
        raise event.error
    assert isinstance(event, Rows)
    return event.values
