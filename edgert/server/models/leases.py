"""Who has which model for how long: a request has it from when it names it until its answer has been sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from edgert import LLM
from edgert.server.models.fleet import UNCHANGED, Fleet, Keep
from edgert.server.stream import while_there

_KEY = "edgert.leases"


class Leases:
    """Gives back what a request has taken when it is done, however it ends. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        leases: list[Callable[[], None]] = []
        scope[_KEY] = leases
        try:
            await self._app(scope, receive, send)
        finally:
            for give_back in leases:
                give_back()


async def use(fleet: Fleet, request: Request, name: str | None, keep: Keep = UNCHANGED) -> LLM:
    """The model that a request names (None: the first there is), with its adapter, for as long as it is answered. See
    `Fleet.take` and `Fleet.give_back`; ClientGoneError where the client leaves while it waits.
    """
    model = await while_there(request, fleet.take(name))
    request.scope[_KEY].append(partial(fleet.give_back, model, keep))
    assert model.llm is not None
    adapter = None if name is None else model.entry.adapter_of(name)
    return model.llm if adapter is None else model.llm.adapted(adapter)
