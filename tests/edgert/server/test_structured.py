"""The form of answers, over HTTP: every protocol's way to ask for it, and its way to ask for calls."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from tests.edgert.scripted import Say
from tests.edgert.server.conftest import Served

ASK: Any = [{"role": "user", "content": "Which?"}]
LEVEL = {
    "type": "object",
    "properties": {"level": {"enum": [1, 2]}},
    "required": ["level"],
    "additionalProperties": False,
}
FUNCTION: dict[str, Any] = {"name": "set_light", "parameters": LEVEL}
TOOLS: Any = [
    {"type": "function", "function": FUNCTION},
    {"type": "function", "function": {"name": "now", "parameters": {"additionalProperties": False}}},
]
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "level", "schema": LEVEL, "strict": True}}


def chat(served: Served, **more: Any) -> dict[str, Any]:
    body = {"model": served.llm.name, "messages": ASK, "temperature": 0, "max_tokens": 400, **more}
    response = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    choice: dict[str, Any] = response.json()["choices"][0]
    return choice


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": SCHEMA},
        {"response_format": {"type": "json_object", "schema": LEVEL}},
        {"json_schema": LEVEL},
        {"structured_outputs": {"json": LEVEL}},
        {"structured_outputs": {"json": json.dumps(LEVEL)}},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_schemas(scripted: tuple[Served, Say], asked: dict[str, Any]) -> None:
    served, say = scripted
    say("{oops")
    choice = chat(served, **asked)
    assert json.loads(choice["message"]["content"])["level"] in (1, 2)
    assert choice["finish_reason"] == "stop"
    say("<think>\nI {look}.\n</think>\n\nSure: 2")
    choice = chat(served, **asked)
    assert choice["message"]["reasoning_content"] == "I {look}."
    assert json.loads(choice["message"]["content"])["level"] in (1, 2)


def test_the_other_kinds(scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    for asked, begin, allowed in (
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "y", {"yes"}),
        ({"structured_outputs": {"regex": "[ab]{2}"}}, "b", {"ba", "bb"}),
        ({"structured_outputs": {"grammar": 'start: "x"'}}, "x", {"x"}),
        ({"grammar": 'root ::= "x" [yz]'}, "x", {"xy", "xz"}),
    ):
        say(f"{begin}oops")
        assert chat(served, **asked)["message"]["content"] in allowed
        say(f"{begin}oops")
        body = {"model": served.llm.name, "prompt": "x", "temperature": 0, "n": 1, **asked}
        response = httpx.post(f"{served.url}/v1/completions", json=body, timeout=60)
        assert response.json()["choices"][0]["text"] in allowed
    say("{}oops")
    assert chat(served, structured_outputs={"json_object": True})["message"]["content"] == "{}"


def test_several_choices_and_streams(served: Served) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        asked = {"model": served.llm.name, "messages": ASK, "response_format": SCHEMA, "seed": 3, "max_tokens": 80}
        answer = client.chat.completions.create(**asked, n=3)
        texts = [choice.message.content for choice in answer.choices]
        for text, choice in zip(texts, answer.choices, strict=True):
            assert choice.finish_reason == "length" or json.loads(text)["level"] in (1, 2)
        chunks = list(client.chat.completions.create(**asked, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == texts[0]


def test_calls_that_are_asked_for(scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    named = {"type": "function", "function": {"name": "set_light"}}
    for tool_choice, names in (("required", {"set_light", "now"}), (named, {"set_light"})):
        say("<tool_call>oops")
        choice = chat(served, tools=TOOLS, tool_choice=tool_choice, parallel_tool_calls=False)
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] in names
        arguments = json.loads(call["function"]["arguments"])
        assert arguments == {} if call["function"]["name"] == "now" else arguments["level"] in (1, 2)
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)


def test_strict_tools_and_free_choice(scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    strict = [{"type": "function", "function": {**FUNCTION, "strict": True}}, TOOLS[1]]
    say("No call.")
    assert chat(served, tools=strict)["message"]["content"] == "No call."
    say('Look: <tool_call>\n{"name": "set_light", "arguments": {"level": 7}}\n</tool_call>')
    message = chat(served, tools=strict)["message"]
    assert message["content"] == "Look:"
    assert json.loads(message["tool_calls"][0]["function"]["arguments"])["level"] in (1, 2)
    # Without strict, arguments are the model's own business.
    say('<tool_call>\n{"name": "set_light", "arguments": {"level": 7}}\n</tool_call>')
    message = chat(served, tools=TOOLS)["message"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"level": 7}
    # Calls or content of the schema.
    say('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>')
    assert chat(served, tools=TOOLS, response_format=SCHEMA)["message"]["tool_calls"][0]["function"]["name"] == "now"
    say("{oops")
    assert json.loads(chat(served, tools=TOOLS, response_format=SCHEMA)["message"]["content"])["level"] in (1, 2)


def test_responses(scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    asked: dict[str, Any] = {"model": served.llm.name, "input": "Which?", "temperature": 0, "max_output_tokens": 400}
    tools: Any = [{"type": "function", "strict": True, **FUNCTION}]
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        say("{oops")
        form: Any = {"type": "json_schema", "name": "level", "schema": LEVEL, "strict": True}
        answer = client.responses.create(**asked, text={"format": form})
        assert json.loads(answer.output_text)["level"] in (1, 2)
        assert answer.text is not None
        assert answer.text.format is not None
        assert answer.text.format.type == "json_schema"
        for tool_choice in ("required", {"type": "function", "name": "set_light"}):
            say("<tool_call>oops")
            answer = client.responses.create(
                **asked,
                tools=tools,
                tool_choice=tool_choice,
                parallel_tool_calls=False,  # type: ignore[arg-type]
            )
            (call,) = answer.output
            assert call.type == "function_call"
            assert json.loads(call.arguments)["level"] in (1, 2)


def test_anthropic(scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    asked: Any = {"model": served.llm.name, "messages": ASK, "max_tokens": 400, "extra_body": {"temperature": 0}}
    tools: Any = [{"name": "set_light", "input_schema": LEVEL}]
    with anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0, timeout=60) as client:
        for choice in ({"type": "any"}, {"type": "tool", "name": "set_light"}):
            say("<tool_call>oops")
            tool_choice: Any = {**choice, "disable_parallel_tool_use": True}
            answer = client.messages.create(**asked, tools=tools, tool_choice=tool_choice)
            (block,) = answer.content
            assert block.type == "tool_use"
            assert block.input["level"] in (1, 2)
            assert answer.stop_reason == "tool_use"
        say("{oops")
        form = {"format": {"type": "json_schema", "schema": LEVEL}}
        answer = client.messages.create(**{**asked, "extra_body": {"temperature": 0, "output_config": form}})
        assert json.loads(answer.content[0].text)["level"] in (1, 2)  # type: ignore[union-attr]


def test_ollama(scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    client = ollama.Client(served.url)
    options = {"temperature": 0, "num_predict": 400}
    say("{oops")
    answer = client.chat(served.llm.name, ASK, format=LEVEL, options=options)
    assert json.loads(answer.message.content or "")["level"] in (1, 2)
    say("{oops")
    raw = client.generate(served.llm.name, "x", format=LEVEL, options=options, raw=True)
    assert json.loads(raw.response)["level"] in (1, 2)
    say("{}oops")
    assert client.generate(served.llm.name, "x", format="json", options=options).response == "{}"
    client._client.close()


def test_hostile_forms_leave_the_server_up(served: Served) -> None:
    nested = "(" * 30_000 + '"a"' + ")" * 30_000
    large = {"allOf": [{"anyOf": [{"properties": {f"k{i}{j}": {}}} for j in range(10)]} for i in range(12)]}
    for asked, param, message in (
        ({"structured_outputs": {"regex": nested}}, "structured_outputs", "structured_outputs: "),
        ({"grammar": f"start: {nested}"}, "grammar", "nested"),
        ({"grammar": f"root ::= {nested}"}, "grammar", "nested"),
        ({"grammar": "x" * 70_000}, "grammar", "at most 65536 are taken"),
        ({"json_schema": large}, "json_schema", "too large"),
        ({"json_schema": {"$ref": "#/nowhere"}}, "json_schema", "does not exist"),
    ):
        body = {"model": served.llm.name, "messages": ASK, "max_tokens": 5, **asked}
        response = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["param"] == param
        assert message in error["message"]
        assert len(error["message"]) < 500
    assert httpx.get(f"{served.url}/health").json()["status"] == "ok"
