"""Running one request for a client: whole or as server-sent events, ended when the client goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from edgert_models.errors import EdgertError
from fastapi import Request
from starlette.responses import StreamingResponse

from edgert import Completion
from edgert.answer import AsyncStream
from edgert.completion import Chunk
from edgert.server.errors import status_and_body

Json = dict[str, Any]
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class ClientGoneError(EdgertError):
    """The client closed the connection before the answer was ready."""


async def whole(stream: AsyncStream, request: Request) -> Completion:
    """The Completion; the request is cancelled if the client leaves while it is made."""
    collecting = asyncio.ensure_future(_collect(stream))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((collecting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            raise ClientGoneError("the client went away")
        return collecting.result()
    finally:
        await stream.aclose()
        for task in (collecting, leaving):
            task.cancel()


def events(stream: AsyncStream, first: list[Json], each: Callable[[Chunk], list[Json]]) -> StreamingResponse:
    """A response of server-sent events: `first`, then what `each` makes of a chunk, then [DONE].

    An error on the way is sent as one event in OpenAI's error form, and ends the stream without [DONE].
    """

    async def body() -> AsyncIterator[bytes]:
        try:
            for item in first:
                yield _event(item)
            async for chunk in stream:
                for item in each(chunk):
                    yield _event(item)
            yield b"data: [DONE]\n\n"
        except EdgertError as error:
            yield _event(dict(status_and_body(error)[1]))
        finally:
            await stream.aclose()

    return StreamingResponse(body(), media_type="text/event-stream", headers=_HEADERS)


def _event(item: Json) -> bytes:
    return b"data: " + json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def _collect(stream: AsyncStream) -> Completion:
    async for _ in stream:
        pass
    completion = stream.completion
    assert completion is not None
    return completion


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
