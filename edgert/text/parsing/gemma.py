"""Gemma 4's calls: `<|tool_call>call:NAME{key:<|"|>text<|"|>,other:[1,true]}<tool_call|>`.

Source: the chat template of google/gemma-4 (`format_argument`). Texts stand between marks of their own, so that nothing
in them is escaped; keys stand bare, or between these marks too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from edgert.text.parsing.base import CallArguments, CallEnd, Calls, CallShape, Format, Parameters, Steps, each, tagged
from edgert.text.parsing.parameters import escaped
from edgert.text.parsing.python_text import scalar
from edgert.text.parsing.scanner import Malformed, Pieces, Scanner

_MARK, _OPEN, _CLOSE = '<|"|>', "<|tool_call>", "<tool_call|>"
_NAME = re.compile(r"[^{}<>\s]*")
_KEY = re.compile(r"[^:{}\[\],<>]*")
_DEEPEST = 64


def _section(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    yield from text.skip_space()
    yield from text.expect("call:")
    name = yield from text.run(_NAME)
    if (yield from text.peek()) != "{":
        raise Malformed
    start = calls.start(name)
    yield start
    yield from each(_object(text, 0), lambda piece: CallArguments(start.index, piece))
    yield CallEnd(start.index)
    yield from text.skip_space()
    yield from text.accept(_CLOSE)


def _value(text: Scanner, depth: int) -> Pieces[None]:
    """A value as JSON."""
    if depth > _DEEPEST:
        raise Malformed
    if (yield from text.accept(_MARK)):
        yield from _string(text)
        return
    first = yield from text.peek()
    if first == "{":
        yield from _object(text, depth)
    elif first == "[":
        yield from _array(text, depth)
    else:
        yield (yield from scalar(text))


def _string(text: Scanner) -> Pieces[None]:
    """A text after its opening mark."""
    yield '"'
    if (yield from escaped(text.until(_MARK))) is None:
        raise Malformed
    yield '"'


def _object(text: Scanner, depth: int) -> Pieces[None]:
    return _items(text, "{", "}", lambda: _pair(text, depth))


def _array(text: Scanner, depth: int) -> Pieces[None]:
    return _items(text, "[", "]", lambda: _value(text, depth + 1))


def _pair(text: Scanner, depth: int) -> Pieces[None]:
    """A key and its value."""
    if (yield from text.accept(_MARK)):
        yield from _string(text)
    else:
        yield json.dumps((yield from text.run(_KEY)).strip(), ensure_ascii=False)
    yield from text.expect(":")
    yield ": "
    yield from text.skip_space()
    yield from _value(text, depth + 1)


def _items(text: Scanner, opening: str, closing: str, item: Callable[[], Pieces[None]]) -> Pieces[None]:
    """Items with commas between them, in brackets."""
    yield from text.expect(opening)
    yield opening
    yield from text.skip_space()
    separator = ""
    while not (yield from text.accept(closing)):
        if separator:
            yield from text.expect(",")
            yield from text.skip_space()
        yield separator
        separator = ", "
        yield from item()
        yield from text.skip_space()
    yield closing


GEMMA_4 = Format(
    "gemma-4",
    ((_OPEN, _MARK),),
    (_OPEN, _CLOSE, _MARK),
    tagged((_OPEN,), _section),
    shapes=(
        CallShape(
            f"{_OPEN}call:NAME{{",
            f"}}{_CLOSE}",
            between="",
            parameters=Parameters("KEY:", between=",", values="marked", mark=_MARK),
        ),
    ),
)
