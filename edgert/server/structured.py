"""Fields that ask for the form of an answer, in the ways of OpenAI, vLLM and llama.cpp."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from edgert_models.errors import RequestError
from pydantic import Field

from edgert import StructuredOutputs
from edgert.server.strict import Strict

Schema = dict[str, Any]


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """A JSON object; of a schema, where there is one (as llama.cpp has it)."""

    type: Literal["json_object"]
    schema_: Schema | None = Field(default=None, alias="schema")


class NamedSchema(Strict):
    """A JSON schema with a name. It is held to with `strict` or without."""

    name: str | None = None
    description: str | None = None
    schema_: Schema = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Strict):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class FlatSchemaFormat(NamedSchema):
    """JSON of a schema, as /v1/responses has it."""

    type: Literal["json_schema"]


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
FlatFormat = Annotated[TextFormat | JsonObjectFormat | FlatSchemaFormat, Field(discriminator="type")]


class StructuredOutputsFields(Strict):
    """vLLM's `structured_outputs`: one of these."""

    json_: Schema | str | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class StructuredFields(Strict):
    """OpenAI's `response_format`, vLLM's `structured_outputs`, llama.cpp's `json_schema` and `grammar`: one of them."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputsFields | None = None
    json_schema: Schema | None = None
    grammar: str | None = None

    def content(self) -> StructuredOutputs | None:
        """The form that is asked for; RequestError where it is malformed, or where there are two."""
        names = ("response_format", "structured_outputs", "json_schema", "grammar")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            reason = f"{given[0]} and {given[1]} cannot both say what the answer is"
            raise RequestError(reason, parameter=given[1])
        if self.structured_outputs is not None:
            return StructuredOutputs(**self.structured_outputs.model_dump(by_alias=True, exclude_none=True))
        if self.json_schema is not None:
            return StructuredOutputs(json=self.json_schema, parameter="json_schema")
        if self.grammar is not None:
            return StructuredOutputs(grammar=self.grammar, parameter="grammar")
        return content_of(self.response_format)


def content_of(
    form: TextFormat | JsonObjectFormat | JsonSchemaFormat | FlatSchemaFormat | None, parameter: str = "response_format"
) -> StructuredOutputs | None:
    """What a format asks for; None for any text. `parameter` is what errors call it."""
    given = None if form is None else form.model_dump(by_alias=True, exclude_none=True)
    if given is not None and isinstance(form, FlatSchemaFormat):
        given = {"type": given.pop("type"), "json_schema": given}
    return StructuredOutputs.of_response_format(given, parameter)
