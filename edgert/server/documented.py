"""What the OpenAPI document says of responses."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

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


def streamed(media_type: str) -> Responses:
    """A whole answer, or a stream of pieces."""
    content = {"application/json": _OBJECT, media_type: {"schema": {"type": "string"}}}
    return {200: {"description": "The answer, whole or streamed", "content": content}}


WHOLE: Responses = {200: {"description": "The answer", "content": {"application/json": _OBJECT}}}
