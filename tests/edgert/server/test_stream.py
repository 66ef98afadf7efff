"""Streams while there is nothing to say, and while there is more than a client takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import anthropic
import httpx
import openai

from edgert.completion import Chunk
from edgert.server.stream import _AHEAD, _merged

if TYPE_CHECKING:
    import pytest

    from edgert.answer import AsyncStream
    from tests.edgert.scripted import Say
    from tests.edgert.server.conftest import Served


def test_a_silent_stream_says_that_it_is_there(scripted: tuple[Served, Say], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgert.server.stream.SILENCE", 0.02)
    served, say = scripted
    say("ab", pace=0.2)
    body = {"model": served.llm.name, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    text = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60).text
    assert text.count(": still there\n\n") > 3
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
        say("ab", pace=0.2)
        chunks = list(client.chat.completions.create(**body))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "ab"
    with anthropic.Anthropic(base_url=served.url, api_key="none") as client:
        say("ab", pace=0.2)
        with client.messages.stream(model=served.llm.name, messages=body["messages"], max_tokens=9) as stream:
            assert "".join(stream.text_stream) == "ab"


class Endless:
    """A stream that always has another chunk, and counts those that were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> Chunk:
        self.taken += 1
        return Chunk(text="x", token_ids=[1])


class Closed(Endless):
    """One that ends without a last chunk."""

    async def __anext__(self) -> Chunk:
        if self.taken == 3:
            raise StopAsyncIteration
        return await super().__anext__()


def write(index: int, chunk: Chunk) -> bytes:
    return f"{index}{chunk.text}".encode()


def test_pieces_come_together_and_few_are_made_ahead() -> None:
    async def run() -> None:
        endless = Endless()
        pieces = _merged([cast("AsyncStream", endless)], write, b"")
        first = await anext(pieces)
        written = len(first) // len("0x")
        assert written > 1
        for _ in range(100):
            await asyncio.sleep(0)  # nobody takes any
        assert endless.taken <= written + _AHEAD + 1
        await pieces.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())


def test_a_stream_that_is_closed_ends() -> None:
    async def run() -> bytes:
        streams = [cast("AsyncStream", Closed()) for _ in range(2)]
        return b"".join([pieces async for pieces in _merged(streams, write, b"")])

    assert sorted(asyncio.run(run())) == sorted(b"0x1x" * 3)


def test_a_chunk_is_written_before_the_next_is_asked_for() -> None:
    """So what is told with a chunk is what its stream was like then, however slow the client."""
    stream, seen = Closed(), list[int]()

    def look(index: int, chunk: Chunk) -> bytes:
        seen.append(stream.taken)
        return b"x"

    async def run() -> None:
        async for _ in _merged([cast("AsyncStream", stream)], look, b""):
            pass

    asyncio.run(run())
    assert seen == [1, 2, 3]
