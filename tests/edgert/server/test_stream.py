"""Streams while there is nothing to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anthropic
import httpx
import openai

if TYPE_CHECKING:
    import pytest

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
