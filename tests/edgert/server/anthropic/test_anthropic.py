"""Anthropic's official client against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import anthropic
import httpx
import pytest

from tests.edgert.scripted import ANSWER, CALL, TOOLS, Say

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Weather?"}]
CUSTOM = [
    {"name": tool["function"]["name"], "input_schema": tool["function"].get("parameters", {"type": "object"})}
    for tool in TOOLS
]


@pytest.fixture
def client(scripted: tuple[Served, Say]) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=scripted[0].url, api_key="none", max_retries=0, timeout=60) as made:
        yield made


def test_text(client: anthropic.Anthropic, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say("Sunny.")
    answer = client.messages.create(
        model=served.llm.name,
        system=[{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}],
        messages=ASK,
        max_tokens=100,
        extra_body={"temperature": 0.5, "top_k": 5, "top_p": 0.9},
        metadata={"user_id": "me"},
    )
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": "Sunny."}]
    assert (answer.role, answer.model, answer.stop_reason) == ("assistant", served.llm.name, "end_turn")
    assert answer.usage.output_tokens == len("Sunny.") + 1  # a token for each letter, and the end
    system = {"role": "system", "content": "Be short."}
    prompt = served.llm.chat_tokens([system, *ASK])
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) == len(prompt)


def test_limits_and_stops(client: anthropic.Anthropic, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say("one two three")
    cut = client.messages.create(model=served.llm.name, messages=ASK, max_tokens=3)
    assert (cut.content[0].text, cut.stop_reason) == ("one", "max_tokens")
    say("one two three")
    stopped = client.messages.create(model=served.llm.name, messages=ASK, max_tokens=50, stop_sequences=[" t"])
    assert (stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence) == ("one", "stop_sequence", " t")


def test_thinking_and_tools(client: anthropic.Anthropic, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(ANSWER)
    answer = client.messages.create(model=served.llm.name, messages=ASK, tools=CUSTOM, max_tokens=500)
    thinking, text, first, second = answer.content
    assert (thinking.type, thinking.thinking) == ("thinking", "I look.")
    assert (text.type, text.text) == ("text", "One moment.")
    assert (first.type, first.name, first.input) == ("tool_use", "get_weather", {"city": "Zürich"})
    assert (second.type, second.name, second.input) == ("tool_use", "now", {})
    assert answer.stop_reason == "tool_use"
    # The blocks go back as they are, with what the tools said.
    results = [
        {"type": "tool_result", "tool_use_id": first.id, "content": [{"type": "text", "text": "sunny"}]},
        {"type": "tool_result", "tool_use_id": second.id, "content": "no clock", "is_error": True},
        {"type": "text", "text": "Well?"},
    ]
    say("Sunny.")
    turns = [*ASK, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    last = client.messages.create(model=served.llm.name, messages=turns, tools=CUSTOM, max_tokens=500)
    assert last.content[0].text == "Sunny."
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.input}}
        for call in (first, second)
    ]
    same = [
        *ASK,
        {"role": "assistant", "content": "One moment.", "reasoning_content": "I look.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": first.id, "content": "sunny"},
        {"role": "tool", "tool_call_id": second.id, "content": "Error: no clock"},
        {"role": "user", "content": "Well?"},
    ]
    counted = client.messages.count_tokens(model=served.llm.name, messages=turns, tools=CUSTOM)
    tools = [
        {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}} for tool in CUSTOM
    ]
    assert counted.input_tokens == len(served.llm.chat_tokens(same, tools=tools))


def test_streamed(client: anthropic.Anthropic, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(ANSWER)
    with client.messages.stream(model=served.llm.name, messages=ASK, tools=CUSTOM, max_tokens=500) as stream:
        seen = list(stream)
        message = stream.get_final_message()
    raw = [event for event in seen if event.type.startswith(("message", "content_block"))]
    assert (raw[0].type, raw[-1].type) == ("message_start", "message_stop")
    assert sum(event.type == "text" for event in seen) > 3  # while it is written
    assert sum(event.type == "thinking" for event in seen) > 3
    say(ANSWER)
    whole = client.messages.create(model=served.llm.name, messages=ASK, tools=CUSTOM, max_tokens=500)

    def free_of_ids(blocks: Any) -> list[dict[str, Any]]:
        return [{key: value for key, value in block.to_dict().items() if key != "id"} for block in blocks]

    assert free_of_ids(message.content) == free_of_ids(whole.content)
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", whole.usage.output_tokens)


def test_a_call_that_is_cut_off_is_text(client: anthropic.Anthropic, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(CALL)
    with client.messages.stream(model=served.llm.name, messages=ASK, tools=CUSTOM, max_tokens=40) as stream:
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["text"]
    assert message.stop_reason == "max_tokens"
    assert message.content[0].text == CALL[: len(message.content[0].text)]
    assert '"get_weather"' in message.content[0].text


def test_choices(client: anthropic.Anthropic, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(CALL)
    asked = {"model": served.llm.name, "messages": ASK, "tools": CUSTOM, "max_tokens": 1500}
    none = client.messages.create(**asked, tool_choice={"type": "none"})
    assert (none.content[0].type, none.stop_reason) == ("text", "end_turn")
    say(CALL * 2)
    one = client.messages.create(**asked, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert [block.type for block in one.content] == ["tool_use"]
    plain = client.messages.count_tokens(model=served.llm.name, messages=ASK, thinking={"type": "adaptive"})
    off = client.messages.count_tokens(model=served.llm.name, messages=ASK, thinking={"type": "disabled"})
    assert off.input_tokens == plain.input_tokens + len("<think></think>")
    say("Yes.")
    on = client.messages.create(**asked, thinking={"type": "enabled", "budget_tokens": 1024})
    assert on.content[0].text == "Yes."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens is 1000000; the context holds 2048"),
        ({"tool_choice": {"type": "any"}}, "tool_choice: there are no tools to call"),
        ({"tool_choice": {"type": "any", "name": "f"}}, "tool_choice: a name goes with the type 'tool'"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"not": {}}}}}, "not supported: not"),
        ({"container": "x"}, "container: Extra inputs are not permitted"),
        ({"messages": [*ASK, {"role": "assistant", "content": "It"}]}, "messages: the last one is the assistant's"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]},
            "messages.0: only the assistant has thinking blocks",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "budget_tokens must be less than max_tokens"),
        ({"output_config": {"effort": "high"}}, "reasoning_effort"),
    ],
    ids=str,
)
def test_what_is_refused(scripted: tuple[Served, Say], change: dict[str, Any], message: str) -> None:
    served, _ = scripted
    body = {"model": served.llm.name, "messages": ASK, "max_tokens": 10, **change}
    response = httpx.post(f"{served.url}/v1/messages", json=body)
    assert response.status_code == 400
    error = response.json()
    assert error.keys() == {"type", "error"}
    assert error["error"]["type"] == "invalid_request_error"
    assert message in error["error"]["message"]


def test_errors_are_the_clients_own(client: anthropic.Anthropic, served_with_key: Served) -> None:
    with pytest.raises(anthropic.NotFoundError, match="the model 'other' does not exist") as caught:
        client.messages.create(model="other", messages=ASK, max_tokens=10)
    assert caught.value.body == {
        "type": "error",
        "error": {"type": "not_found_error", "message": caught.value.body["error"]["message"]},
    }
    asked = {"model": served_with_key.llm.name, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    with (
        anthropic.Anthropic(base_url=served_with_key.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError, match="authentication_error"),
    ):
        stranger.messages.create(**asked)
    with anthropic.Anthropic(base_url=served_with_key.url, api_key="secret", max_retries=0) as friend:
        assert friend.messages.create(**asked).usage.output_tokens <= 2


def test_errors_on_the_way(
    client: anthropic.Anthropic, scripted: tuple[Served, Say], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, say = scripted
    say("x")
    session = served.llm._engine._worker.session
    monkeypatch.setattr(session, "script", ())  # the next step fails
    with (
        pytest.raises(anthropic.APIStatusError, match="the step failed"),
        client.messages.stream(model=served.llm.name, messages=ASK, max_tokens=10) as stream,
    ):
        stream.get_final_message()
