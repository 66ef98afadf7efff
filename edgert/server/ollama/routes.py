"""The routes of Ollama's protocol."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from edgert import LLM, __version__
from edgert.server.documented import WHOLE, OllamaError, errors_as, streamed
from edgert.server.ollama import answers, models
from edgert.server.ollama.requests import ShowRequest
from edgert.server.stream import LINES
from edgert.server.strict import StrictRoute


def ollama_routes(llm: LLM) -> APIRouter:
    """/api/generate, /api/chat, /api/embed, /api/tags, /api/ps, /api/show, /api/version."""
    router = APIRouter(route_class=StrictRoute, prefix="/api", tags=["ollama"], responses=errors_as(OllamaError))

    @router.post("/generate", summary="Answer a prompt", responses=streamed(LINES))
    async def generate(body: answers.GenerateRequest, request: Request) -> Response:
        models.check_model(llm, body.model)
        return await answers.generate(llm, body, request)

    @router.post("/chat", summary="Answer a conversation", responses=streamed(LINES))
    async def chat(body: answers.OllamaChatRequest, request: Request) -> Response:
        models.check_model(llm, body.model)
        return await answers.chat(llm, body, request)

    @router.post("/embed", summary="Vectors of texts", responses=WHOLE)
    async def embed(body: answers.EmbedRequest, request: Request) -> Response:
        models.check_model(llm, body.model)
        return await answers.embed(llm, body, request)

    @router.get("/tags", summary="The model that is served")
    async def tags() -> dict[str, Any]:
        return models.tags(llm)

    @router.get("/ps", summary="The model that is loaded")
    async def ps() -> dict[str, Any]:
        return models.running(llm)

    @router.post("/show", summary="What the model's file says of itself")
    async def show(body: ShowRequest) -> dict[str, Any]:
        models.check_model(llm, body.model)
        return models.show(llm, verbose=body.verbose is True)

    @router.get("/version", summary="The version of edgert")
    async def version() -> dict[str, Any]:
        return {"version": __version__}

    return router
