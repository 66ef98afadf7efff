from __future__ import annotations

import re
from typing import Any

import pytest

from edgert.text.parsing import CallArguments, CallStart, Content, Reasoning, dialect
from tests.edgert.text.parsing.answers import ANSWERS, MALFORMED, THINK, events_of, parse

INNER = ("<|inner_prefix|>", "<|inner_suffix|>")


@pytest.mark.parametrize(("name", "answer", "content", "calls"), ANSWERS)
def test_calls_are_found(name: str, answer: str, content: str, calls: list[tuple[str, Any]]) -> None:
    for pieces in (answer, list(answer)):
        found = parse(name, pieces)
        assert (found.content, found.calls, found.dropped) == (content, calls, 0)
        assert found.reasoning == ""


@pytest.mark.parametrize(("name", "answer", "calls"), MALFORMED)
def test_a_malformed_call_is_text(name: str, answer: str, calls: list[tuple[str, Any]]) -> None:
    for pieces in (answer, list(answer)):
        found = parse(name, pieces)
        assert found.calls == calls
        if calls:
            assert found.content.strip()
            assert answer.endswith(found.content)
        else:
            assert found.content == answer


def test_calls_after_a_malformed_one_are_found() -> None:
    found = parse("hermes", '<tool_call>{oops}</tool_call>\n<tool_call>{"name": "now"}</tool_call>')
    assert found.content == "<tool_call>{oops}</tool_call>"
    assert found.calls == [("now", {})]


def test_ids() -> None:
    assert parse("kimi-k2", ANSWERS[[name for name, *_ in ANSWERS].index("kimi-k2")][1]).ids == [
        "functions.get_weather:0",
        "functions.now:1",
    ]
    new, given = parse("mistral", "[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]now[CALL_ID]abcdef123[ARGS]{}").ids
    assert re.fullmatch("[0-9A-Za-z]{9}", new)
    assert given == "abcdef123"
    first, second = parse("hermes", '<tool_call>{"name": "now"}{"name": "now"}</tool_call>').ids
    assert first != second
    assert re.fullmatch("call_[0-9a-f]{24}", first)
    assert parse("command-r", '<|START_ACTION|>[{"tool_call_id": "7", "tool_name": "now"}]').ids == ["7"]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("hermes", '<tool_call>{"name": "save", "arguments": {"body": "one two three four'),
        ("qwen3-coder", "<tool_call>\n<function=save>\n<parameter=body>\none two three four"),
        ("lfm2", "<|tool_call_start|>[save(body='one two three four"),
        ("harmony", '<|channel|>commentary to=functions.save<|message|>{"body": "one two three four'),
    ],
)
def test_arguments_come_while_they_are_written(name: str, answer: str) -> None:
    events = events_of(name, list(answer))
    assert isinstance(events[0], CallStart)
    told = "".join(event.text for event in events if isinstance(event, CallArguments))
    assert told == '{"body": "one two three four'


def test_an_answer_in_json_is_no_call_from_its_first_key_on() -> None:
    assert events_of("llama", ['{"answer": ', "4", "2}"]) == [Content('{"answer": 4'), Content("2}")]
    call = '{"type": "function", "name": "now", "parameters": {}}'
    assert parse("llama", list(call)).calls == [("now", {})]


def test_content_is_held_back_only_where_it_may_be_a_tag() -> None:
    texts = [getattr(event, "text", "") for event in events_of("hermes", ["a <", "b> <tool", "box> c "])]
    assert texts == ["a", " <b>", " <toolbox> c", " "]


@pytest.mark.parametrize(
    ("answer", "prompt", "reasoning", "content"),
    [
        ("<think>\nhm, hm\n</think>\n\nYes", "", "hm, hm", "Yes"),
        ("\n<think></think>\nYes ", "", "", "Yes "),
        ("hm\n</think>\n\nYes", "<|im_start|>assistant\n<think>\n", "hm", "Yes"),
        ("Yes", "<think>\n\n</think>\n\n", "", "Yes"),
        ("Yes: <think> is a tag </think>", "", "", "Yes: <think> is a tag </think>"),
        ("<think>never done", "", "never done", ""),
        ("<thinking>", "", "", "<thinking>"),
        ("", "", "", ""),
    ],
)
def test_reasoning(answer: str, prompt: str, reasoning: str, content: str) -> None:
    for name, pieces in ((None, answer), ("hermes", list(answer))):
        found = parse(name, pieces, reasoning=THINK, prompt=prompt)
        assert (found.reasoning, found.content, found.calls) == (reasoning, content, [])


