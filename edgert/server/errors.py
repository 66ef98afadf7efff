"""Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from edgert_models.errors import (
    CancelledError,
    ContextLengthError,
    EdgertError,
    QueueFullError,
    RequestError,
    TemplateError,
    UnsupportedError,
)
from starlette.responses import JSONResponse

Body = dict[str, dict[str, str | None]]


def error_body(
    message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> Body:
    """The JSON object of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A response that carries one error."""
    return JSONResponse(error_body(message, kind=kind, param=param, code=code), status, headers)


def status_and_body(error: EdgertError) -> tuple[int, Body]:
    """What an error of ours is over HTTP."""
    message = str(error)
    match error:
        case ContextLengthError():
            return 400, error_body(message, param=error.parameter, code="context_length_exceeded")
        case RequestError():
            return 400, error_body(message, param=error.parameter)
        case UnsupportedError() | TemplateError():
            return 400, error_body(message)
        case QueueFullError():
            return 429, error_body(message, kind="rate_limit_error", code="queue_full")
        case CancelledError():
            return 503, error_body(message, kind="server_error", code="cancelled")
        case _:
            return 500, error_body(message, kind="server_error")
