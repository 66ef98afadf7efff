"""Whatever an answer's form allows, the parser of the same model reads as what was asked for."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import RequestError

from edgert import StructuredOutputs
from edgert.chat import ChatPrompt
from edgert.completion import ToolCall
from edgert.constraints.arguments import whole_pattern
from edgert.constraints.compile_job import limits, together
from edgert.constraints.form import AnswerForm
from edgert.constraints.lark import quoted
from edgert.reader import Reader
from edgert.text.parsing import FORMATS, CallShape, Dialect

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "set_light",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {
                    "room": {"type": "string", "maxLength": 8},
                    "level": {"type": "integer", "minimum": 0, "maximum": 10},
                },
                "required": ["room", "level"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"additionalProperties": False}}},
]
SHAPES = [
    pytest.param(form.name, shape, id=f"{form.name}-{place}")
    for form in FORMATS
    for place, shape in enumerate(form.shapes)
]
TAGS = ("<think>", "</think>")


ENDED = {
    "harmony": "<|end|><|start|>assistant",
    "solar-open": "<|end|><|begin|>assistant",
    "muse": "<|eom|><|start|>assistant",
}


def ended(name: str) -> str:
    """A prompt after whose end a model of this form does not reason."""
    return ENDED.get(name, "<think></think>")


def prompt(
    name: str,
    shape: CallShape | None,
    *,
    text: str = "",
    forced: tuple[str, ...] = (),
    tools: Sequence[dict[str, Any]] = TOOLS,
) -> ChatPrompt:
    calls = next((form for form in FORMATS if form.name == name), None)
    always = calls is not None and calls.always
    return ChatPrompt(
        text=text,
        token_ids=[],
        tools=list(tools),
        parallel=True,
        dialect=Dialect(calls, None if always else TAGS, shape),
        shown=frozenset(),
        forced=forced,
    )


@lru_cache
def byte_tokenizer() -> Any:
    from llguidance import LLTokenizer

    return LLTokenizer("byte")


def matcher_of(form: AnswerForm) -> Any:
    from llguidance import LLMatcher

    return LLMatcher(byte_tokenizer(), together(form.lark(quoted), None), log_level=0, limits=limits())


def accepted(form: AnswerForm, text: str) -> bool:
    """Whether `text` is a whole answer of this form."""
    matcher = matcher_of(form)
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and bool(matcher.is_accepting())


def going_on(text: bytes, tags: Sequence[str], choice: random.Random) -> int | None:
    """The byte that goes on with one of `tags`, or begins one; mostly None where nothing of one is there."""
    for size in range(min(len(text), 40), 0, -1):
        for tag in (tag.encode() for tag in tags):
            if size < len(tag) and text.endswith(tag[:size]):
                return tag[size]
    return choice.choice(tags).encode()[0] if tags and choice.random() < 0.2 else None


def written(form: AnswerForm, seed: int, most: int = 3000) -> str | None:
    """A random text of this form, byte by byte; None where it found no end."""
    matcher = matcher_of(form)
    choice = random.Random(seed)
    shape = form.calls.shape if form.calls is not None else None
    tags = re.findall("<[^<>]+>", shape.parameters.after) if shape is not None and shape.parameters is not None else []
    text = bytearray()
    while len(text) < most:
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        assert not matcher.is_error(), matcher.get_error()
        allowed = np.flatnonzero(bits)
        if (allowed >= 256).any():  # it may end here
            return text.decode()
        # Mostly what ends strings, keys and space, so that an end is found.
        likely = [byte for byte in allowed if byte < 128 and chr(byte) not in " \n\\"]
        token = int(choice.choice(likely or list(allowed)))
        ending = going_on(bytes(text), tags, choice)
        token = token if ending is None or ending not in allowed else ending
        text.append(token)
        assert matcher.consume_token(token), matcher.get_error()
        if matcher.is_stopped():
            return text.decode()
    return None


def read(prompt: ChatPrompt, text: str) -> Reader:
    reader = prompt.reader()
    reader.push(text, last=True)
    return reader


def check(call: ToolCall) -> None:
    arguments = json.loads(call.arguments)
    if call.name == "now":
        assert arguments == {}
    else:
        assert call.name == "set_light"
        assert arguments.keys() == {"room", "level"}
        assert len(arguments["room"]) <= 8
        assert arguments["level"] in range(11)


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_forced_calls_are_read_as_calls(name: str, shape: CallShape) -> None:
    for forced in (("set_light", "now"), ("now",)):
        asked = prompt(name, shape, forced=forced, text=ended(name))
        form = asked.form(StructuredOutputs(regex="never looked at"))
        assert form is not None
        for seed in range(3):
            text = written(form, seed)
            assert text is not None
            found = read(asked, text)
            assert found.tool_calls, text
            assert not found.text, text
            assert {call.name for call in found.tool_calls} <= set(forced)
            for call in found.tool_calls:
                check(call)


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_content_or_calls(name: str, shape: CallShape) -> None:
    asked = prompt(name, shape, text=ended(name))
    form = asked.form(StructuredOutputs(regex="(yes|no)!"))
    assert form is not None
    for seed in range(4):
        text = written(form, seed)
        assert text is not None
        found = read(asked, text)
        assert found.tool_calls or found.text in ("yes!", "no!"), text
        assert not (found.tool_calls and found.text)


def spelled(shape: CallShape, arguments: dict[str, Any]) -> str:
    """Arguments as a model would write them."""
    written = shape.parameters
    if written is None:
        return json.dumps(arguments)
    parts = []
    for key, value in arguments.items():
        text = value if isinstance(value, str) and written.values == "plain" else json.dumps(value)
        text = text.replace('"', written.mark) if written.mark else text
        plain = written.plain_before if isinstance(value, str) else ""
        parts.append((plain or written.before).replace("KEY", key) + text + written.after)
    return written.between.join(parts)


def test_strict_calls_amid_text() -> None:
    told = [form for form in FORMATS if form.shapes and (form.shapes[0].trigger or form.content)]
    for name, shape in [(form.name, form.shapes[0]) for form in told]:
        form = prompt(name, shape, text=ended(name)).form(None)
        assert form is not None
        opening = form.opening
        begin = shape.opening + shape.before

        def call(function: str, **arguments: Any) -> str:
            text = begin.replace("NAME", function) + spelled(shape, arguments) + shape.after + shape.closing  # noqa: B023
            return text.replace("NUMBER", "0").replace("GAP", "\n")

        right = call("set_light", room="a", level=3)
        loose = call("now", any=["thing"])  # not strict
        wrong = call("set_light", room="a")
        other = call("unknown")
        assert accepted(form, opening + "Hello, {world} <b>.")
        before = "" if opening else "One moment. "
        assert accepted(form, before + right), name
        assert accepted(form, before + loose), name
        assert not accepted(form, before + wrong), name
        assert not accepted(form, before + other), name


OPTIONAL: dict[str, Any] = {
    "type": "object",
    "$defs": {
        "color": {"enum": ["red", "12", 12, None]},
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value"],
            "additionalProperties": False,
        },
    },
    "properties": {
        "word": {"type": "string", "pattern": "^[a-c]+$", "minLength": 2, "maxLength": 3},
        "any": {"type": ["string", "integer"], "minimum": 500, "maxLength": 3},
        "color": {"$ref": "#/$defs/color"},
        "day": {"type": "string", "format": "date"},
        "list": {"type": "array", "items": {"type": "string", "maxLength": 2}, "minItems": 1, "maxItems": 2},
        "node": {"$ref": "#/$defs/node"},
    },
    "required": ["color"],
    "additionalProperties": False,
}


def is_node(found: Any) -> bool:
    right = found.keys() <= {"value", "next"} and isinstance(found["value"], int | float)
    return bool(right and (found.get("next") is None or is_node(found["next"])))


@pytest.mark.parametrize("name", [form.name for form in FORMATS if form.shapes and form.shapes[0].parameters])
def test_arguments_that_are_not_json_are_what_the_schema_says(name: str) -> None:
    shape = next(form.shapes[0] for form in FORMATS if form.name == name)
    tools = [{"type": "function", "function": {"name": "GET_NUMBER", "parameters": OPTIONAL}}]
    asked = prompt(name, shape, tools=tools, forced=("GET_NUMBER",), text=ended(name))
    form = asked.form(None)
    assert form is not None
    texts = [text for seed in range(4) if (text := written(form, seed)) is not None]
    assert texts
    for text in texts:
        (call,) = read(asked, text).tool_calls[:1]
        found = json.loads(call.arguments)
        assert found.keys() <= OPTIONAL["properties"].keys(), text
        assert found["color"] in ("red", "12", 12, None), text
        assert re.fullmatch("[a-c]{2,3}", found.get("word", "ab")), text
        assert found.get("any", 500) >= 500 if isinstance(found.get("any", 500), int) else len(found["any"]) <= 3, text
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", found.get("day", "2000-01-01")), text
        assert 1 <= len(found.get("list", ["a"])) <= 2, text
        assert all(isinstance(one, str) and len(one) <= 2 for one in found.get("list", [])), text
        assert is_node(found.get("node", {"value": 1})), text


def test_a_text_may_not_end_itself() -> None:
    coder = next(form for form in FORMATS if form.name == "qwen3-coder")
    properties = {"text": {"type": "string"}, "texts": {"type": "array", "items": {"type": "string"}}}
    function = {"name": "f", "parameters": {"type": "object", "properties": properties, "required": ["text"]}}
    asked = prompt("qwen3-coder", coder.shapes[0], tools=[{"type": "function", "function": function}], forced=("f",))
    form = asked.form(None)
    assert form is not None
    begin, end = "<tool_call>\n<function=f>\n<parameter=text>\n", "\n</parameter>\n"
    close = "</function>\n</tool_call>"
    assert accepted(form, f'{begin}a "b" \\ </function>\n{end}{close}')
    assert not accepted(form, f"{begin}a</parameter>b{end}{close}")
    inside = f'{begin}a{end}<parameter=texts>\n["</parameter>", "b"]{end}{close}'
    assert accepted(form, inside)
    (call,) = read(asked, inside).tool_calls
    assert json.loads(call.arguments) == {"text": "a", "texts": ["</parameter>", "b"]}


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        (
            {"a": {"type": "string", "pattern": "^a|b$"}},
            "the pattern '^a|b$' in the parameters of 'f' is not supported",
        ),
        ({"a": {"type": "string", "pattern": "(?=a)b"}}, "the pattern '(?=a)b'"),
        ({"a": {"type": "string", "format": "iri"}}, "the format 'iri'"),
        ({"a": {"type": "string", "not": {"const": "x"}}}, "'not' in the parameters"),
        ({"a>b": {"type": "string"}}, "the name 'a>b'"),
        ({"a": {"enum": ["</parameter>"]}}, "the choice of ['</parameter>']"),
        ({"a": False}, "a schema that allows nothing"),
    ],
)
def test_what_plain_parameters_cannot_be_held_to(properties: dict[str, Any], message: str) -> None:
    coder = next(form for form in FORMATS if form.name == "qwen3-coder")
    function = {"name": "f", "parameters": {"properties": properties}}
    form = prompt("qwen3-coder", coder.shapes[0], tools=[{"function": function}], forced=("f",)).form(None)
    assert form is not None
    with pytest.raises(RequestError, match=re.escape(message)):
        form.lark(quoted)


@pytest.mark.parametrize("name", ["qwen3-coder", "gemma-4"])
@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"enum": 5}, "what is no JSON schema"),
        ({"anyOf": [5, {"type": "string"}]}, "what is no JSON schema"),
        ({"anyOf": [False]}, "a schema that allows nothing"),
        ({"anyOf": [True, {"type": "string"}]}, None),
    ],
)
def test_alternatives_that_are_no_objects(name: str, schema: dict[str, Any], message: str | None) -> None:
    shape = next(form for form in FORMATS if form.name == name).shapes[0]
    function = {"name": "f", "parameters": {"properties": {"a": schema}}}
    form = prompt(name, shape, tools=[{"function": function}], forced=("f",)).form(None)
    assert form is not None
    if message is None:
        assert form.lark(quoted)
        return
    with pytest.raises(RequestError, match=f"{message} in the parameters of 'f' is not supported"):
        form.lark(quoted)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("^a(b|c)$", "ac", "xac"),
        ("b", "abc", "ac"),
        ("^a|^c", None, None),
        ("(a|b)", "xbx", "x"),
        (r"^[$^|]\$$", "|$", "|"),
        ("a|b", "xb", "x"),
    ],
)
def test_patterns_of_plain_texts(pattern: str, matching: str | None, other: str | None) -> None:
    found = whole_pattern(pattern)
    assert (found is None) == (matching is None)
    if found is not None and matching is not None and other is not None:
        assert re.fullmatch(found, matching)
        assert not re.fullmatch(found, other)


def test_reasoning_comes_first() -> None:
    content = StructuredOutputs(json={"enum": [1, 2]})
    fresh = prompt("none", None, tools=[], text="<|im_start|>assistant\n").form(content)
    begun = prompt("none", None, tools=[], text="<|im_start|>assistant\n<think>\n").form(content)
    ended = prompt("none", None, tools=[], text="assistant\n<think>\n\n</think>\n\n").form(content)
    assert fresh is not None
    assert begun is not None
    assert ended is not None
    assert accepted(fresh, "<think>\nI {look}.\n</think>\n\n1")
    assert accepted(fresh, "2")
    assert not accepted(fresh, "<think>\nI look.\n</think>\n\n3")
    assert not accepted(fresh, "I look.")
    assert accepted(begun, "I look.\n</think>\n2")
    assert not accepted(begun, "2")
    assert accepted(ended, "2")
    assert not accepted(ended, "<think>x</think>2")


def test_harmony_reasons_in_its_own_way() -> None:
    form = prompt("harmony", None, tools=[]).form(StructuredOutputs(choice=["yes"]))
    assert form is not None
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>yes"
    found = read(prompt("harmony", None, tools=[]), text)
    assert (found.reasoning, found.text) == ("Hm.", "yes")
    assert accepted(form, text)
    assert accepted(form, text.split("assistant")[1])
    assert not accepted(form, "yes")


@pytest.mark.parametrize(
    ("name", "forced", "content", "message"),
    [
        ("gemma-4", ("now",), None, "tool_choice: this model writes calls in the form 'gemma-4', which cannot be held"),
        ("glm-4.5", (), None, "tools: this model writes .* use tool_choice 'auto' without strict"),
        ("qwen3-coder", (), StructuredOutputs(regex="a"), "response_format: this model .*; leave the tools out"),
    ],
)
def test_forms_that_cannot_be_held(
    name: str, forced: tuple[str, ...], content: StructuredOutputs | None, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        prompt(name, None, forced=forced, tools=TOOLS if content is None else TOOLS[1:]).form(content)


def test_calls_without_a_tag_cannot_be_told_from_text() -> None:
    llama = next(form for form in FORMATS if form.name == "llama")
    with pytest.raises(RequestError, match="tools: this model writes calls in the form 'llama'"):
        prompt("llama", llama.shapes[0]).form(None)
