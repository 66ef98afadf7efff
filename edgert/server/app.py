"""The application: routes, and how errors and odd requests are answered."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any

from edgert_models.errors import EdgertError
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from edgert import LLM, __version__
from edgert.server import chat, completions
from edgert.server.errors import error_response, status_and_body
from edgert.server.guard import Guard

_MAX_DEPTH = 64
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)


class StrictJson(Request):
    """Bodies are read as strict JSON: no NaN, no duplicate keys, no endless nesting."""

    async def json(self) -> Any:
        """The body; ValueError says what is wrong with it."""
        body = await self.body()
        if _depth(body) > _MAX_DEPTH:
            raise json.JSONDecodeError(f"nested deeper than {_MAX_DEPTH}", "", 0)
        try:
            return json.loads(body, object_pairs_hook=_unique, parse_constant=_refuse)
        except json.JSONDecodeError:
            raise
        except ValueError as error:  # a duplicate, a constant, or bytes that are no text
            raise json.JSONDecodeError(str(error), "", 0) from None


class StrictRoute(APIRoute):
    """A route whose requests are StrictJson."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's documented way to use another Request class."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictJson(request.scope, request.receive))

        return strict


def create_app(llm: LLM, *, host: str = "127.0.0.1", api_key: str | None = None) -> FastAPI:
    """An ASGI application that serves `llm`, guarded as one that listens on `host`."""
    app = FastAPI(title="edgert", version=__version__, docs_url=None, redoc_url=None)
    created = int(time.time())
    router = APIRouter(route_class=StrictRoute)

    @router.get("/health", summary="Whether the server answers, and what it is doing")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": llm.name, **asdict(llm.statistics())}

    def entry() -> dict[str, Any]:
        return {"id": llm.name, "object": "model", "created": created, "owned_by": "edgert"}

    @router.get("/v1/models", summary="The model that is served")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [entry()]}

    @router.get("/v1/models/{model:path}", summary="One model", response_model=None)
    async def model_named(model: str) -> dict[str, Any] | JSONResponse:
        return entry() if model == llm.name else unknown_model(llm, model)

    @router.post("/v1/chat/completions", summary="Answer a conversation", response_model=None)
    async def chat_completions(body: chat.ChatRequest, request: Request) -> Response:
        if body.model != llm.name:
            return unknown_model(llm, body.model)
        return await chat.answer(llm, body, request)

    @router.post("/v1/completions", summary="Continue a text", response_model=None)
    async def text_completions(body: completions.CompletionRequest, request: Request) -> Response:
        if body.model != llm.name:
            return unknown_model(llm, body.model)
        return await completions.answer(llm, body, request)

    app.include_router(router)
    app.add_exception_handler(EdgertError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(Guard, host=host, api_key=api_key)
    return app


def unknown_model(llm: LLM, name: str) -> JSONResponse:
    """404 in OpenAI's form."""
    message = f"the model '{name}' does not exist; this server has '{llm.name}'"
    return error_response(404, message, param="model", code="model_not_found")


async def _ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, EdgertError)
    status, body = status_and_body(error)
    return JSONResponse(body, status, {"Retry-After": "1"} if status in (429, 503) else None)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Of a field that takes several types each has its complaint; one that is not about the type says more.
    first = min(error.errors(), key=lambda found: found["type"].endswith("_type"))
    place = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return error_response(400, f"the body is not valid JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    name = place[0] if place else None
    return error_response(400, f"{'.'.join(place) or 'body'}: {first['msg']}", param=name)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, str(error.detail), headers=dict(error.headers or {}))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _depth(body: bytes) -> int:
    """Brackets that are open at once, at most."""
    depth = deepest = 0
    for bracket in re.findall(rb"[][{}]", _STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
