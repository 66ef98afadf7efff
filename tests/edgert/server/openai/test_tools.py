"""Tools and reasoning through the official client."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.edgert.scripted import ANSWER, CALL, TOOLS, Say
from tests.edgert.server.conftest import Served

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Weather?"}]


def test_calls_and_reasoning(client: openai.OpenAI, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(ANSWER)
    answer = client.chat.completions.create(model=served.llm.name, messages=ASK, tools=TOOLS, tool_choice="auto")
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "One moment."
    assert choice.message.model_extra == {"reasoning_content": "I look."}
    assert choice.message.tool_calls is not None
    first, second = choice.message.tool_calls
    assert (first.type, first.function.name) == ("function", "get_weather")
    assert json.loads(first.function.arguments) == {"city": "Zürich"}
    assert (second.function.name, second.function.arguments) == ("now", "{}")
    assert first.id != second.id
    # The message goes back as it is, with what the tools said.
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in (first, second)]
    say("Sunny.")
    last = client.chat.completions.create(model=served.llm.name, messages=[*ASK, choice.message, *results], tools=TOOLS)
    assert last.choices[0].message.content == "Sunny."
    assert last.choices[0].message.tool_calls is None
    assert last.choices[0].finish_reason == "stop"


def test_a_call_alone_has_no_content(client: openai.OpenAI, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(CALL)
    message = client.chat.completions.create(model=served.llm.name, messages=ASK, tools=TOOLS).choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert not message.model_extra


def test_streamed(client: openai.OpenAI, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(ANSWER)
    chunks = list(client.chat.completions.create(model=served.llm.name, messages=ASK, tools=TOOLS, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "One moment."
    assert "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas) == "I look."
    pieces = [piece for delta in deltas for piece in delta.tool_calls or []]
    assert [piece.function.name for piece in pieces if piece.id] == ["get_weather", "now"]
    for index, arguments in enumerate(['{"city": "Zürich"}', "{}"]):
        texts = [piece.function.arguments or "" for piece in pieces if piece.index == index]
        assert "".join(texts) == arguments
        assert all(piece.type == "function" for piece in pieces if piece.id)
    assert sum(piece.index == 0 for piece in pieces) > 3  # while they are written
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["tool_calls"]


def test_a_malformed_call_is_text(client: openai.OpenAI, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    answer = '<tool_call>\n{"name": "now", "arguments": {"a": oops}}\n</tool_call>'
    say(answer)
    choice = client.chat.completions.create(model=served.llm.name, messages=ASK, tools=TOOLS).choices[0]
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (answer, None, "stop")
    say(answer)
    chunks = list(client.chat.completions.create(model=served.llm.name, messages=ASK, tools=TOOLS, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_clients_own_accumulation(client: openai.OpenAI, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(ANSWER)
    with client.chat.completions.stream(model=served.llm.name, messages=ASK, tools=TOOLS) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.content == "One moment."
    assert message.tool_calls is not None
    assert [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls] == [
        ("get_weather", {"city": "Zürich"}),
        ("now", {}),
    ]


def test_choices(client: openai.OpenAI, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(CALL)
    none = client.chat.completions.create(model=served.llm.name, messages=ASK, tools=TOOLS, tool_choice="none")
    assert none.choices[0].message.content == CALL
    assert none.choices[0].finish_reason == "stop"
    say(CALL * 2)
    one = client.chat.completions.create(model=served.llm.name, messages=ASK, tools=TOOLS, parallel_tool_calls=False)
    assert len(one.choices[0].message.tool_calls or []) == 1
    say("Yes.")
    body = {"chat_template_kwargs": {"enable_thinking": False}}
    answer = client.chat.completions.create(model=served.llm.name, messages=ASK, extra_body=body)
    assert answer.choices[0].message.content == "Yes."


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"tool_choice": "always"}, "tool_choice", "'always' is not known; use 'auto', 'none', 'required'"),
        ({"tool_choice": "required", "tools": []}, "tool_choice", "there are no tools to call"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "never"}}},
            "tool_choice",
            "there is no tool 'never'; there are: get_weather, now",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]},
            "tools",
            "the schema has keywords that are not supported: not",
        ),
        (
            {"tool_choice": "required", "tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools",
            "a call cannot be held to the name 'a b'",
        ),
        ({"tools": [{"type": "function", "function": {}}]}, "tools", "Field required"),
        ({"tools": [{"type": "custom"}]}, "tools", "'function'"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "chat template has no use for 'high'"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs", "cannot set 'tools'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]}
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
            "is not JSON",
        ),
    ],
    ids=str,
)
def test_what_is_refused(scripted: tuple[Served, Say], change: dict[str, Any], param: str, message: str) -> None:
    served, _ = scripted
    body = {"model": served.llm.name, "messages": ASK, "tools": TOOLS, **change}
    response = httpx.post(f"{served.url}/v1/chat/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert message in error["message"]
