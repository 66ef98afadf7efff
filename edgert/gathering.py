"""Requests that are begun together and waited for: answers, and rows of what a model computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from edgert.answer import Answer, Start, deliver
from edgert.engine.request import Event, Failed, OnEvent, Request, Rows

Floats = NDArray[np.float32]


def answers(starts: Sequence[Start], read: Callable[[int, Request], Answer]) -> list[Answer]:
    """All answers, finished; `read(index, request)` makes them. Their events come in one queue, so that each stop text
    is seen when it comes. The first error ends all.
    """
    events: SimpleQueue[tuple[int, Event]] = SimpleQueue()
    requests: list[Request] = []
    found: list[Answer] = []
    try:
        for index, start in enumerate(starts):
            requests.append(start(_tagged(events, index)))
            found.append(read(index, requests[-1]))
        unfinished = len(found)
        while unfinished:
            index, event = events.get()
            if not found[index].finished:
                found[index].push(event)
                unfinished -= found[index].finished
    finally:
        for request in requests:
            request.cancel()
    return found


def rows(starts: Sequence[Start]) -> list[Floats]:
    """What each request for `Rows` gives. The first error ends all."""
    events: SimpleQueue[tuple[int, Event]] = SimpleQueue()
    requests: list[Request] = []
    results: dict[int, Floats] = {}
    try:
        for index, start in enumerate(starts):
            requests.append(start(_tagged(events, index)))
        while len(results) < len(starts):
            index, event = events.get()
            results[index] = _values(event)
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

    request = start(lambda event: deliver(loop, settle, event))
    try:
        return _values(await result)
    finally:
        request.cancel()


def _values(event: Event) -> Floats:
    if isinstance(event, Failed):
        raise event.error
    assert isinstance(event, Rows)
    return event.values


def _tagged(events: SimpleQueue[tuple[int, Event]], index: int) -> OnEvent:
    return lambda event: events.put((index, event))
