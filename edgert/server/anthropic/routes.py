"""The routes of Anthropic's protocol."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from edgert.server.anthropic import messages
from edgert.server.documented import WHOLE, AnthropicError, errors_as, streamed
from edgert.server.models.fleet import Fleet
from edgert.server.models.leases import use
from edgert.server.stream import EVENTS
from edgert.server.strict import StrictRoute


def anthropic_routes(fleet: Fleet) -> APIRouter:
    """/v1/messages, /v1/messages/count_tokens."""
    errors = errors_as(AnthropicError)
    router = APIRouter(route_class=StrictRoute, prefix="/v1/messages", tags=["anthropic"], responses=errors)

    @router.post("", summary="Answer a conversation", responses=streamed(EVENTS))
    async def create_message(body: messages.MessagesRequest, request: Request) -> Response:
        llm = await use(fleet, request, body.model)
        return await messages.answer(llm, body, request)

    @router.post("/count_tokens", summary="Count the tokens of a conversation", responses=WHOLE)
    async def count_tokens(body: messages.CountRequest, request: Request) -> Response:
        llm = await use(fleet, request, body.model)
        return await messages.count(llm, body)

    return router
