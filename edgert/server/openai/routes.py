"""The routes of OpenAI's protocol."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from edgert import LLM
from edgert.server.conversation import check_model
from edgert.server.documented import WHOLE, OpenAIError, errors_as, streamed
from edgert.server.openai import chat, completions, embeddings, responses
from edgert.server.stream import EVENTS
from edgert.server.strict import StrictRoute


def openai_routes(llm: LLM) -> APIRouter:
    """/v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/models."""
    router = APIRouter(route_class=StrictRoute, prefix="/v1", tags=["openai"], responses=errors_as(OpenAIError))
    entry = {"id": llm.name, "object": "model", "created": int(time.time()), "owned_by": "edgert"}

    @router.get("/models", summary="The model that is served")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [entry]}

    @router.get("/models/{model:path}", summary="One model")
    async def model_named(model: str) -> dict[str, Any]:
        check_model(llm, model)
        return entry

    @router.post("/chat/completions", summary="Answer a conversation", responses=streamed(EVENTS))
    async def chat_completions(body: chat.ChatRequest, request: Request) -> Response:
        check_model(llm, body.model)
        return await chat.answer(llm, body, request)

    @router.post("/completions", summary="Continue a text", responses=streamed(EVENTS))
    async def text_completions(body: completions.CompletionRequest, request: Request) -> Response:
        check_model(llm, body.model)
        return await completions.answer(llm, body, request)

    @router.post("/responses", summary="Answer, with tools and reasoning as items", responses=streamed(EVENTS))
    async def create_response(body: responses.ResponseRequest, request: Request) -> Response:
        check_model(llm, body.model)
        return await responses.answer(llm, body, request)

    @router.post("/embeddings", summary="Vectors of texts", responses=WHOLE)
    async def embed(body: embeddings.EmbeddingRequest, request: Request) -> Response:
        check_model(llm, body.model)
        return await embeddings.answer(llm, body, request)

    return router
