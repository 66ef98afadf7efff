"""The routes of the server's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from edgert import LLM
from edgert.server.counting import Served
from edgert.server.documented import OpenAIError, errors_as
from edgert.server.native.live import glance
from edgert.server.native.metrics import exposition
from edgert.server.native.requests import DetokenizeRequest, TemplateRequest, TokenizeRequest
from edgert.server.strict import StrictRoute

_PROMETHEUS = "text/plain; version=0.0.4"


def native_routes(llm: LLM, served: Served) -> APIRouter:
    """/health, /metrics, /slots, /live, /tokenize, /detokenize, /apply-template."""
    router = APIRouter(route_class=StrictRoute, tags=["native"], responses=errors_as(OpenAIError))

    @router.get("/health", summary="Whether the server answers, and what it is doing")
    async def health(response: Response) -> dict[str, Any]:
        if not llm.available:
            response.status_code = 503
        status = "ok" if llm.available else "restarting"
        return {"status": status, "model": llm.name, **asdict(llm.statistics())}

    @router.get("/metrics", summary="Counts and times for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(exposition(llm, served), media_type=_PROMETHEUS)

    @router.get("/slots", summary="What is being answered: an entry for each request that can run at a time")
    async def slots() -> list[dict[str, Any]]:
        running = [asdict(request) for request in llm.running()]
        idle: list[dict[str, Any]] = [{} for _ in range(llm.limits.sequences - len(running))]
        return [
            {"id": index, "n_ctx": llm.context, "is_processing": bool(slot), **slot}
            for index, slot in enumerate([*running, *idle])
        ]

    @router.get("/live", summary="A glance at requests, cache, latencies and experts")
    async def live() -> dict[str, Any]:
        return glance(llm)

    @router.post("/tokenize", summary="The tokens of a text")
    async def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        return {"tokens": body.tokens(llm)}

    @router.post("/detokenize", summary="The text of tokens")
    async def detokenize(body: DetokenizeRequest) -> dict[str, Any]:
        return {"content": llm.detokenize(body.tokens)}

    @router.post("/apply-template", summary="The prompt that a conversation makes")
    async def apply_template(body: TemplateRequest) -> dict[str, Any]:
        return {"prompt": await run_in_threadpool(body.prompt, llm)}

    return router