def test_reasoning_then_a_call() -> None:
    answer = '<think>\nI need <tool_call>.\n</think>\n\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    found = parse("hermes", answer, reasoning=THINK)
    assert (found.reasoning, found.content, found.calls) == ("I need <tool_call>.", "", [("now", {})])


def test_harmony_channels() -> None:
    answer = (
        "<|channel|>analysis<|message|>one<|end|><|start|>assistant<|channel|>analysis<|message|>two<|end|>"
        "<|start|>assistant<|channel|>final<|message|>three<|return|>"
    )
    for tools in ([], [{"type": "function", "function": {"name": "f"}}]):
        found = parse("harmony", list(answer), tools=tools)
        assert (found.reasoning, found.content) == ("one\ntwo", "three")
    assert events_of("harmony", answer) == [Reasoning("one\ntwo"), Content("three")]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("solar-open", "<|think|>hm <b><|end|><|begin|>assistant<|content|>Yes<|end|>"),
        ("muse", " to=self<|message|>hm <b><|eom|><|start|>assistant to=user<|message|>Yes<|eot|>"),
    ],
)
def test_reasoning_is_a_part(name: str, answer: str) -> None:
    for tools in ([], [{"type": "function", "function": {"name": "f"}}]):
        found = parse(name, list(answer), tools=tools)
        assert (found.reasoning, found.content) == ("hm <b>", "Yes")


@pytest.mark.parametrize(
    ("templates", "tokens", "name", "reasoning", "thoughts"),
    [
        (["<|open|> <|close|> <|sep|>"], [], "kimi-k3", ("<|open|>think<|sep|>", "<|close|>think<|sep|>"), True),
        (["<tool_calls{}>"], [], "hunyuan-3", ("<think:opensource>", "</think:opensource>"), True),
        (["<|tool_call:begin|>"], [], "solar-open", None, True),
        (["<｜DSML｜ function_calls"], [], "deepseek-v3.2", None, False),
        (["<｜DSML｜ tool_calls"], ["<think>", "</think>"], "deepseek-v4", ("<think>", "</think>"), True),
        (["tools"], ["<|tools_prefix|>", "<|inner_prefix|>", "<|inner_suffix|>"], "apertus", INNER, True),
        (["plain"], [], None, None, False),
    ],
)
def test_dialects(
    templates: list[str], tokens: list[str], name: str | None, reasoning: tuple[str, str] | None, thoughts: bool
) -> None:
    found = dialect(templates, tokens)
    assert (found.calls and found.calls.name) == name
    assert found.reasoning == reasoning
    assert (found.thoughts is not None) == thoughts


def test_all_tags_must_be_seen_where_tools_are_given() -> None:
    glm = dialect(["<arg_key>"])
    assert not any("</arg_value>" in text for text in glm.markers(tools=False))
    assert any("</arg_value>" in text for text in glm.markers(tools=True))


@pytest.mark.parametrize(
    ("schema", "written", "value"),
    [
        ("string", "12", "12"),
        ("integer", "12", 12),
        ("integer", "twelve", "twelve"),
        ("number", "12", 12),
        ("boolean", "False", False),
        ("array", '["a"]', ["a"]),
        ("object", '{"a": null}', {"a": None}),
        ({}, "12", 12),
        ({}, "plain", "plain"),
        ({}, '"quoted"', "quoted"),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, '"quoted"', '"quoted"'),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "x1", "x1"),
        ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, "None", None),
        ({"enum": ["a", "1"]}, "1", "1"),
        ({"enum": [1, 2]}, "1", 1),
        ({"type": "number"}, "NaN", "NaN"),
        ({"type": 5}, "x", "x"),
        ("integer", "9" * 5000, "9" * 5000),
    ],
)
def test_parameters_are_read_by_their_schema(schema: Any, written: str, value: Any) -> None:
    schema = {"type": schema} if isinstance(schema, str) else schema
    parameters = {"type": "object", "properties": {"x": schema}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    answer = f"<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>{written}</arg_value></tool_call>"
    assert parse("glm-4.5", answer, tools=tools).calls == [("f", {"x": value})]


def test_references_within_trees_are_followed() -> None:
    mark, item = "]<]minimax[>[", {"type": "object", "properties": {"k": {"type": "string"}}}
    parameters = {
        "$defs": {"item": item},
        "properties": {"list": {"type": "array", "items": {"$ref": "#/$defs/item"}}, "odd": {"properties": []}},
    }
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    answer = (
        '@<tool_call>@<invoke name="f">@<list>@<item>@<k>12@</k>@</item>@</list>@<odd>@<k>1@</k>@</odd>'
        "@</invoke>@</tool_call>".replace("@", mark)
    )
    assert parse("minimax-m3", answer, tools=tools).calls == [("f", {"list": [{"k": "12"}], "odd": {"k": 1}})]
