"""Grammars for arguments that are no JSON object: what they allow, the model's own parser reads as the schema wants it.

Members that a schema does not name are written only where it names none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgert_models.errors import RequestError

from edgert.constraints.lark import ANY_TEXT, Text, expression, json_value, quoted, spelled
from edgert.text.parsing import Parameters
from edgert.text.parsing.parameters import as_json
from edgert.text.parsing.schemas import resolved, schema_types

_ABOUT = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema"),
        *("$id", "$defs", "definitions"),
    }
)
_SUPPORTED = _ABOUT | {
    *("type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
    *("enum", "const", "pattern", "minLength", "maxLength", "format"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_ALTERNATIVES = ("anyOf", "oneOf")
_TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")

_TAG = re.compile(r"<[^<>]+>")
_KEYS = {"plain": r"[^\s<>\"/=]{1,64}", "python": "[A-Za-z_][A-Za-z0-9_]{0,63}", "marked": r"[A-Za-z0-9_.$@-]{1,64}"}
_COMMA = ' "," '
_LIKE_JSON = r'(?s:\s*(true|false|null|True|False|None|[-0-9\[{"].*)\s*)'
_DAY, _TIME = (
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?",
)
_ZONE = r"(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])"
_FORMATS = {
    "date": _DAY,
    "time": _TIME + _ZONE,
    "date-time": f"{_DAY}T{_TIME}{_ZONE}",
    "uuid": "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "email": r"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+",
    "uri": r"[a-z][a-z0-9+.-]*:[!#-;=?-\[\]_a-z~%]+",
    "ipv4": r"((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])",
}


class ArgumentRules:
    """Rules for the arguments of `function`, of which `schema` is an object's. Their names begin with `prefix`."""

    def __init__(self, written: Parameters, function: str, schema: Mapping[str, Any], text: Text, prefix: str) -> None:
        self._written, self._function, self._root, self._text = written, function, schema, text
        self._prefix = prefix
        self._known: dict[str, str] = {}
        self._count = 0
        self.rules: list[str] = []
        if "enum" in schema or "const" in schema:
            raise self._refused("a choice of whole objects")
        try:
            self.start = self._members(schema, self._written.between, self._parameter)
        except (AttributeError, TypeError) as error:
            raise self._refused("what is no JSON schema") from error

    def _rule(self, body: str, *, name: str = "") -> str:
        name = name or self._name()
        self.rules.append(f"{name}: {body}")
        return name

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}_{self._count}"

    def _refused(self, what: str) -> RequestError:
        reason = (
            f"{what} in the parameters of {self._function!r:.80} is not supported in the form of calls of this model"
        )
        return RequestError(f"tools: {reason}", parameter="tools")

    def _check(self, schema: Mapping[str, Any]) -> None:
        odd = sorted(schema.keys() - _SUPPORTED)
        if odd:
            raise self._refused(f"{odd[0]!r:.40}")

    def _members(self, schema: Mapping[str, Any], between: str, member: Any) -> str:
        """A rule for the members of an object, one after another."""
        self._check(schema)
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        named: dict[str, Any] = {**properties, **{key: {} for key in required if key not in properties}}
        joint = self._text(between)
        if not named:
            others = schema.get("additionalProperties", True)
            if others is False:
                return self._rule('""')
            one = self._rule(member(expression(_KEYS[self._written.values]), others))
            return self._rule(f"({one} ({joint} {one})*)?")
        first = later = self._rule('""')
        for key, value in reversed(named.items()):
            if not re.fullmatch(_KEYS[self._written.values], key):
                raise self._refused(f"the name {key!r:.80}")
            one = self._rule(member(quoted(key), value))
            free = key not in required
            first = self._rule(f"{one} {later}" + (f" | {first}" if free else ""))
            later = self._rule(f"{joint} {one} {later}" + (f" | {later}" if free else ""))
        return first

    def _parameter(self, key: str, schema: Any) -> str:
        """One parameter with what is before and after it; `key` is Lark."""
        written = self._written
        before, after = (spelled(part, self._text, key=key) for part in (written.before, written.after))
        if written.values == "marked":
            return f"{before} {self._marked(schema)} {after}"
        texts, others = _by_kind(self._resolved(schema), self._root)
        if not texts and not others:
            raise self._refused("a schema that allows nothing")
        if not written.plain_before:  # what may be anything is read as what it looks like
            others = [one for one in others if one not in texts]
        if written.values == "python":
            kinds = [self._json(one) for one in texts] + [_of_python(one) or self._json(one) for one in others]
            return f"{before} ({' | '.join(kinds)}) {after}"
        plain_before = spelled(written.plain_before or written.before, self._text, key=key)
        told_apart = bool(written.plain_before) or all(one.keys() <= _ABOUT | {"type"} for one in others)
        types = set() if written.plain_before else schema_types(self._resolved(schema))
        forms = [f"{plain_before} {self._plain(one, types, written.after, told_apart)}" for one in texts]
        forms += [f"{before} ({' | '.join(map(self._json, others))}) {after}"] if others else []
        return " | ".join(forms)

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        if schema is False:
            raise self._refused("a schema that allows nothing")
        return resolved(schema, self._root) if isinstance(schema, Mapping) else {}

    def _json(self, schema: Mapping[str, Any]) -> str:
        shared = {key: self._root[key] for key in ("$defs", "definitions") if key in self._root}
        return json_value({**shared, **schema})

    def _plain(self, schema: Mapping[str, Any], types: set[str], after: str, told_apart: bool) -> str:
        """A text and what ends it. Where the parser could take one for another kind of value, none such is allowed."""
        tag = _TAG.search(after)
        assert tag is not None
        choices = schema.get("enum")
        if choices is not None:
            kept = [
                one for one in choices if tag[0] not in one and (not types or json.loads(as_json(one, types)) == one)
            ]
            if not kept:
                raise self._refused(f"the choice of {choices!r:.80}")
            return f"({' | '.join(map(quoted, kept))}) {spelled(after, self._text)}"
        return self._free(schema, after[: tag.end()], tag[0], [] if told_apart else [f"~{expression(_LIKE_JSON)}"]) + (
            f" {spelled(after[tag.end() :], self._text)}"
        )

    def _free(self, schema: Mapping[str, Any], ending: str, tag: str, more: Sequence[str] = ()) -> str:
        """Any text of a schema, none of it `tag`, and the `ending`."""
        name = self._name()
        body = " & ".join([*self._texts(schema), f"~{expression(f'(?s:.*{_escaped(tag)}.*)')}", *more])
        plain = self._text(ending)
        if "<[" in plain:  # it ends with a control token, which no text goes beyond
            self.rules.append(f"{name.upper()}: {body}")
            return f"{name.upper()} {self._text(tag)}"
        self.rules += [f"{name}[lazy]: {name.upper()}", f"{name.upper()}: ({body}) {plain}"]
        return name

    def _texts(self, schema: Mapping[str, Any]) -> list[str]:
        """Expressions that all have to match a text of this schema."""
        self._check(schema)
        least, most = schema.get("minLength", 0), schema.get("maxLength", "")
        found = [expression(f"(?s:.{{{least},{most}}})")] if least or most != "" else [ANY_TEXT]
        if "pattern" in schema:
            pattern = whole_pattern(schema["pattern"])
            if pattern is None:
                raise self._refused(f"the pattern {schema['pattern']!r:.80}")
            found.append(expression(pattern))
        if "format" in schema:
            if schema["format"] not in _FORMATS:
                raise self._refused(f"the format {schema['format']!r:.40}")
            found.append(expression(_FORMATS[schema["format"]]))
        return found

    def _marked(self, schema: Any) -> str:
        """A rule for a value whose texts stand between marks, and whose keys stand bare."""
        reference = json.dumps(schema)
        if reference not in self._known:  # before its body is made, for schemas that refer to themselves
            name = self._known[reference] = self._name()
            self._rule(self._marked_body(self._resolved(schema)), name=name)
        return self._known[reference]

    def _marked_body(self, schema: Mapping[str, Any]) -> str:
        for key in _ALTERNATIVES:
            if key in schema:
                found = _alternatives(schema, key)
                if not found:
                    raise self._refused("a schema that allows nothing")
                return " | ".join(map(self._marked, found))
        listed = [schema["const"]] if "const" in schema else schema.get("enum")
        if listed is not None:
            return " | ".join(map(self._literal, listed))
        kinds = schema.get("type", list(_TYPES))
        if not isinstance(kinds, str):
            return " | ".join(self._marked({**schema, "type": kind}) for kind in kinds)
        mark = self._text(self._written.mark)
        if kinds == "string":
            return f"{mark} {self._free(schema, self._written.mark, self._written.mark)}"
        if kinds == "array":
            self._check(schema)
            return self._list(self._marked(schema.get("items", {})), schema.get("minItems", 0), schema.get("maxItems"))
        if kinds == "object":
            return f'"{{" {self._members(schema, ",", self._pair)} "}}"'
        self._check(schema)
        return self._json(schema)

    def _pair(self, key: str, schema: Any) -> str:
        return f'{key} ":" {self._marked(schema)}'

    def _list(self, item: str, least: int, most: int | None) -> str:
        if most == 0:
            return '"[" "]"'
        more = f'"[" {item} ("," {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}} "]"'
        return more if least else f'"[" "]" | {more}'

    def _literal(self, value: Any) -> str:
        """One value, as it is written."""
        if isinstance(value, str):
            mark = self._text(self._written.mark)
            return f"{mark} {quoted(value)} {mark}"
        if isinstance(value, list):
            return f'"[" {_COMMA.join(map(self._literal, value))} "]"'
        if isinstance(value, dict):
            pairs = (f'{quoted(key)} ":" {self._literal(one)}' for key, one in value.items())
            return f'"{{" {_COMMA.join(pairs)} "}}"'
        return quoted(json.dumps(value))


