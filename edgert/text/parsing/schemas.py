"""What the JSON schema of a parameter says of its values, as far as reading and writing them as plain text needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
_DEEPEST = 8


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int = _DEEPEST) -> Mapping[str, Any]:
    """`schema` with what it refers to in its place: `$ref` inside `root`, `allOf` of one, also in its alternatives.

    What cannot be found allows anything.
    """
    if not depth:
        return {}
    if isinstance(schema.get("$ref"), str):
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return resolved({**_referred(schema["$ref"], root), **rest}, root, depth - 1)
    alone = schema.get("allOf")
    if isinstance(alone, list) and len(alone) == 1 and isinstance(alone[0], Mapping):
        rest = {key: value for key, value in schema.items() if key != "allOf"}
        return resolved({**alone[0], **rest}, root, depth - 1)
    found = dict(schema)
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            found[key] = [resolved(one, root, depth - 1) if isinstance(one, Mapping) else one for one in schema[key]]
    return found


def _referred(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference inside the document (RFC 6901) means."""
    found: Any = root
    for name in reference.split("/")[1:] if reference.startswith("#") else [""]:
        name = unquote(name).replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def schema_types(schema: Mapping[str, Any]) -> set[str]:
    """The types of the values that a resolved schema allows; none where it does not say."""
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return set(map(str, named))
    choices = [one for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list) for one in schema[key]]
    found = {kind for one in choices if isinstance(one, Mapping) for kind in schema_types(one)}
    if not found and isinstance(schema.get("enum"), list):
        found = {kind_of(one) for one in schema["enum"]}
    if not found and "const" in schema:
        found = {kind_of(schema["const"])}
    return found


def kind_of(value: Any) -> str:
    """The JSON type of a value."""
    return _KINDS.get(type(value), "null")
