"""The routes of Ollama's protocol."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from edgert import __version__
from edgert.server.documented import WHOLE, OllamaError, errors_as, streamed
from edgert.server.models.fleet import Fleet
from edgert.server.models.leases import use
from edgert.server.ollama import answers, models
from edgert.server.ollama.library import Library
from edgert.server.ollama.requests import DeleteRequest, PullRequest, ShowRequest
from edgert.server.stream import LINES
from edgert.server.strict import UntypedRoute


def ollama_routes(fleet: Fleet, *, allow_pull: bool) -> APIRouter:
    """/api/generate, /api/chat, /api/embed, /api/tags, /api/ps, /api/show, /api/pull, /api/delete, /api/version."""
    library = Library(fleet, allowed=allow_pull)
    router = APIRouter(route_class=UntypedRoute, prefix="/api", tags=["ollama"], responses=errors_as(OllamaError))

    @router.post("/generate", summary="Answer a prompt", responses=streamed(LINES))
    async def generate(body: answers.GenerateRequest, request: Request) -> Response:
        if not body.prompt and body.dismisses:
            return await dismissed(body.model, {"response": ""})
        llm = await use(fleet, request, body.model, body.keep())
        return await answers.generate(llm, body, request)

    @router.post("/chat", summary="Answer a conversation", responses=streamed(LINES))
    async def chat(body: answers.OllamaChatRequest, request: Request) -> Response:
        if not body.messages and body.dismisses:
            return await dismissed(body.model, {"message": {"role": "assistant", "content": ""}})
        llm = await use(fleet, request, body.model, body.keep())
        return await answers.chat(llm, body, request)

    async def dismissed(name: str, said: dict[str, Any]) -> Response:
        entry = await fleet.find(name)
        fleet.dismiss(entry.name)
        return answers.unloaded(entry.name, said)

    @router.post("/embed", summary="Vectors of texts", responses=WHOLE)
    async def embed(body: answers.EmbedRequest, request: Request) -> Response:
        llm = await use(fleet, request, body.model, body.keep())
        return await answers.embed(llm, body, request)

    @router.get("/tags", summary="The models that can be asked for")
    async def tags() -> dict[str, Any]:
        return {
            "models": [models.tag(entry, name) for entry in (await fleet.entries()).values() for name in entry.names]
        }

    @router.get("/ps", summary="The models that are loaded")
    async def ps() -> dict[str, Any]:
        return {"models": [models.running(model) for model in fleet.states() if model.llm is not None]}

    @router.post("/show", summary="What a model's file says of itself")
    async def show(body: ShowRequest) -> dict[str, Any]:
        entry = await fleet.find(body.model)
        return await run_in_threadpool(models.show, entry, verbose=body.verbose is True)

    @router.post("/pull", summary="Fetch a model from the hub, where that is allowed", responses=streamed(LINES))
    async def pull(body: PullRequest, request: Request) -> Response:
        return await library.pull(body, request)

    @router.delete("/delete", summary="Delete a model of the hub's cache, where that is allowed")
    async def delete(body: DeleteRequest) -> Response:
        return await library.delete(body)

    @router.get("/version", summary="The version of edgert")
    async def version() -> dict[str, Any]:
        return {"version": __version__}

    return router
