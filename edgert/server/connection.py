"""A connection of a client, and how long it may take: uvicorn waits for clients as long as they like."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgert.server.errors import Problem, problem_response

RECEIVE_SECONDS = 30.0
"""A request, from its first byte (that of a connection: from its opening) to the last of its body."""
SEND_SECONDS = 30.0
"""Until a client takes something of what is sent to it, once neither the system nor uvicorn holds any more of it."""


class Connection(H11Protocol):
    """Uvicorn's protocol with deadlines. A client that misses one is disconnected, which ends its request.

    Connections beyond uvicorn's `limit_concurrency` are answered with 503; uvicorn's own answer has no Retry-After.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._most, self.limit_concurrency = self.limit_concurrency, None
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It is opened."""
        super().connection_made(transport)
        if self._most is not None and len(self.connections) > self._most:
            self.app = _full
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed, by whomever."""
        for timer in (self._receiving, self._sending):
            if timer is not None:
                timer.cancel()
        self._receiving = self._sending = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is written, if not sent."""
        super().on_response_complete()
        self._watch()
        self._end_when_stalled()

    def timeout_keep_alive_handler(self) -> None:
        """No further request has come."""
        super().timeout_keep_alive_handler()
        self._end_when_stalled()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._sending is not None and not self.transport.is_closing():
            self._sending.cancel()
            self._sending = None

    def _watch(self) -> None:
        """Start or stop the clock of the request that is coming."""
        if self.transport.is_closing():
            return
        state = self.conn.their_state
        first = state is h11.IDLE and self.cycle is None
        coming = first or state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))
        if coming and self._receiving is None:
            self._receiving = self.loop.call_later(RECEIVE_SECONDS, self.transport.abort)
        elif not coming and self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _end_when_stalled(self) -> None:
        """A transport that is closed first sends all it holds, and waits for that without end."""
        if self.transport.is_closing() and self._sending is None:
            self._sending = self.loop.call_later(SEND_SECONDS, self.transport.abort)


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    problem = Problem(503, "this server has as many connections as it may; try again later", code="connections")
    await problem_response(scope["path"], problem, {"Connection": "close"})(scope, receive, send)
