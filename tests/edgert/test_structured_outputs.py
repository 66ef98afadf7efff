"""Answers of a model are of the form that was asked for, whatever the model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from edgert_models.errors import RequestError, UnsupportedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgert import LLM, SamplingParams, StructuredOutputs
from tests.edgert.tiny_gguf import write_tiny

ASK = [{"role": "user", "content": "Tell me about yourself, as JSON."}]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def demo() -> Iterator[LLM]:
    with LLM(context=1024) as llm:
        yield llm


def params(seed: int = 1, **given: Any) -> SamplingParams:
    return SamplingParams(max_tokens=400, temperature=1.0, seed=seed, structured_outputs=StructuredOutputs(**given))


SCALARS = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-1000, 1000),
        st.integers(0, 2000),
    ),
    st.builds(
        lambda low, size: {"type": "string", "minLength": low, "maxLength": low + size},
        st.integers(0, 4),
        st.integers(0, 6),
    ),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.one_of(st.text(max_size=6), st.integers(), st.booleans(), st.none()), min_size=1, max_size=4),
    ),
    st.just({"type": "string", "pattern": "^[a-z]{2,5}-[0-9]+$", "maxLength": 10}),
    st.just({"type": "string", "format": "date"}),
)


def deeper(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.text(min_size=1, max_size=6)
    return st.one_of(
        st.builds(
            lambda items, low, size: {"type": "array", "items": items, "minItems": low, "maxItems": low + size},
            inner,
            st.integers(0, 2),
            st.integers(0, 2),
        ),
        st.builds(
            lambda properties, needed: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if len(name) <= needed],
                "additionalProperties": False,
            },
            st.dictionaries(names, inner, max_size=3),
            st.integers(0, 6),
        ),
        st.builds(lambda first, second: {"anyOf": [first, second]}, inner, inner),
    )


SCHEMAS = st.recursive(SCALARS, deeper, max_leaves=6)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is what a schema of the kind above says (JSON Schema's validation, by its definition)."""
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return any(type(value) is type(one) and value == one for one in schema["enum"])
    match schema["type"]:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return (
                type(value) in (int, float) and value == int(value) and schema["minimum"] <= value <= schema["maximum"]
            )
        case "string":
            if not isinstance(value, str) or not schema.get("minLength", 0) <= len(value) <= schema.get(
                "maxLength", 99
            ):
                return False
            if schema.get("format") == "date":
                return re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None
            return re.search(schema.get("pattern", ""), value) is not None
        case "array":
            right = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
            return right and all(fits(item, schema["items"]) for item in value)
    known = schema["properties"]
    right = isinstance(value, dict) and set(schema["required"]) <= value.keys() <= known.keys()
    return right and all(fits(item, known[name]) for name, item in value.items())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_answers_are_of_random_schemas(demo: LLM, schema: dict[str, Any], seed: int) -> None:
    answer = demo.chat(ASK, params(seed, json=schema))
    if answer.finish_reason == "length":  # cut, as asked: what is there is the beginning of such a value
        assert len(answer.token_ids) == 400
        return
    assert fits(json.loads(answer.text), schema), answer.text


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_every_kind(demo: LLM, temperature: float) -> None:
    asked = {
        r"[A-Z][a-z]{2,9} \d{2,4}": {"regex": r"[A-Z][a-z]{2,9} \d{2,4}"},
        "yes|no|maybe": {"choice": ["yes", "no", "maybe"]},
        "a[bc]d": {"grammar": 'root ::= "a" ("b" | [c]) "d"'},
        "a[xy]{3}": {"grammar": 'start: "a" B\nB: /[xy]{3}/'},
        r"\{.*\}": {"json": PERSON},
    }
    for expression, kind in asked.items():
        chosen = SamplingParams(
            max_tokens=300,
            temperature=temperature,
            seed=3,
            structured_outputs=StructuredOutputs(**kind),  # type: ignore[arg-type]
        )
        answer = demo.chat(ASK, chosen)
        assert re.fullmatch(expression, answer.text, re.DOTALL), answer.text
        assert answer.finish_reason == "stop"
        assert "".join(chunk.text for chunk in demo.stream_chat(ASK, chosen)) == answer.text


def test_company_and_samplers_change_nothing(demo: LLM) -> None:
    chosen = [
        params(1, json=PERSON),
        SamplingParams(max_tokens=200, seed=5, structured_outputs=StructuredOutputs(json=PERSON), logprobs=2),
        SamplingParams(max_tokens=20, seed=6),
        SamplingParams(
            max_tokens=200,
            seed=7,
            mirostat=2,
            repetition_penalty=1.2,
            dry_multiplier=0.8,
            logit_bias={5: 3.0},
            structured_outputs=StructuredOutputs(json=PERSON),
        ),
        params(1, choice=["one", "two"]),
    ]
    prompt = demo.chat_prompt(ASK)
    together = demo.generate([prompt] * len(chosen), chosen)
    for params_, answer in zip(chosen, together, strict=True):
        assert demo.generate(prompt, params_).token_ids == answer.token_ids
        if params_.structured_outputs is not None and params_.structured_outputs.json:
            assert fits_person(json.loads(answer.text))


def fits_person(value: Any) -> bool:
    needed = {"name", "age"} <= value.keys() <= {"name", "age", "tags"}
    return needed and len(value["name"]) <= 12 and value["age"] in range(151)


def test_the_end_token_waits_for_the_end(demo: LLM) -> None:
    chosen = SamplingParams(
        max_tokens=50,
        temperature=0.0,
        logit_bias=dict.fromkeys(demo.tokenizer.stop_ids, 100.0),
        structured_outputs=StructuredOutputs(regex="[a-z]{3,}"),
    )
    answer = demo.chat(ASK, chosen)
    assert len(answer.text) >= 3
    assert answer.stop in demo.tokenizer.stop_ids
    # Where nothing more may come the answer ends by itself, without an end token, and whatever else is asked.
    whole = demo.chat(ASK, SamplingParams(ignore_eos=True, structured_outputs=StructuredOutputs(regex="[a-z]{3}")))
    assert (len(whole.text), whole.stop, whole.finish_reason) == (3, None, "stop")
    assert whole.usage.completion_tokens == len(whole.token_ids)


def test_response_formats_and_what_is_refused(demo: LLM, tmp_path: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    assert fits_person(json.loads(demo.chat(ASK, SamplingParams(max_tokens=300, seed=1), response_format=form).text))
    with pytest.raises(RequestError, match="response_format and structured_outputs cannot both"):
        demo.chat(ASK, params(regex="a"), response_format=form)
    with pytest.raises(RequestError, match="response_format: the schema has keywords that are not supported: not"):
        demo.stream_chat(ASK, response_format={"type": "json_object", "schema": {"not": {}}})
    with pytest.raises(RequestError, match=r"structured_outputs: .* look-around"):
        demo.generate("x", params(regex="(?!a)b"))
    with (
        LLM(write_tiny(tmp_path / "bare.gguf", tokenizer={}), backend="reference") as bare,
        pytest.raises(UnsupportedError, match="no tokenizer, so answers cannot be held to a form"),
    ):
        bare.generate([1, 2], params(regex="a"))