def _alternatives(schema: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Those under a key, each with what is said beside them; without what allows nothing."""
    rest = {name: value for name, value in schema.items() if name != key}
    return [{**rest, **({} if one is True else one)} for one in schema[key] if one is not False]


def _by_kind(
    schema: Mapping[str, Any], root: Mapping[str, Any]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """What a resolved schema allows, as schemas of texts and schemas of everything else."""
    parts: list[Mapping[str, Any]] = []
    alternatives = next((key for key in _ALTERNATIVES if isinstance(schema.get(key), list)), None)
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if alternatives is not None:
        parts = [resolved(one, root) for one in _alternatives(schema, alternatives)]
    elif listed is not None:
        texts = [one for one in listed if isinstance(one, str)]
        others = [one for one in listed if not isinstance(one, str)]
        return [{"enum": texts}] if texts else [], [{"enum": others}] if others else []
    elif isinstance(schema.get("type"), list):
        parts = [{**schema, "type": kind} for kind in schema["type"]]
    elif "type" not in schema and schema.keys() <= _ABOUT:
        return [schema], [schema]
    else:
        return ([schema], []) if schema.get("type") == "string" else ([], [schema])
    found = [_by_kind(part, root) for part in parts]
    return [one for texts, _ in found for one in texts], [one for _, others in found for one in others]


def _of_python(schema: Mapping[str, Any]) -> str | None:
    """Python's constants, where a schema is of no more than these."""
    if schema.get("type") == "boolean":
        return '"True" | "False"'
    return '"None"' if schema.get("type") == "null" else None


def whole_pattern(pattern: str) -> str | None:
    """An expression for whole texts from one that is to be found in them; None where its ends are not plain to see."""
    begins, ends = pattern.startswith("^"), re.search(r"(?<!\\)(\\\\)*\$$", pattern) is not None
    inner = pattern[begins : len(pattern) - ends]
    outside = re.sub(r"\\.|\[\^?\]?(\\.|[^\]\\])*\]", "", inner)  # without escapes and classes
    if re.search(r"[$^]|\(\?[=!<]", outside) or ("|" in outside and begins != ends and "(" not in outside):
        return None
    if (begins or ends) and "|" in re.sub(r"\((?:[^()]|\([^()]*\))*\)", "", outside):
        return None  # the ends belong to the first and the last alternative only
    before, after = ("" if bound else "(?s:.*)" for bound in (begins, ends))
    return f"{before}(?:{inner}){after}"


def _escaped(text: str) -> str:
    """A text as a part of a regular expression of Rust's."""
    return re.sub(r"([\\.+*?()|\[\]{}^$#&~/-])", r"\\\1", text)
