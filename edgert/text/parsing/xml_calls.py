"""Calls written with a tag for each parameter: Qwen3-Coder and Seed-OSS, MiniMax-M2, DeepSeek-V3.2, GLM-4.5 and later,
Hunyuan 3, MiniCPM5, Kimi-K3.

The sources are the models' chat templates. Values are plain text: the tools' schemas say what is a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgert.text.parsing.base import (
    CallArguments,
    CallEnd,
    Calls,
    CallShape,
    CallStart,
    Format,
    Parameters,
    Section,
    Steps,
    each,
    tagged,
)
from edgert.text.parsing.json_calls import arguments as json_arguments
from edgert.text.parsing.parameters import member
from edgert.text.parsing.scanner import Malformed, Scanner, Wait

_NAME = re.compile(r"[^<>\"\r\n]*")
_ATTRIBUTES = re.compile(r"[^<\r\n]*")


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


def invokes(tags: Mapping[str, str], prefix: str = "") -> Section:
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


def _minicpm(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    """`<function name="NAME"><param name="KEY">VALUE</param></function>`; texts with marks in them stand in CDATA."""
    start = calls.start((yield from _name(text, '">')))
    yield start
    arguments = _Arguments(text, calls, start)
    yield from text.skip_space()
    while not (yield from text.accept("</function>")):
        yield from text.expect('<param name="')
        key = yield from _name(text, '">')
        marked = yield from text.accept("<![CDATA[")
        yield from arguments.add(key, "]]></param>" if marked else "</param>")
        yield from text.skip_space()
    yield from arguments.end()


def kimi_calls(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    """Kimi-K3's tags: `<|open|>call tool="NAME" …<|sep|>`, `<|open|>argument key="KEY" type="TYPE"<|sep|>VALUE`."""
    while (yield from text.accept('<|open|>call tool="')):
        start = calls.start((yield from _name(text, '"')))
        yield start
        yield from text.run(_ATTRIBUTES)
        yield from text.expect("<|sep|>")
        arguments = _Arguments(text, calls, start)
        while not (yield from text.accept("<|close|>call<|sep|>")):
            yield from text.expect('<|open|>argument key="')
            key = yield from _name(text, '"')
            kind = (yield from text.run(_ATTRIBUTES)).strip()
            yield from text.expect("<|sep|>")
            schema = {"type": "string"} if kind == 'type="string"' else {}
            yield from arguments.add(key, "<|close|>argument<|sep|>", schema=schema)
        yield from arguments.end()
    if not (yield from text.accept("<|close|>tools<|sep|>")) and (yield from text.peek()):
        raise Malformed


