"""What the OpenAPI document says of responses, and where it has to know the model."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from edgert.server.models.fleet import Fleet
from edgert.server.strict import TOKEN_ID

Responses = dict[int | str, dict[str, Any]]

_OBJECT = {"schema": {"type": "object"}}


class OpenAIErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error in OpenAI's form."""

    error: OpenAIErrorDetail


class AnthropicErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(BaseModel):
    """An error in Anthropic's form."""

    type: str
    error: AnthropicErrorDetail


class OllamaError(BaseModel):
    """An error in Ollama's form."""

    error: str


def errors_as(model: type[BaseModel]) -> Responses:
    """Every error of a router's routes in one form; that 4XX is there keeps FastAPI from adding a 422 of its own."""
    return {"4XX": {"model": model, "description": "Refused"}, "5XX": {"model": model, "description": "Failed"}}


def streamed(media_type: str, *, several: bool = False) -> Responses:
    """A whole answer (or `several`, in a list), or a stream of pieces, which OpenAPI 3.1 has no words for."""
    whole = {"schema": {"type": ["object", "array"]}} if several else _OBJECT
    content = {"application/json": whole, media_type: {}}
    return {200: {"description": "The answer, whole or streamed", "content": content}}


WHOLE: Responses = {200: {"description": "The answer", "content": {"application/json": _OBJECT}}}


def document(app: FastAPI, fleet: Fleet) -> None:
    """Let an application's document say what only the model tells, where there is one: which token ids there are.

    FastAPI keeps bounds as floats, in which 2^64 is written with digits that are not its own: they are made whole.
    """
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:  # `made` keeps what it makes there
            app.openapi_schema = _exact(made(), fleet.vocabulary)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _exact(part: Any, vocabulary: int | None) -> Any:
    if isinstance(part, list):
        return [_exact(item, vocabulary) for item in part]
    if isinstance(part, dict):
        found = {key: _exact(value, vocabulary) for key, value in part.items() if key != TOKEN_ID}
        bounded = TOKEN_ID in part and vocabulary is not None
        return {**found, "maximum": vocabulary - 1} if bounded else found  # type: ignore[operator]
    return int(part) if isinstance(part, float) and part.is_integer() else part
