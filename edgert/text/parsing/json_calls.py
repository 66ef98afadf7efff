"""Calls written as JSON objects between tags: `<tool_call>{"name": …, "arguments": {…}}</tool_call>` and its kin.

Hermes and Qwen (Hermes Function Calling, NousResearch), Jamba and Apriel, IBM Granite, Phi-4-mini, Nemotron, GigaChat,
FireFunction, Command-R and Command-A: their chat templates are the sources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from edgert.text.parsing import json_text
from edgert.text.parsing.base import CallArguments, CallEnd, Calls, CallShape, Format, Steps, each, tagged
from edgert.text.parsing.scanner import Malformed, Scanner, Wait, joined

NAMES, ARGUMENTS, IDS = ("name", "tool_name"), ("arguments", "parameters"), ("id", "tool_call_id")


def arguments(text: Scanner, calls: Calls, name: str, call_id: str | None = None) -> Steps[int]:
    """A call of `name` with the JSON object that comes next, but not its end. Returns the call's index."""
    yield from text.skip_space()
    if (yield from text.peek()) != "{":
        raise Malformed
    start = calls.start(name, call_id)
    yield start
    yield from each(json_text.value(text), lambda piece: CallArguments(start.index, piece))
    return start.index


def call_object(text: Scanner, calls: Calls, *, known: bool = False) -> Steps[None]:
    """One call: an object with a name and arguments, which are told as they come where the name came before them.

    `known`: Malformed unless it is a function that was given, and at the first key that calls do not have.
    """
    name: str | None = None
    call_id: str | None = None
    held: str | None = None
    index: int | None = None
    yield from text.expect("{")
    while True:
        yield from text.skip_space()
        key = yield from json_text.text_of_string(text)
        yield from text.skip_space()
        yield from text.expect(":")
        yield from text.skip_space()
        if key in ARGUMENTS:
            if held is not None or index is not None:
                raise Malformed
            if name is None or (yield from text.peek()) != "{":
                held = yield from _held_arguments(text)
            else:
                index = yield from arguments(text, calls, name, call_id)
        elif key in NAMES:
            name = yield from json_text.text_of_string(text)
            if known and name not in calls.functions:
                raise Malformed
        elif key in IDS and (yield from text.peek()) == '"':
            call_id = yield from json_text.text_of_string(text)
        elif known and key != "type":
            raise Malformed
        else:
            yield from joined(json_text.value(text))
        yield from text.skip_space()
        if (yield from text.accept("}")):
            break
        yield from text.expect(",")
    if index is None:
        if name is None:
            raise Malformed
        start = calls.start(name, call_id)
        index = start.index
        yield start
        yield CallArguments(index, held or "{}")
    yield CallEnd(index)


def _held_arguments(text: Scanner) -> Wait[str]:
    """Arguments before a name, or written as a text that holds the JSON."""
    first = yield from text.peek()
    if first == '"':
        written = yield from json_text.text_of_string(text)
    else:
        written, _ = yield from joined(json_text.value(text))
    try:
        found = json.loads(written or "{}")
    except (ValueError, RecursionError):
        raise Malformed from None
    if found is not None and not isinstance(found, dict):
        raise Malformed
    return written if found else "{}"


def objects(text: Scanner, calls: Calls) -> Steps[None]:
    """One call, several after another, or a list of them."""
    yield from text.skip_space()
    if (yield from text.accept("[")):
        yield from text.skip_space()
        while not (yield from text.accept("]")):
            yield from call_object(text, calls)
            yield from text.skip_space()
            if (yield from text.accept(",")):
                yield from text.skip_space()
            elif (yield from text.peek()) != "]":
                raise Malformed
        return
    while True:
        yield from call_object(text, calls)
        yield from text.skip_space()
        if (yield from text.peek()) != "{":
            return


def _format(name: str, tags: Mapping[str, str], *hints: tuple[str, ...], shapes: tuple[CallShape, ...]) -> Format:
    """A format with these tags, opening → closing. A closing tag that is missing is no fault of the call's."""

    def section(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
        yield from objects(text, calls)
        yield from text.skip_space()
        yield from text.accept(tags[opener])

    return Format(name, hints, (*tags, *tags.values()), tagged(tuple(tags), section), shapes=shapes)


_NAMED = '{"name": "NAME", "arguments": '


def _list(opening: str, closing: str, before: str = _NAMED) -> CallShape:
    """Calls as a list of objects."""
    return CallShape(before, "}", between=", ", opening=f"{opening}[", closing=f"]{closing}")


HERMES = _format(
    "hermes",
    {"<tool_call>": "</tool_call>", "<tool_calls>": "</tool_calls>"},
    ("<tool_call>",),
    ("<tool_calls>",),
    shapes=(CallShape(f"<tool_call>\n{_NAMED}", "}\n</tool_call>", between="\n"),),
)
GRANITE = _format(
    "granite",
    {"<|tool_call|>": "<|/tool_call|>", "<tool_call>": "</tool_call>"},
    ("<|tool_call|>",),
    shapes=(_list("<|tool_call|>", ""),),
)
NEMOTRON = _format(
    "nemotron",
    {"<TOOLCALL>": "</TOOLCALL>"},
    ("<TOOLCALL>",),
    shapes=(_list("<TOOLCALL>", "</TOOLCALL>"),),
)
_ROLE = "<|message_sep|>\n\nfunction call<|role_sep|>\n"
GIGACHAT = _format(
    "gigachat",
    {"<|function_call|>": "", _ROLE: ""},
    ("<|function_call|>",),
    ("function call", "<|role_sep|>"),
    shapes=(
        CallShape(f"<|function_call|>{_NAMED}", "}", needs="<|function_call|>"),
        CallShape(_ROLE + _NAMED, "}"),
    ),
)
_TOOL_NAMED = '{"tool_name": "NAME", "parameters": '
COMMAND_R = _format(
    "command-r",
    {"<|START_ACTION|>": "<|END_ACTION|>", "Action:\n```json": "```", "Action: ```json": "```"},
    ("<|START_ACTION|>",),
    ("followed by a json-formatted list of actions",),
    shapes=(
        replace(_list("<|START_ACTION|>", "<|END_ACTION|>", _TOOL_NAMED), needs="<|START_ACTION|>"),
        _list("Action:\n```json\n", "\n```", _TOOL_NAMED),
    ),
)
FIREFUNCTION = _format("firefunction", {"functools": ""}, ("functools[",), shapes=(_list("functools", ""),))
