"""Calls written with a tag for each parameter: Qwen3-Coder and Seed-OSS, MiniMax-M2, DeepSeek-V3.2, GLM-4.5 and later,
Hunyuan 3.

The sources are the models' chat templates. Values are plain text: the tools' schemas say what is a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgert.text.parsing.base import CallArguments, CallEnd, Calls, CallStart, Format, Section, Steps, each, tagged
from edgert.text.parsing.json_calls import arguments as json_arguments
from edgert.text.parsing.parameters import member
from edgert.text.parsing.scanner import Malformed, Scanner, Wait

_NAME = re.compile(r"[^<>\"\r\n]*")


class _Arguments:
    """The arguments of a call, one parameter after another."""

    def __init__(self, text: Scanner, calls: Calls, start: CallStart) -> None:
        self._text, self._functions, self._start = text, calls.functions, start
        self._first = True

    def add(self, key: str, *ends: str, schema: Mapping[str, Any] | None = None) -> Steps[None]:
        """A parameter's value, up to one of `ends`."""
        if schema is None:
            schema = self._functions.schema(self._start.name, key)
        yield from each(member(self._text, key, schema, *ends, first=self._first), self._event)
        self._first = False

    def end(self) -> Steps[None]:
        """No more parameters: the call is whole."""
        yield self._event("{}" if self._first else "}")
        yield CallEnd(self._start.index)

    def _event(self, piece: str) -> CallArguments:
        return CallArguments(self._start.index, piece)


def _name(text: Scanner, end: str) -> Wait[str]:
    """A name, and the tag's `end` after it."""
    name = (yield from text.run(_NAME)).strip()
    yield from text.expect(end)
    if not name:
        raise Malformed
    return name


def _declared(text: Scanner) -> Wait[dict[str, Any] | None]:
    """The end of a parameter's tag, which may tell whether the value is a text; None where it does not."""
    if (yield from text.accept(' string="true">')):
        return {"type": "string"}
    if (yield from text.accept(' string="false">')):
        return {}
    yield from text.expect(">")
    return None


def _functions(tags: Mapping[str, str]) -> Section:
    """`<function=NAME>`, `<parameter=KEY>`, the value on lines of its own; the tag around it may be missing.

    Functionary has an object of JSON instead of parameters.
    """

    def section(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
        if opener in tags:
            yield from text.skip_space()
            yield from text.expect("<function=")
        while True:
            name = yield from _name(text, ">")
            yield from text.skip_space()
            if (yield from text.peek()) == "{":
                yield CallEnd((yield from json_arguments(text, calls, name)))
                yield from text.skip_space()
                yield from text.accept("</function>")
            else:
                yield from _parameters(text, calls, calls.start(name))
            yield from text.skip_space()
            if opener in tags and (yield from text.accept(tags[opener])):
                return
            if not (yield from text.accept("<function=")):
                return

    return section


def _parameters(text: Scanner, calls: Calls, start: CallStart) -> Steps[None]:
    """A call's parameters, up to the end of its function."""
    yield start
    arguments = _Arguments(text, calls, start)
    while not (yield from text.accept("</function>")):
        yield from text.expect("<parameter=")
        key = yield from _name(text, ">")
        yield from text.accept("\n")
        yield from arguments.add(key, "\n</parameter>", "</parameter>")
        yield from text.skip_space()
    yield from arguments.end()


def _invokes(tags: Mapping[str, str], prefix: str = "") -> Section:
    """`<invoke name="NAME">`, `<parameter name="KEY">`, the value directly between the tags.

    DeepSeek-V3.2 says of each parameter whether it is a text: `string="true"`.
    """

    def section(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
        yield from text.skip_space()
        while not (yield from text.accept(tags[opener])):
            yield from text.expect(f'<{prefix}invoke name="')
            start = calls.start((yield from _name(text, '">')))
            yield start
            arguments = _Arguments(text, calls, start)
            yield from text.skip_space()
            while not (yield from text.accept(f"</{prefix}invoke>")):
                yield from text.expect(f'<{prefix}parameter name="')
                key = yield from _name(text, '"')
                schema = yield from _declared(text)
                yield from arguments.add(key, f"</{prefix}parameter>", schema=schema)
                yield from text.skip_space()
            yield from arguments.end()
            yield from text.skip_space()
            if not (yield from text.peek()):  # the answer ends without the closing tag
                return

    return section


def _pairs(suffix: str = "") -> Section:
    """The name, then `<arg_key>KEY</arg_key>` and `<arg_value>VALUE</arg_value>` in turns, up to `</tool_call>`.

    Every tag's name may have a suffix, and then a tag comes after the function's name.
    """

    def section(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
        yield from text.skip_space()
        name = (yield from text.run(_NAME)).strip()
        if suffix:
            yield from text.accept(f"<tool_sep{suffix}>")
        yield from text.skip_space()
        if (yield from text.peek()) != "<":
            raise Malformed
        start = calls.start(name)
        yield start
        arguments = _Arguments(text, calls, start)
        while not (yield from text.accept(f"</tool_call{suffix}>")):
            yield from text.expect(f"<arg_key{suffix}>")
            key = yield from _name(text, f"</arg_key{suffix}>")
            yield from text.skip_space()
            yield from text.expect(f"<arg_value{suffix}>")
            yield from arguments.add(key, f"</arg_value{suffix}>")
            yield from text.skip_space()
        yield from arguments.end()

    return section


def _hunyuan(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    """Several calls as GLM writes one, all tags with a suffix."""
    one = _pairs(_OPEN)
    yield from text.skip_space()
    while (yield from text.accept(f"<tool_call{_OPEN}>")):
        yield from one(text, calls, opener)
        yield from text.skip_space()
    yield from text.accept(f"</tool_calls{_OPEN}>")


def _format(name: str, tags: Mapping[str, str], section: Section, hint: str, *more: str) -> Format:
    return Format(name, ((hint,),), (*tags, *tags.values(), *more), tagged((*tags, *more), section))


_CODER = {"<tool_call>": "</tool_call>", "<seed:tool_call>": "</seed:tool_call>"}
QWEN3_CODER = _format("qwen3-coder", _CODER, _functions(_CODER), "<function=", "<function=")
_MINIMAX = {"<minimax:tool_call>": "</minimax:tool_call>"}
MINIMAX_M2 = _format("minimax-m2", _MINIMAX, _invokes(_MINIMAX), "<minimax:tool_call>")
_DSML = {f"<｜DSML｜{name}>": f"</｜DSML｜{name}>" for name in ("function_calls", "tool_calls")}
DEEPSEEK_V32 = _format("deepseek-v3.2", _DSML, _invokes(_DSML, "｜DSML｜"), "｜DSML｜")
GLM_4 = _format("glm-4.5", {"<tool_call>": "</tool_call>"}, _pairs(), "<arg_key>")
_OPEN = ":opensource"
HUNYUAN_3 = _format("hunyuan-3", {f"<tool_calls{_OPEN}>": f"</tool_calls{_OPEN}>"}, _hunyuan, "<tool_calls{}>")
