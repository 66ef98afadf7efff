"""Running the choices of one request for a client: whole or piece by piece, ended when the client goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from edgert_models.errors import EdgertError, RequestError
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from edgert import LLM, Completion, SamplingParams, Usage
from edgert.answer import AsyncStream
from edgert.chat import ChatPrompt
from edgert.completion import Chunk
from edgert.server.errors import ClientGoneError, Form, Json, anthropic_form, ollama_form, openai_form, problem_of

T = TypeVar("T")
SILENCE = 10.0
"""Seconds without a piece after which a stream says that it is still there."""
_AHEAD = 64
"""Pieces that are made before a client has taken those before them: of one that stalls, no more are."""
_SHORT = 1 << 13
"""Characters of a text that is made tokens at once, in a millisecond or so: to wait for a thread may take longer."""
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class Wire:
    """How a protocol streams: what a piece is as bytes, how an error on the way is told, what ends the stream, and what
    is sent while there is nothing to say, so that neither side takes the other for gone.
    """

    media_type: str
    piece: Callable[[Json], bytes]
    error: Form
    end: bytes = b""
    pause: bytes = b""


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
_COMMENT = b": still there\n\n"
"""Which readers of server-sent events pass over (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
OPENAI = Wire(EVENTS, _event, openai_form, b"data: [DONE]\n\n", pause=_COMMENT)
COMPLETION = Wire(EVENTS, _event, openai_form, pause=_COMMENT)
"""llama.cpp's own: the last event says `stop`."""
ANTHROPIC = Wire(EVENTS, named_event, anthropic_form, pause=_COMMENT)
OLLAMA = Wire(LINES, _line, ollama_form)


async def start(
    llm: LLM, prompt: str | Sequence[int] | ChatPrompt, params: SamplingParams, count: int
) -> list[AsyncStream]:
    """So many answers to one prompt, which is computed once. The first is that of `params`; where there is a seed, each
    has that of the one before plus one. None is left running if one cannot begin; RequestError where so many never can.
    """
    if llm.queue_limit is not None and count > (most := llm.queue_limit + llm.limits.sequences):
        reason = f"n: {count} answers at once are more than the {most} that may run and wait here"
        raise RequestError(reason, parameter="n")
    seed = llm.seed if params.seed is None else params.seed
    tokens = prompt if not isinstance(prompt, str) else await _tokens(llm, prompt)
    if params.structured_outputs is not None or (isinstance(prompt, ChatPrompt) and prompt.tools):
        await run_in_threadpool(llm.prepare, tokens, params)  # what is to be compiled holds up nobody else
    streams: list[AsyncStream] = []
    try:
        for index in range(count):
            own = params if seed is None else replace(params, seed=(seed + index) % 2**64)
            streams.append(llm.astream(tokens, own))
    except EdgertError:
        await _close(streams)
        raise
    return streams


async def _tokens(llm: LLM, text: str) -> list[int]:
    """In a thread, where it takes a while in which streams would stand still, as it does of megabytes."""
    return llm.tokenize(text) if len(text) <= _SHORT else await run_in_threadpool(llm.tokenize, text)


async def start_one(llm: LLM, prompt: str | Sequence[int] | ChatPrompt, params: SamplingParams) -> AsyncStream:
    """One answer to a prompt."""
    return (await start(llm, prompt, params, 1))[0]


async def whole(stream: AsyncStream, request: Request, take: Callable[[Chunk], object] | None = None) -> Completion:
    """The Completion; `take` is given every chunk of it. The request is cancelled if the client leaves meanwhile."""
    return (await whole_choices([stream], request, take))[0]


async def whole_choices(
    streams: Sequence[AsyncStream], request: Request, take: Callable[[Chunk], object] | None = None
) -> list[Completion]:
    """The Completions; all are cancelled if the client leaves while they are made, or one fails."""

    async def collect() -> list[Completion]:
        return list(await asyncio.gather(*(_collect(stream, take) for stream in streams)))

    try:
        return await while_there(request, collect())
    finally:
        await _close(streams)


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
    return choice_events([stream], first, lambda _, chunk: each(chunk), lambda _: (), wire)


def choice_events(
    streams: Sequence[AsyncStream],
    first: Iterable[Json],
    each: Callable[[int, Chunk], Iterable[Json]],
    last: Callable[[Usage], Iterable[Json]],
    wire: Wire = OPENAI,
) -> StreamingResponse:
    """As `events`, of several choices as they come: `each` is given their index, and `last` the usage of all."""

    usages: dict[int, Usage] = {}

    def write(index: int, chunk: Chunk) -> bytes:
        if chunk.usage is not None:
            usages[index] = chunk.usage
        return b"".join(map(wire.piece, each(index, chunk)))

    async def body() -> AsyncIterator[bytes]:
        try:
            for item in first:
                yield wire.piece(item)
            async for pieces in _merged(streams, write, wire.pause):
                yield pieces
            for item in last(total([usages[index] for index in range(len(streams))])):
                yield wire.piece(item)
            if wire.end:
                yield wire.end
        except EdgertError as error:
            yield wire.piece(wire.error(problem_of(error)))
        finally:
            await _close(streams)

    dropped = max(stream.dropped_tokens for stream in streams)
    headers = {**_HEADERS, "X-Dropped-Tokens": str(dropped)} if dropped else _HEADERS
    return StreamingResponse(body(), media_type=wire.media_type, headers=headers)


def total(usages: Sequence[Usage]) -> Usage:
    """Of all choices: the prompt counts once, as the first had it."""
    return replace(usages[0], completion_tokens=sum(usage.completion_tokens for usage in usages))


async def _merged(
    streams: Sequence[AsyncStream], write: Callable[[int, Chunk], bytes], pause: bytes
) -> AsyncIterator[bytes]:
    """What `write` makes of the chunks of all, given their choice's index, as much at a time as there is; `pause` after
    each SILENCE. A chunk is written before its stream is asked for the next one.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | Exception] = asyncio.Queue(_AHEAD)
    heard = loop.time()

    async def pump(index: int, stream: AsyncStream) -> None:
        try:
            async for chunk in stream:
                await queue.put(write(index, chunk))
            await queue.put(StopAsyncIteration())
        except Exception as error:
            await queue.put(error)

    async def listen() -> None:
        """A deadline for each chunk would cost more than the chunk."""
        nonlocal heard
        while True:
            await asyncio.sleep(heard + SILENCE - loop.time())
            if loop.time() - heard >= SILENCE:
                heard = loop.time()
                await queue.put(pause)

    tasks = [asyncio.ensure_future(pump(index, stream)) for index, stream in enumerate(streams)]
    tasks.append(asyncio.ensure_future(listen()))
    unfinished = len(streams)
    try:
        while unfinished:
            found = [await queue.get()]
            while not queue.empty():
                found.append(queue.get_nowait())
            heard = loop.time()
            ended = [item for item in found if isinstance(item, Exception)]
            if pieces := b"".join(item for item in found if isinstance(item, bytes)):
                yield pieces
            unfinished -= len(ended)
            for error in ended:
                if not isinstance(error, StopAsyncIteration):
                    raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _collect(stream: AsyncStream, take: Callable[[Chunk], object] | None) -> Completion:
    async for chunk in stream:
        if take is not None:
            take(chunk)
    completion = stream.completion
    assert completion is not None
    return completion


async def _close(streams: Sequence[AsyncStream]) -> None:
    for stream in streams:
        await stream.aclose()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