def _hunyuan(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    """Several calls as GLM writes one, all tags with a suffix."""
    one = _pairs(_OPEN)
    yield from text.skip_space()
    while (yield from text.accept(f"<tool_call{_OPEN}>")):
        yield from one(text, calls, opener)
        yield from text.skip_space()
    yield from text.accept(f"</tool_calls{_OPEN}>")


def _format(
    name: str,
    tags: Mapping[str, str],
    section: Section,
    hint: str | tuple[str, ...],
    *more: str,
    shape: CallShape,
    reasoning: tuple[str, str] | None = None,
) -> Format:
    hints = ((hint,) if isinstance(hint, str) else hint,)
    markers, openers = (*tags, *tags.values(), *more), (*tags, *more)
    return Format(name, hints, markers, tagged(openers, section), shapes=(shape,), reasoning=reasoning)


def _function_shape(tag: str, parameters: Parameters) -> CallShape:
    """One call in a tag of its own."""
    return CallShape(f"<{tag}>\n<function=NAME>\n", f"</function>\n</{tag}>", between="\n", parameters=parameters)


def _invoke_shape(tag: str, prefix: str, parameters: Parameters) -> CallShape:
    """All calls in one tag."""
    return CallShape(
        f'<{prefix}invoke name="NAME">\n',
        f"</{prefix}invoke>",
        between="\n",
        opening=f"<{prefix}{tag}>\n",
        closing=f"\n</{prefix}{tag}>",
        parameters=parameters,
    )


_CODER = {"<tool_call>": "</tool_call>", "<seed:tool_call>": "</seed:tool_call>"}
SEED_OSS = _format(
    "seed-oss",
    _CODER,
    _functions(_CODER),
    "<seed:tool_call>",
    shape=_function_shape("seed:tool_call", Parameters("<parameter=KEY>", "</parameter>\n")),
)
FUNCTIONARY_31 = _format(
    "functionary-3.1",
    _CODER,
    _functions(_CODER),
    "<function=example_function_name>{",
    "<function=",
    shape=CallShape("<function=NAME>", "</function>", between=""),
)
QWEN3_CODER = _format(
    "qwen3-coder",
    _CODER,
    _functions(_CODER),
    "<function=",
    "<function=",
    shape=_function_shape("tool_call", Parameters("<parameter=KEY>\n", "\n</parameter>\n")),
)
_MINIMAX = {"<minimax:tool_call>": "</minimax:tool_call>"}
MINIMAX_M2 = _format(
    "minimax-m2",
    _MINIMAX,
    invokes(_MINIMAX),
    "<minimax:tool_call>",
    shape=_invoke_shape("minimax:tool_call", "", Parameters('<parameter name="KEY">', "</parameter>\n")),
)


def _dsml(name: str, tag: str, *hints: str) -> Format:
    tags = {f"<｜DSML｜{name}>": f"</｜DSML｜{name}>" for name in ("function_calls", "tool_calls")}
    parameters = Parameters(
        '<｜DSML｜parameter name="KEY" string="false">',
        "</｜DSML｜parameter>\n",
        plain_before='<｜DSML｜parameter name="KEY" string="true">',
    )
    return _format(name, tags, invokes(tags, "｜DSML｜"), hints, shape=_invoke_shape(tag, "｜DSML｜", parameters))


DEEPSEEK_V32 = _dsml("deepseek-v3.2", "function_calls", "｜DSML｜", "function_calls")
DEEPSEEK_V4 = _dsml("deepseek-v4", "tool_calls", "｜DSML｜")
GLM_4 = _format(
    "glm-4.5",
    {"<tool_call>": "</tool_call>"},
    _pairs(),
    "<arg_key>",
    shape=CallShape(
        "<tool_call>NAMEGAP",
        "</tool_call>",
        between="GAP",
        parameters=Parameters("<arg_key>KEY</arg_key>GAP<arg_value>", "</arg_value>GAP"),
    ),
)
_OPEN = ":opensource"
HUNYUAN_3 = _format(
    "hunyuan-3",
    {f"<tool_calls{_OPEN}>": f"</tool_calls{_OPEN}>"},
    _hunyuan,
    "<tool_calls{}>",
    reasoning=(f"<think{_OPEN}>", f"</think{_OPEN}>"),
    shape=CallShape(
        f"<tool_call{_OPEN}>NAME<tool_sep{_OPEN}>\n",
        f"</tool_call{_OPEN}>",
        between="\n",
        opening=f"<tool_calls{_OPEN}>\n",
        closing=f"\n</tool_calls{_OPEN}>",
        parameters=Parameters(f"<arg_key{_OPEN}>KEY</arg_key{_OPEN}>\n<arg_value{_OPEN}>", f"</arg_value{_OPEN}>\n"),
    ),
)
MINICPM5 = _format(
    "minicpm5",
    {'<function name="': "</function>"},
    _minicpm,
    '<param name="',
    shape=CallShape(
        '<function name="NAME">',
        "</function>",
        between="\n",
        parameters=Parameters('<param name="KEY">', "</param>"),
    ),
)
KIMI_TAGS = Parameters(
    '<|open|>argument key="KEY" type="number"<|sep|>',
    "<|close|>argument<|sep|>",
    plain_before='<|open|>argument key="KEY" type="string"<|sep|>',
)
