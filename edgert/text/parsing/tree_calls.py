"""MiniMax-M3's calls: a tree of tags, each after the mark `]<]minimax[>[`.

Source: the chat template of MiniMaxAI/MiniMax-M3 (`to_xml`). A tag named by the parameter has its value in it: plain
text, or again tags, which are an object's members, or a list's where all are called `item`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edgert.text.parsing.base import CallArguments, CallEnd, Calls, Format, Steps, tagged
from edgert.text.parsing.parameters import as_json
from edgert.text.parsing.scanner import Malformed, Scanner, Wait, joined
from edgert.text.parsing.schemas import resolved, schema_types

_MARK = "]<]minimax[>["
_OPEN, _CLOSE = f"{_MARK}<tool_call>", f"{_MARK}</tool_call>"
_NAME = re.compile(r"[^<>\"/\s]*")
_DEEPEST = 64


def _section(text: Scanner, calls: Calls, opener: str) -> Steps[None]:
    yield from text.skip_space()
    while not (yield from text.accept(_CLOSE)):
        yield from text.expect(f'{_MARK}<invoke name="')
        start = calls.start((yield from text.run(_NAME)))
        yield from text.expect('">')
        yield start
        separator = "{"
        while not (yield from text.accept(f"{_MARK}</invoke>")):
            yield from text.skip_space()
            yield from text.expect(_MARK)
            key = yield from _tag(text)
            root, schema = calls.functions.parameters(start.name), calls.functions.schema(start.name, key)
            value = yield from _value(text, key, schema, root, 0)
            yield CallArguments(start.index, f"{separator}{json.dumps(key, ensure_ascii=False)}: {value}")
            separator = ", "
        yield CallArguments(start.index, "{}" if separator == "{" else "}")
        yield CallEnd(start.index)
        yield from text.skip_space()
        if not (yield from text.peek()):  # the answer ends without the closing tag
            return


def _tag(text: Scanner) -> Wait[str]:
    """The name in an opening tag, after its mark."""
    yield from text.expect("<")
    name = yield from text.run(_NAME)
    yield from text.expect(">")
    if not name:
        raise Malformed
    return name


def _value(text: Scanner, name: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Wait[str]:
    """The value in the tag `name`, after its opening, as JSON. `schema`, of the value, is resolved within `root`."""
    written, mark = yield from joined(text.until(_MARK))
    if mark is None or depth > _DEEPEST:
        raise Malformed
    if (yield from text.accept(f"</{name}>")):
        return as_json(written, schema_types(schema))
    members: list[tuple[str, str]] = []
    while not (yield from text.accept(f"</{name}>")):
        key = yield from _tag(text)
        value = yield from _value(text, key, _inner(schema, key, root), root, depth + 1)
        members.append((key, value))
        _, mark = yield from joined(text.until(_MARK))
        if mark is None:
            raise Malformed
    if all(key == "item" for key, _ in members) and "object" not in schema_types(schema):
        return f"[{', '.join(value for _, value in members)}]"
    return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {value}" for key, value in members) + "}"


def _inner(schema: Mapping[str, Any], key: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a schema says of a list's `item`, or of an object's member."""
    properties = schema.get("properties")
    inner = schema.get("items") if key == "item" else properties.get(key) if isinstance(properties, Mapping) else None
    return resolved(inner, root) if isinstance(inner, Mapping) else {}


MINIMAX_M3 = Format("minimax-m3", (("]<]minimax[>[", "<mm:think>"),), (_MARK,), tagged((_OPEN,), _section))
