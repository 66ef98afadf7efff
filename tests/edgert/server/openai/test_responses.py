"""POST /v1/responses through the official client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from tests.edgert.scripted import ANSWER, TOOLS, Say

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served

FUNCTIONS = [
    {"type": "function", "name": tool["function"]["name"], "parameters": tool["function"].get("parameters")}
    for tool in TOOLS
]


def test_text(client: openai.OpenAI, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say("Sunny.")
    answer = client.responses.create(
        model=served.llm.name,
        instructions="Be short.",
        input="Weather?",
        temperature=0.5,
        top_p=0.9,
        store=False,
        metadata={"for": "me"},
    )
    assert (answer.output_text, answer.status, answer.incomplete_details) == ("Sunny.", "completed", None)
    assert answer.metadata == {"for": "me"}
    assert answer.usage is not None
    prompt = served.llm.chat_tokens(
        [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Weather?"}]
    )
    assert answer.usage.input_tokens == len(prompt)
    assert answer.usage.total_tokens == len(prompt) + len("Sunny.") + 1
    say("one two three")
    cut = client.responses.create(model=served.llm.name, input="Count", max_output_tokens=3)
    assert (cut.output_text, cut.status) == ("one", "incomplete")
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_items_go_there_and_back(client: openai.OpenAI, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(ANSWER)
    asked: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]}]
    answer = client.responses.create(model=served.llm.name, input=asked, tools=FUNCTIONS)
    reasoning, message, first, second = answer.output
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"]
    assert reasoning.content[0].text == "I look."
    assert message.content[0].text == "One moment."
    assert (first.name, first.arguments, second.name, second.arguments) == (
        "get_weather",
        '{"city": "Zürich"}',
        "now",
        "{}",
    )
    assert answer.usage is not None
    assert 0 < answer.usage.output_tokens_details.reasoning_tokens < answer.usage.output_tokens
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in (first, second)]
    say("Sunny.")
    last = client.responses.create(model=served.llm.name, input=[*asked, *answer.output, *results], tools=FUNCTIONS)
    assert last.output_text == "Sunny."
    calls = [
        {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in (first, second)
    ]
    same = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "One moment.", "reasoning_content": "I look.", "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call.call_id, "content": "sunny"} for call in (first, second)),
    ]
    assert last.usage is not None
    assert last.usage.input_tokens == len(served.llm.chat_tokens(same, tools=TOOLS))


def test_streamed(client: openai.OpenAI, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(ANSWER)
    with client.responses.stream(model=served.llm.name, input="Weather?", tools=FUNCTIONS) as stream:
        seen = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    kinds = [event.type for event in seen]
    assert (kinds[0], kinds[1], kinds[-1]) == ("response.created", "response.in_progress", "response.completed")
    assert kinds.count("response.output_text.delta") > 3  # while it is written
    assert kinds.count("response.reasoning_text.delta") > 3
    assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == "One moment."
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 4
    done = [event.item for event in seen if event.type == "response.output_item.done"]
    assert [item.id for item in done] == [item.id for item in final.output]
    say(ANSWER)
    whole = client.responses.create(model=served.llm.name, input="Weather?", tools=FUNCTIONS)

    def free_of_ids(items: Any) -> list[dict[str, Any]]:
        ids = ("id", "call_id")
        return [{key: value for key, value in item.to_dict().items() if key not in ids} for item in items]

    assert free_of_ids(done) == free_of_ids(whole.output)
    assert final.usage is not None
    assert whole.usage is not None
    assert final.usage.output_tokens_details == whole.usage.output_tokens_details


def test_errors_on_the_way(
    client: openai.OpenAI, scripted: tuple[Served, Say], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, say = scripted
    say("x")
    monkeypatch.setattr(served.llm._engine._worker.session, "script", ())  # the next step fails
    seen = list(client.responses.create(model=served.llm.name, input="x", stream=True))
    assert seen[-1].type == "error"
    assert "the step failed" in seen[-1].message
    assert seen[-1].sequence_number == 2


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"store": True}, "store", "this server keeps no responses"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the whole conversation as input"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools to call"),
        ({"tools": [{"type": "web_search"}]}, "tools", "function"),
        ({"text": {"format": {"type": "json_schema"}}}, "text", "Field required"),
        ({"text": {"format": {"type": "json_schema", "schema": {"not": {}}}}}, "text.format", "not supported: not"),
        ({"truncation": "middle"}, "truncation", "'disabled'"),
        ({"include": ["reasoning.encrypted_content"]}, "include", "at most 0 items"),
        ({"background": True}, "background", "False"),
        ({"reasoning": {"effort": "high"}}, "reasoning_effort", "has no use for 'high'"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input", "'message'"),
        ({"input": []}, "input", "at least 1 item"),
        ({"conversation": "x"}, "conversation", "Extra inputs are not permitted"),
        ({"max_output_tokens": 4000}, "max_tokens", "the context holds 2048"),
    ],
    ids=str,
)
def test_what_is_refused(scripted: tuple[Served, Say], change: dict[str, Any], param: str, message: str) -> None:
    served, _ = scripted
    response = httpx.post(
        f"{served.url}/v1/responses", json={"model": served.llm.name, "input": "x", **change}, timeout=60
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert message in response.json()["error"]["message"]
