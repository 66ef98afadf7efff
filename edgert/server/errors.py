"""Errors over HTTP, each in the form of the protocol whose route was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from edgert_models.errors import (
    CancelledError,
    ContextLengthError,
    DeadlineError,
    EdgertError,
    EngineError,
    HubError,
    QueueFullError,
    RequestError,
    TemplateError,
    UnsupportedError,
)
from starlette.responses import JSONResponse

Json = dict[str, Any]


class UnknownModelError(RequestError):
    """The request names a model that this server does not have; `served` are those that it has."""

    def __init__(self, name: str, served: Iterable[str]) -> None:
        names = [repr(one) for one in served]
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        has = ", ".join(names[:10]) + more if names else "none"
        super().__init__(f"the model {name!r} does not exist; this server has {has}", parameter="model")


class ClientGoneError(EdgertError):
    """The client closed the connection before the answer was ready."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong: the HTTP status, a message for people, and for programs the field at fault and a code."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None


Form = Callable[[Problem], Json]
"""How a protocol writes a problem."""

_OPENAI_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ANTHROPIC_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def openai_form(problem: Problem) -> Json:
    """{"error": {"message", "type", "param", "code"}}; also that of the server's own routes."""
    fallback = "server_error" if problem.status >= 500 else "invalid_request_error"
    kind = _OPENAI_KINDS.get(problem.status, fallback)
    return {"error": {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}}


def anthropic_form(problem: Problem) -> Json:
    """{"type": "error", "error": {"type", "message"}}."""
    fallback = "api_error" if problem.status >= 500 else "invalid_request_error"
    kind = _ANTHROPIC_KINDS.get(problem.status, fallback)
    return {"type": "error", "error": {"type": kind, "message": problem.message}}


def ollama_form(problem: Problem) -> Json:
    """{"error": message}."""
    return {"error": problem.message}


def form_of(path: str) -> Form:
    """The form of the protocol that a path belongs to."""
    if path.startswith("/api/"):
        return ollama_form
    return anthropic_form if path.startswith("/v1/messages") else openai_form


def problem_of(error: EdgertError) -> Problem:
    """What an error of ours is over HTTP."""
    message = str(error)
    match error:
        case UnknownModelError():
            return Problem(404, message, error.parameter, "model_not_found")
        case ContextLengthError():
            return Problem(400, message, error.parameter, "context_length_exceeded")
        case RequestError():
            return Problem(400, message, error.parameter)
        case UnsupportedError() | TemplateError():
            return Problem(400, message)
        case DeadlineError():
            return Problem(504, message, code="timeout")
        case QueueFullError():
            return Problem(429, message, code="queue_full")
        case HubError():
            return Problem(502, message)
        case ClientGoneError():
            return Problem(499, message)  # nginx's number; nobody reads the answer, but the metrics count it
        case EngineError():
            return Problem(503, message, code="engine_failed")
        case CancelledError():
            return Problem(503, message, code="cancelled")
        case _:
            return Problem(500, message)


def problem_response(path: str, problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The response to a request for `path` that met a problem; it says when to come again where that helps."""
    retry = {"Retry-After": "1"} if problem.status in (429, 503) else {}
    return JSONResponse(form_of(path)(problem), problem.status, {**retry, **(headers or {})})
