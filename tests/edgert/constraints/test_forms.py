"""Whatever an answer's form allows, the parser of the same model reads as what was asked for."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import RequestError

from edgert import StructuredOutputs
from edgert.chat import ChatPrompt
from edgert.completion import ToolCall
from edgert.constraints.compile_job import limits, together
from edgert.constraints.form import AnswerForm, quoted
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


def ended(name: str) -> str:
    """A prompt after whose end a model of this form does not reason."""
    return "<|end|><|start|>assistant" if name == "harmony" else "<think></think>"


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


def written(form: AnswerForm, seed: int, most: int = 3000) -> str | None:
    """A random text of this form, byte by byte; None where it found no end."""
    matcher = matcher_of(form)
    choice = random.Random(seed)
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
        for seed in range(6):
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
    for seed in range(8):
        text = written(form, seed)
        assert text is not None
        found = read(asked, text)
        assert found.tool_calls or found.text in ("yes!", "no!"), text
        assert not (found.tool_calls and found.text)


def test_strict_calls_amid_text() -> None:
    for name, shape in [(form.name, form.shapes[0]) for form in FORMATS if form.shapes and form.name != "llama"]:
        form = prompt(name, shape, text=ended(name)).form(None)
        assert form is not None
        opening = form.opening
        begin = shape.opening + shape.before.replace("NUMBER", "0")
        close = shape.after + shape.closing
        right = begin.replace("NAME", "set_light") + '{"room": "a", "level": 3}' + close
        loose = begin.replace("NAME", "now") + '{"any": ["thing"]}' + close  # not strict
        wrong = begin.replace("NAME", "set_light") + '{"room": "a"}' + close
        other = begin.replace("NAME", "unknown") + "{}" + close
        assert accepted(form, opening + "Hello, {world} <b>.")
        before = "" if opening else "One moment. "
        assert accepted(form, before + right), name
        assert accepted(form, before + loose), name
        assert not accepted(form, before + wrong), name
        assert not accepted(form, before + other), name


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
