"""What a caller may ask the text of an answer to be."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgert_models.errors import RequestError

MAX_BYTES = 1 << 16
"""Of a schema, a regular expression, a grammar, or all choices together, as UTF-8."""
MAX_CHOICES = 1024
_KINDS = ("json", "json_object", "regex", "choice", "grammar")


@dataclass(frozen=True, kw_only=True)
class StructuredOutputs:
    """The form that an answer has to have: exactly one of these, which are called as vLLM calls them.

    Every answer is of that form, unless `max_tokens`, a stop text or a full context cuts it short. RequestError for
    what is malformed; what cannot be honoured (a keyword of a schema, look-around in a regular expression) is one too,
    when the answer is asked for.
    """

    json: Mapping[str, Any] | str | None = None
    """A JSON schema (draft 2020-12; see docs/structured.md for the keywords), also as JSON text."""
    json_object: bool = False
    """Any JSON object."""
    regex: str | None = None
    """A regular expression in the syntax of Rust's `regex`, which has to match the whole text."""
    choice: Sequence[str] | None = None
    """One of these texts; kept as a tuple."""
    grammar: str | None = None
    """A grammar in llama.cpp's GBNF (which has `::=`), or in llguidance's form of Lark."""
    parameter: str = field(default="structured_outputs", repr=False)
    """What errors call it."""

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            raise self.error(f"give exactly one of {', '.join(_KINDS)}, not {' and '.join(given) or 'none'}")
        if self.json is not None:
            object.__setattr__(self, "json", self._schema(self.json))
        if not isinstance(self.json_object, bool):
            raise self.error(f"json_object must be true or false, not {self.json_object!r:.40}")
        if self.choice is not None:
            object.__setattr__(self, "choice", self._choices(self.choice))
        for name in ("regex", "grammar"):
            text = getattr(self, name)
            if text is not None and (not isinstance(text, str) or not text):
                raise self.error(f"{name} must be a text of at least one character")
        size = len(self.text.encode("utf-8", "surrogatepass"))
        if size > MAX_BYTES:
            raise self.error(f"{self.kind} has {size} bytes; at most {MAX_BYTES} are taken")

    @classmethod
    def of_response_format(
        cls, response_format: Mapping[str, Any] | None, parameter: str = "response_format"
    ) -> StructuredOutputs | None:
        """OpenAI's `response_format`: {"type": "text"}, {"type": "json_object"}, where a `schema` may stand beside, or
        {"type": "json_schema", "json_schema": {"schema": …}}. None for text.
        """
        if response_format is None:
            return None
        if not isinstance(response_format, Mapping):
            raise RequestError(f"{parameter} must be an object", parameter=parameter)
        given = dict(response_format)
        kind = given.pop("type", None)
        if kind == "json_schema":
            inner = given.pop("json_schema", None)
            if not isinstance(inner, Mapping) or "schema" not in inner or given:
                reason = 'must be {"type": "json_schema", "json_schema": {"name": …, "schema": …}}'
                raise RequestError(f"{parameter} {reason}", parameter=parameter)
            given = {key: value for key, value in inner.items() if key not in ("name", "description", "strict")}
        schema = given.pop("schema", None)
        if kind not in ("text", "json_object", "json_schema") or given or (kind == "text" and schema is not None):
            odd = f"has no {sorted(given)[0]!r}" if given else f"of type {kind!r:.40} is not known"
            reason = f"{parameter} {odd}; the types are text, json_object and json_schema"
            raise RequestError(reason, parameter=parameter)
        if kind == "text":
            return None
        if schema is None:
            return cls(json_object=True, parameter=parameter)
        return cls(json=schema, parameter=parameter)

    @property
    def kind(self) -> str:
        """Which of the forms it is."""
        return next(name for name in _KINDS if getattr(self, name) not in (None, False))

    @property
    def text(self) -> str:
        """What was given, as text; of choices a JSON list."""
        if self.choice is not None:
            return json_text.dumps(self.choice, ensure_ascii=False)
        if self.json_object:
            return '{"type": "object"}'
        return str(getattr(self, self.kind))

    def error(self, reason: str) -> RequestError:
        """That it cannot be honoured."""
        return RequestError(f"{self.parameter}: {reason}", parameter=self.parameter)

    def _schema(self, schema: Any) -> str:
        """As JSON text."""
        if isinstance(schema, str):
            try:
                schema = json_text.loads(schema)
            except (ValueError, RecursionError) as error:
                raise self.error(f"the schema is not JSON: {error}") from None
        if not isinstance(schema, Mapping):
            raise self.error(f"a JSON schema is an object, not {schema!r:.40}")
        try:
            return json_text.dumps(schema, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise self.error(f"the schema is not JSON: {error}") from None

    def _choices(self, choice: Any) -> tuple[str, ...]:
        if isinstance(choice, str) or not isinstance(choice, Sequence) or not choice:
            raise self.error("choice must be a list of at least one text")
        if len(choice) > MAX_CHOICES:
            raise self.error(f"choice has {len(choice)} texts; at most {MAX_CHOICES} are taken")
        for text in choice:
            if not isinstance(text, str) or not text:
                raise self.error(f"choice: {text!r:.40} is not a text of at least one character")
        return tuple(choice)
