"""Running the choices of one request for a client: whole or as server-sent events, ended when the client goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from edgert_models.errors import EdgertError
from fastapi import Request
from starlette.responses import StreamingResponse

from edgert import LLM, Completion, SamplingParams, Usage
from edgert.answer import AsyncStream
from edgert.completion import Chunk
from edgert.server.errors import status_and_body

Json = dict[str, Any]
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class ClientGoneError(EdgertError):
    """The client closed the connection before the answer was ready."""


async def start(llm: LLM, prompt: str | Sequence[int], params: SamplingParams, count: int) -> list[AsyncStream]:
    """So many answers to one prompt, which is computed once. The first is that of `params`; where there is a seed, each
    has that of the one before plus one. None is left running if one cannot begin.
    """
    seed = llm.seed if params.seed is None else params.seed
    tokens = llm.tokenize(prompt) if isinstance(prompt, str) else prompt
    streams: list[AsyncStream] = []
    try:
        for index in range(count):
            own = params if seed is None else replace(params, seed=(seed + index) % 2**64)
            streams.append(llm.astream(tokens, own))
    except EdgertError:
        await _close(streams)
        raise
    return streams


async def whole(streams: Sequence[AsyncStream], request: Request) -> list[Completion]:
    """The Completions; all are cancelled if the client leaves while they are made, or one fails."""
    collecting = asyncio.gather(*(_collect(stream) for stream in streams))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((collecting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            raise ClientGoneError("the client went away")
        return collecting.result()
    finally:
        await _close(streams)
        for task in (collecting, leaving):
            task.cancel()


def events(
    streams: Sequence[AsyncStream],
    first: list[Json],
    each: Callable[[int, Chunk], list[Json]],
    last: Callable[[Usage], list[Json]],
) -> StreamingResponse:
    """A response of server-sent events: `first`, then what `each` makes of a choice's chunks as they come, then what
    `last` makes of the usage, then [DONE].

    An error on the way is sent as one event in OpenAI's error form, and ends the stream without [DONE].
    """

    async def body() -> AsyncIterator[bytes]:
        usages: dict[int, Usage] = {}
        try:
            for item in first:
                yield _event(item)
            async for index, chunk in _merged(streams):
                if chunk.usage is not None:
                    usages[index] = chunk.usage
                for item in each(index, chunk):
                    yield _event(item)
            for item in last(total([usages[index] for index in range(len(streams))])):
                yield _event(item)
            yield b"data: [DONE]\n\n"
        except EdgertError as error:
            yield _event(dict(status_and_body(error)[1]))
        finally:
            await _close(streams)

    return StreamingResponse(body(), media_type="text/event-stream", headers=_HEADERS)


def total(usages: Sequence[Usage]) -> Usage:
    """Of all choices: the prompt counts once, as the first had it."""
    return replace(usages[0], completion_tokens=sum(usage.completion_tokens for usage in usages))


async def _merged(streams: Sequence[AsyncStream]) -> AsyncIterator[tuple[int, Chunk]]:
    """The chunks of all, each with its choice's index, in the order in which they come."""
    waiting = {asyncio.ensure_future(anext(stream)): index for index, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: waiting[task]):
                index = waiting.pop(task)
                try:
                    chunk = task.result()
                except StopAsyncIteration:
                    continue
                waiting[asyncio.ensure_future(anext(streams[index]))] = index
                yield index, chunk
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _close(streams: Sequence[AsyncStream]) -> None:
    for stream in streams:
        await stream.aclose()


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
