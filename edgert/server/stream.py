"""Running one request for a client: whole or piece by piece, ended when the client goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from edgert_models.errors import EdgertError
from fastapi import Request
from starlette.responses import StreamingResponse

from edgert import Completion
from edgert.answer import AsyncStream
from edgert.completion import Chunk
from edgert.server.errors import ClientGoneError, Form, Json, anthropic_form, ollama_form, openai_form, problem_of

T = TypeVar("T")
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class Wire:
    """How a protocol streams: what a piece is as bytes, how an error on the way is told, and what ends the stream."""

    media_type: str
    piece: Callable[[Json], bytes]
    error: Form
    end: bytes = b""


def _text(item: Json) -> bytes:
    text: str = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def _event(item: Json) -> bytes:
    return b"data: " + _text(item) + b"\n\n"


def named_event(item: Json) -> bytes:
    """A server-sent event that is called what its `type` says."""
    return b"event: " + str(item["type"]).encode() + b"\n" + _event(item)


def _line(item: Json) -> bytes:
    return _text(item) + b"\n"


EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
OPENAI = Wire(EVENTS, _event, openai_form, b"data: [DONE]\n\n")
ANTHROPIC = Wire(EVENTS, named_event, anthropic_form)
OLLAMA = Wire(LINES, _line, ollama_form)


async def whole(stream: AsyncStream, request: Request, take: Callable[[Chunk], object] | None = None) -> Completion:
    """The Completion; `take` is given every chunk of it. The request is cancelled if the client leaves meanwhile."""

    async def collect() -> Completion:
        async for chunk in stream:
            if take is not None:
                take(chunk)
        completion = stream.completion
        assert completion is not None
        return completion

    try:
        return await while_there(request, collect())
    finally:
        await stream.aclose()


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` comes to; it is cancelled, and ClientGoneError raised, when the client leaves before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError("the client went away")
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()


def events(
    stream: AsyncStream, first: Iterable[Json], each: Callable[[Chunk], Iterable[Json]], wire: Wire = OPENAI
) -> StreamingResponse:
    """A streamed response: `first`, then what `each` makes of a chunk, then the end.

    An error on the way is told in the protocol's form, and ends the stream without its end.
    """

    async def body() -> AsyncIterator[bytes]:
        try:
            for item in first:
                yield wire.piece(item)
            async for chunk in stream:
                for item in each(chunk):
                    yield wire.piece(item)
            if wire.end:
                yield wire.end
        except EdgertError as error:
            yield wire.piece(wire.error(problem_of(error)))
        finally:
            await stream.aclose()

    return StreamingResponse(body(), media_type=wire.media_type, headers=_HEADERS)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
