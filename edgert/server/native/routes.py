"""The routes of the server's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from edgert import LLM
from edgert.server.counting import Served
from edgert.server.documented import WHOLE, OpenAIError, errors_as, streamed
from edgert.server.models.fleet import Fleet
from edgert.server.models.leases import use
from edgert.server.native import completion, infill, rerank
from edgert.server.native.live import glance
from edgert.server.native.metrics import exposition
from edgert.server.native.requests import DetokenizeRequest, TemplateRequest, TokenizeRequest
from edgert.server.stream import EVENTS
from edgert.server.strict import StrictRoute

_PROMETHEUS = "text/plain; version=0.0.4"


def native_routes(fleet: Fleet, served: Served) -> APIRouter:
    """/health, /metrics, /slots, /live, /completion, /infill, /rerank, /tokenize, /detokenize, /apply-template."""
    router = APIRouter(route_class=StrictRoute, tags=["native"], responses=errors_as(OpenAIError))

    async def seen(name: str | None) -> LLM | None:
        """A model if it is loaded: to look is not to use."""
        return fleet.loaded().get((await fleet.find(name)).name)

    @router.get("/health", summary="Whether the server answers, and what it is doing")
    async def health(response: Response) -> dict[str, Any]:
        llms = fleet.loaded()
        well = all(llm.available for llm in llms.values())
        if not well:
            response.status_code = 503
        state = "ok" if well else "hangs" if fleet.hangs else "restarting"
        found: dict[str, Any] = {"status": state, "models": list(llms)}
        for name, llm in list(llms.items())[:1]:
            found |= {"model": name, **asdict(llm.statistics())}
        return found

    @router.get("/metrics", summary="Counts and times for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(exposition(fleet, served), media_type=_PROMETHEUS)

    @router.get("/slots", summary="What is being answered: an entry for each request that can run at a time")
    async def slots(model: str | None = None) -> list[dict[str, Any]]:
        llm = await seen(model)
        if llm is None:
            return []
        running = [asdict(request) for request in llm.running()]
        idle: list[dict[str, Any]] = [{} for _ in range(llm.limits.sequences - len(running))]
        return [
            {"id": index, "n_ctx": llm.context, "is_processing": bool(slot), **slot}
            for index, slot in enumerate([*running, *idle])
        ]

    @router.get("/live", summary="A glance at requests, cache, latencies and experts")
    async def live(model: str | None = None) -> dict[str, Any]:
        llm = await seen(model)
        return {} if llm is None else glance(llm)

    @router.post("/infill", summary="The text between two others", responses=streamed(EVENTS))
    async def fill_in(body: infill.InfillRequest, request: Request) -> Response:
        llm = await use(fleet, request, body.model)
        return await infill.answer(llm, body, request)

    several = streamed(EVENTS, several=True)

    @router.post("/completion", summary="Continue prompts, as llama.cpp's server does", responses=several)
    async def complete(body: completion.CompletionRequest, request: Request) -> Response:
        llm = await use(fleet, request, body.model)
        return await completion.answer(llm, body, request)

    @router.post("/v1/rerank", summary="Which documents answer a query best", responses=WHOLE)
    @router.post("/rerank", summary="Which documents answer a query best", responses=WHOLE)
    async def rank(body: rerank.RerankRequest, request: Request) -> Response:
        llm = await use(fleet, request, body.model)
        return await rerank.answer(llm, body, request)

    @router.post("/tokenize", summary="The tokens of a text")
    async def tokenize(body: TokenizeRequest, request: Request) -> dict[str, Any]:
        llm = await use(fleet, request, body.model)
        return {"tokens": await run_in_threadpool(body.tokens, llm)}

    @router.post("/detokenize", summary="The text of tokens")
    async def detokenize(body: DetokenizeRequest, request: Request) -> dict[str, Any]:
        llm = await use(fleet, request, body.model)
        return {"content": llm.detokenize(body.tokens)}

    @router.post("/apply-template", summary="The prompt that a conversation makes")
    async def apply_template(body: TemplateRequest, request: Request) -> dict[str, Any]:
        llm = await use(fleet, request, body.model)
        return {"prompt": await run_in_threadpool(body.prompt, llm)}

    return router
