"""The application: every protocol's routes, and how errors and odd requests are answered."""

from __future__ import annotations

from collections.abc import Sequence

from edgert_models.errors import EdgertError
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from edgert import LLM, __version__
from edgert.server.anthropic.routes import anthropic_routes
from edgert.server.counting import Counting, Served
from edgert.server.documented import document
from edgert.server.errors import Problem, problem_of, problem_response
from edgert.server.guard import Guard
from edgert.server.models.fleet import Fleet
from edgert.server.models.leases import Leases
from edgert.server.native.routes import native_routes
from edgert.server.ollama.routes import ollama_routes
from edgert.server.openai.routes import openai_routes
from edgert.server.page.routes import page_routes


def create_app(
    models: LLM | Fleet, *, check_host: bool = True, api_keys: Sequence[str] = (), allow_pull: bool = False
) -> FastAPI:
    """An ASGI application that serves a model, or a fleet of them, guarded as `Guard` says."""
    fleet = Fleet.of(models) if isinstance(models, LLM) else models
    app = FastAPI(title="edgert", version=__version__, docs_url=None, redoc_url=None, lifespan=fleet.living)
    served: Served = Served()
    for router in (
        native_routes(fleet, served),
        openai_routes(fleet),
        anthropic_routes(fleet),
        ollama_routes(fleet, allow_pull=allow_pull),
    ):
        app.include_router(router)
    app.include_router(page_routes())
    app.add_exception_handler(EdgertError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    document(app, fleet)
    app.add_middleware(Leases)
    app.add_middleware(Guard, check_host=check_host, api_keys=api_keys)
    app.add_middleware(Counting, served=served)
    return app


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, EdgertError)
    return problem_response(request.scope["path"], problem_of(error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Of a field that takes several types each has its complaint; one that is not about the type says more.
    first = min(error.errors(), key=lambda found: found["type"].endswith("_type"))
    place = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        message = f"the body is not valid JSON: {first.get('ctx', {}).get('error', first['msg'])}"
        return problem_response(request.scope["path"], Problem(400, message))
    kind = request.headers.get("content-type", "")
    if not place and "json" not in kind:  # what `curl -d` sends unless it is told
        message = f"the body is read with 'Content-Type: application/json' only, and this one has {kind!r}"
        return problem_response(request.scope["path"], Problem(400, message))
    message = f"{'.'.join(place) or 'body'}: {first['msg']}"
    return problem_response(request.scope["path"], Problem(400, message, place[0] if place else None))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(error.status_code, str(error.detail))
    return problem_response(request.scope["path"], problem, dict(error.headers or {}))
