"""Calls between special tokens, the arguments as JSON: DeepSeek V3, R1 and V3.1, Kimi-K2, Mistral, Apertus.

The sources are the models' chat templates, and for Mistral's newer form mistral-common's tokenizer v11 and v13.
"""

from __future__ import annotations

import re
import secrets
import string

from edgert.text.parsing import json_text
from edgert.text.parsing.base import CallEnd, Calls, CallShape, Format, Steps, tagged
from edgert.text.parsing.json_calls import arguments, objects
from edgert.text.parsing.scanner import Malformed, Scanner, Wait

_NAME = re.compile(r"[^<\[{\r\n]*")
_NUMBER = re.compile(r":[0-9]+$")


def _call(text: Scanner, calls: Calls, name: str, call_id: str | None = None) -> Steps[None]:
    """Arguments, and with them the end of the call."""
    index = yield from arguments(text, calls, name, call_id)
    yield CallEnd(index)


def _deepseek(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    """`NAME<sep>{…}` (V3.1), or ``function<sep>NAME\\n```json\\n{…}\\n``` `` (V3, R1), each between begin and end."""
    yield from text.skip_space()
    while (yield from text.accept("<｜tool▁call▁begin｜>")):
        name = (yield from text.run(_NAME)).strip()
        yield from text.expect("<｜tool▁sep｜>")
        yield from text.skip_space()
        fenced = name == "function" and (yield from text.peek()) != "{"
        if fenced:
            name = (yield from text.run(_NAME)).strip()
            yield from text.skip_space()
            yield from text.expect("```json")
        yield from _call(text, calls, name)
        yield from text.skip_space()
        if fenced:
            yield from text.accept("```")
            yield from text.skip_space()
        yield from text.accept("<｜tool▁call▁end｜>")
        yield from text.skip_space()
    yield from _end(text, "<｜tool▁calls▁end｜>")


def _kimi(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    """`functions.NAME:0<argument>{…}`; what stands before the arguments is the call's id."""
    yield from text.skip_space()
    while (yield from text.accept("<|tool_call_begin|>")):
        call_id = (yield from text.run(_NAME)).strip()
        yield from text.expect("<|tool_call_argument_begin|>")
        name = _NUMBER.sub("", call_id).removeprefix("functions.")
        yield from _call(text, calls, name, call_id)
        yield from text.skip_space()
        yield from text.accept("<|tool_call_end|>")
        yield from text.skip_space()
    yield from _end(text, "<|tool_calls_section_end|>")


def solar_call(text: Scanner, calls: Calls) -> Steps[None]:
    """`ID<name>NAME<args>{…}` and the end, after the begin: Solar Open's."""
    call_id = (yield from text.run(_NAME)).strip()
    yield from text.expect("<|tool_call:name|>")
    name = (yield from text.run(_NAME)).strip()
    yield from text.expect("<|tool_call:args|>")
    yield from _call(text, calls, name, call_id)
    yield from text.skip_space()
    yield from text.accept("<|tool_call:end|>")


def _apertus(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    """`[{"NAME": {…}}, …]` between prefix and suffix."""
    yield from text.skip_space()
    yield from text.expect("[")
    yield from text.skip_space()
    while not (yield from text.accept("]")):
        yield from text.expect("{")
        yield from text.skip_space()
        name = yield from json_text.text_of_string(text)
        yield from text.skip_space()
        yield from text.expect(":")
        index = yield from arguments(text, calls, name)
        yield from text.skip_space()
        yield from text.expect("}")
        yield CallEnd(index)
        yield from text.skip_space()
        if (yield from text.accept(",")):
            yield from text.skip_space()
        elif (yield from text.peek()) != "]":
            raise Malformed
    yield from text.skip_space()
    yield from text.accept("<|tools_suffix|>")


def _end(text: Scanner, marker: str) -> Wait[None]:
    """The end of a section, or of the text."""
    if not (yield from text.accept(marker)) and (yield from text.peek()):
        raise Malformed


def _mistral(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    """`[{"name": …, "arguments": {…}}]`, or `NAME[ARGS]{…}` with `[CALL_ID]ID` before `[ARGS]` in some versions."""
    yield from text.skip_space()
    if (yield from text.peek()) == "[":
        yield from objects(text, calls)
        return
    name = (yield from text.run(_NAME)).strip()
    call_id = None
    if (yield from text.accept("[CALL_ID]")):
        call_id = (yield from text.run(_NAME)).strip()
    yield from text.accept("[ARGS]")
    yield from _call(text, calls, name, call_id)


def _nine_letters() -> str:
    """Mistral's templates refuse ids of any other length."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


DEEPSEEK = Format(
    "deepseek",
    (("<｜tool▁calls▁begin｜>",),),
    tuple(
        f"<｜{name}｜>"
        for name in ("tool▁calls▁begin", "tool▁call▁begin", "tool▁sep", "tool▁call▁end", "tool▁calls▁end")
    ),
    tagged(("<｜tool▁calls▁begin｜>",), _deepseek),
    shapes=(
        CallShape(
            "<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
            between="",
            opening="<｜tool▁calls▁begin｜>",
            closing="<｜tool▁calls▁end｜>",
        ),
    ),
)
KIMI_K2 = Format(
    "kimi-k2",
    (("<|tool_calls_section_begin|>",),),
    tuple(
        f"<|{name}|>"
        for name in (
            *("tool_calls_section_begin", "tool_call_begin", "tool_call_argument_begin"),
            *("tool_call_end", "tool_calls_section_end"),
        )
    ),
    tagged(("<|tool_calls_section_begin|>",), _kimi),
    shapes=(
        CallShape(
            "<|tool_call_begin|>functions.NAME:NUMBER<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
            between="",
            opening="<|tool_calls_section_begin|>",
            closing="<|tool_calls_section_end|>",
        ),
    ),
)
APERTUS = Format(
    "apertus",
    (("<|tools_prefix|>",),),
    ("<|tools_prefix|>", "<|tools_suffix|>"),
    tagged(("<|tools_prefix|>",), _apertus),
    shapes=(CallShape('{"NAME": ', "}", between=", ", opening="<|tools_prefix|>[", closing="]<|tools_suffix|>"),),
)
MISTRAL = Format(
    "mistral",
    (("[TOOL_CALLS]",),),
    ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    tagged(("[TOOL_CALLS]",), _mistral),
    new_id=_nine_letters,
    shapes=(
        CallShape("[TOOL_CALLS]NAME[ARGS]", between="", needs="[ARGS]"),
        CallShape('{"name": "NAME", "arguments": ', "}", between=", ", opening="[TOOL_CALLS][", closing="]"),
    ),
)
