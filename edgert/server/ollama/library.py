"""POST /api/pull and DELETE /api/delete: models of the hub, where the server was told to let clients fetch them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from edgert_models.errors import CancelledError, EdgertError, RequestError
from edgert_quant.hub import hub_cache
from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from edgert.hub.files import HubReference
from edgert.hub.library import Removal
from edgert.hub.pull import pull
from edgert.server.errors import Json, problem_of
from edgert.server.models.fleet import Fleet
from edgert.server.ollama.requests import DeleteRequest, PullRequest
from edgert.server.stream import LINES, OLLAMA, while_there

_PAUSE = 0.1
"""Seconds between two lines about the same stage."""


class Library:
    """Changes the hub's cache, if it is allowed to; one pull at a time."""

    def __init__(self, fleet: Fleet, *, allowed: bool) -> None:
        self._fleet = fleet
        self._allowed = allowed
        self._turn = asyncio.Semaphore(1)

    async def pull(self, body: PullRequest, request: Request) -> Response:
        """Fetch a model; it can be asked for then."""
        self._check("fetch")
        pulling = _Pulling(HubReference.parse(body.model), self._turn)
        if body.stream is not False:
            return StreamingResponse(pulling.lines(), media_type=LINES)
        try:
            await while_there(request, pulling.run())
        finally:
            pulling.gone = True
        return JSONResponse({"status": "success"})

    async def delete(self, body: DeleteRequest) -> Response:
        """Delete a model, once the requests that use it have ended."""
        self._check("delete")
        entry = await self._fleet.find(body.model)
        if not entry.path.is_relative_to(hub_cache()):
            reason = f"{entry.name!r} is not of the Hugging Face cache; delete its file yourself"
            raise RequestError(reason, parameter="model")
        await self._fleet.unload(entry.name)
        removal = await run_in_threadpool(Removal, entry.name)
        await run_in_threadpool(removal.execute)
        return Response()

    def _check(self, what: str) -> None:
        if not self._allowed:
            raise HTTPException(403, f"this server lets nobody {what} models; edgert serve --allow-pull does")


class _Pulling:
    """One pull on a thread of its own, which ends soon after nobody listens any more."""

    def __init__(self, model: HubReference, turn: asyncio.Semaphore) -> None:
        self.gone = False  # nobody listens
        self._model = str(model)
        self._turn = turn
        self._said: asyncio.Queue[Json | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._last = ("", 0.0)

    async def run(self) -> None:
        """Fetch it."""
        try:
            async with self._turn:
                await run_in_threadpool(pull, self._model, progress=self._report)
        finally:
            self._said.put_nowait(None)

    async def lines(self) -> AsyncIterator[bytes]:
        """Fetch it, and tell of it in Ollama's form."""
        work = asyncio.ensure_future(self.run())
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to hear of it
        try:
            yield OLLAMA.piece({"status": "pulling manifest"})
            while (said := await self._said.get()) is not None:
                yield OLLAMA.piece(said)
            await work
            yield OLLAMA.piece({"status": "success"})
        except EdgertError as error:
            yield OLLAMA.piece(OLLAMA.error(problem_of(error)))
        finally:
            self.gone = True
            work.cancel()

    def _report(self, stage: str, done: int, total: int) -> None:
        """On the pull's thread."""
        if self.gone:
            raise CancelledError("the client went away; what has come so far is kept")
        now = time.monotonic()
        if stage == self._last[0] and now - self._last[1] < _PAUSE and done < total:
            return
        self._last = stage, now
        status = f"pulling {self._model}" if stage == "download" else "verifying sha256 digest"
        said = {"status": status, "digest": self._model, "total": total, "completed": done}
        self._loop.call_soon_threadsafe(self._said.put_nowait, said)
