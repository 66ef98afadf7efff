"""Parameters that are written as plain text between tags: what they mean is for the tool's schema to say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgert.text.parsing.python_text import WORDS
from edgert.text.parsing.scanner import Malformed, Pieces, Scanner, joined

_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def member(text: Scanner, key: str, schema: Mapping[str, Any], *ends: str, first: bool) -> Pieces[None]:
    """Plain text up to one of `ends`, as the member `key` of a JSON object; the `first` opens it with `{`.

    Where `schema` wants a text, it is passed on as it comes. Anything else is read as JSON, and stays a text where that
    does not give a value of the schema's types.
    """
    yield f"{'{' if first else ', '}{json.dumps(key, ensure_ascii=False)}: "
    types = schema_types(schema)
    if types == {"string"}:
        yield '"'
        if (yield from escaped(text.until(*ends))) is None:
            raise Malformed
        yield '"'
    else:
        written, end = yield from joined(text.until(*ends))
        if end is None:
            raise Malformed
        yield as_json(written, types)


def as_json(written: str, types: set[str]) -> str:
    """The JSON of a value that is written as plain text; `types` are JSON schema's, none of them means any."""
    bare = written.strip()
    found = WORDS.get(bare, bare)
    try:
        kind = _kind(json.loads(found, parse_constant=_refuse))
    except (ValueError, RecursionError):
        kind = "text"
    fits = kind in types or (kind == "integer" and "number" in types) or (not types and kind != "text")
    if fits and not (kind == "string" and "string" in types):  # there a quotation mark is part of the text
        return found
    return json.dumps(written, ensure_ascii=False)


def schema_types(schema: Mapping[str, Any]) -> set[str]:
    """The types of the values that a JSON schema allows; none where it does not say."""
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return set(map(str, named))
    choices = [one for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list) for one in schema[key]]
    found = {kind for one in choices if isinstance(one, Mapping) for kind in schema_types(one)}
    if not found and isinstance(schema.get("enum"), list):
        found = {_kind(one) for one in schema["enum"]}
    return found


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "null")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def escaped(pieces: Pieces[str | None]) -> Pieces[str | None]:
    """Text as the inside of a JSON string."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as stop:
            end: str | None = stop.value
            return end
        yield None if piece is None else json.dumps(piece, ensure_ascii=False)[1:-1]
