"""The routes of OpenAI's protocol."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from edgert.server.documented import WHOLE, OpenAIError, errors_as, streamed
from edgert.server.models.catalogue import Entry
from edgert.server.models.fleet import Fleet
from edgert.server.models.leases import use
from edgert.server.openai import chat, completions, embeddings, responses
from edgert.server.stream import EVENTS
from edgert.server.strict import StrictRoute


def openai_routes(fleet: Fleet) -> APIRouter:
    """/v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/models."""
    router = APIRouter(route_class=StrictRoute, prefix="/v1", tags=["openai"], responses=errors_as(OpenAIError))

    @router.get("/models", summary="The models that can be asked for")
    async def models() -> dict[str, Any]:
        entries = await fleet.entries()
        return {"object": "list", "data": [_told(entry, name) for entry in entries.values() for name in entry.names]}

    @router.get("/models/{model:path}", summary="One model")
    async def model_named(model: str) -> dict[str, Any]:
        entry = await fleet.find(model)
        adapter = entry.adapter_of(model)
        return _told(entry, f"{entry.name}:{adapter}" if adapter else entry.name)

    @router.post("/chat/completions", summary="Answer a conversation", responses=streamed(EVENTS))
    async def chat_completions(body: chat.ChatRequest, request: Request) -> Response:
        llm = await use(fleet, request, body.model)
        return await chat.answer(llm, body, request)

    @router.post("/completions", summary="Continue a text", responses=streamed(EVENTS))
    async def text_completions(body: completions.CompletionRequest, request: Request) -> Response:
        llm = await use(fleet, request, body.model)
        return await completions.answer(llm, body, request)

    @router.post("/responses", summary="Answer, with tools and reasoning as items", responses=streamed(EVENTS))
    async def create_response(body: responses.ResponseRequest, request: Request) -> Response:
        llm = await use(fleet, request, body.model)
        return await responses.answer(llm, body, request)

    @router.post("/embeddings", summary="Vectors of texts", responses=WHOLE)
    async def embed(body: embeddings.EmbeddingRequest, request: Request) -> Response:
        llm = await use(fleet, request, body.model)
        return await embeddings.answer(llm, body, request)

    return router


def _told(entry: Entry, name: str) -> dict[str, Any]:
    created = int(entry.description().modified)
    return {"id": name, "object": "model", "created": created, "owned_by": "edgert"}
