"""What may be asked of the form of an answer."""

from typing import Any

import pytest
from edgert_models.errors import RequestError

from edgert import SamplingParams, StructuredOutputs


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"json": {"type": "string"}}, "json", '{"type": "string"}'),
        ({"json": '{"type":"string"}'}, "json", '{"type": "string"}'),
        ({"json": {}}, "json", "{}"),
        ({"json_object": True}, "json_object", '{"type": "object"}'),
        ({"regex": "a+"}, "regex", "a+"),
        ({"choice": ["é", "b"]}, "choice", '["é", "b"]'),
        ({"grammar": "root ::= [a-z]"}, "grammar", "root ::= [a-z]"),
    ],
    ids=str,
)
def test_kinds(given: dict[str, Any], kind: str, text: str) -> None:
    asked = StructuredOutputs(**given)
    assert (asked.kind, asked.text) == (kind, text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give exactly one of json, json_object, regex, choice, grammar, not none"),
        ({"regex": "a", "grammar": "b"}, "not regex and grammar"),
        ({"json": "{"}, "the schema is not JSON"),
        ({"json": "[" * 100_000}, "the schema is not JSON"),
        ({"json": "[]"}, r"a JSON schema is an object, not \[\]"),
        ({"json": {"const": float("nan")}}, "the schema is not JSON"),
        ({"json": {"a": {1}}}, "the schema is not JSON"),
        ({"json": {"description": "x" * 70_000}}, "json has 700.. bytes; at most 65536 are taken"),
        ({"json_object": 1}, "json_object must be true or false"),
        ({"regex": ""}, "regex must be a text of at least one character"),
        ({"grammar": 3}, "grammar must be a text"),
        ({"choice": "yes"}, "choice must be a list"),
        ({"choice": []}, "choice must be a list"),
        ({"choice": ["a", ""]}, "choice: '' is not a text"),
        ({"choice": ["a"] * 2000}, "choice has 2000 texts"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_malformed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        StructuredOutputs(**given)
    assert caught.value.parameter == "structured_outputs"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, '{"type": "object"}'),
        ({"type": "json_object", "schema": {"type": "object"}}, '{"type": "object"}'),
        ({"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"a": 1}}}, '{"a": 1}'),
    ],
    ids=str,
)
def test_response_formats(given: dict[str, Any] | None, text: str | None) -> None:
    found = StructuredOutputs.of_response_format(given)
    assert (None if found is None else found.text) == text
    assert found is None or found.parameter == "response_format"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "xml"}, "of type 'xml' is not known; the types are text, json_object and json_schema"),
        ({"type": "text", "schema": {}}, "of type 'text'"),
        ({"type": "json_object", "colour": 1}, "has no 'colour'"),
        ({"type": "json_schema"}, "must be"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "must be"),
        ({"type": "json_schema", "json_schema": {"schema": {}, "other": 1}}, "has no 'other'"),
        ([], "must be an object"),
    ],
    ids=str,
)
def test_response_formats_that_are_refused(given: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        StructuredOutputs.of_response_format(given)
    assert caught.value.parameter == "response_format"


def test_params_take_nothing_else() -> None:
    with pytest.raises(RequestError, match="structured_outputs must be StructuredOutputs, not dict"):
        SamplingParams(structured_outputs={"regex": "a"})  # type: ignore[arg-type]
