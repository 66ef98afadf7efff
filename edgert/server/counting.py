"""Counting responses by route and status, and a line in the log for each."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgert.server.logs import FIELDS

Served = Counter[tuple[str, str, int]]
"""Responses by method, route and status."""

_METHODS = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")
_ID = b"x-request-id"
_WATCHED = ("/health", "/live", "/metrics")
"""Routes that are asked again and again by who watches; that it went well is told to debuggers only."""
_log = logging.getLogger("edgert.access")


class Counting:
    """Counts and logs every response, outermost. What no route takes is counted together: paths are the clients' to
    choose. A request has an id, that of its X-Request-Id or a new one, which the response carries too.
    """

    def __init__(self, app: ASGIApp, *, served: Served) -> None:
        self._app = app
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status, identifier = time.monotonic(), 499, _identifier(scope)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._served[method, route, status] += 1
                message = {**message, "headers": [*message.get("headers", ()), (_ID, identifier)]}
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            level = logging.DEBUG if scope["path"] in _WATCHED and status < 400 else logging.INFO
            if _log.isEnabledFor(level):
                fields = {
                    "method": scope["method"][:20],
                    "path": scope["path"][:200],
                    "status": status,
                    "ms": round((time.monotonic() - begin) * 1000),
                    "client": scope["client"][0] if scope["client"] else "",
                    "id": identifier.decode(),
                }
                _log.log(level, "response", extra={FIELDS: fields})


def _identifier(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == _ID and re.fullmatch(rb"[\w.-]{1,64}", value):
            given: bytes = value
            return given
    return uuid.uuid4().hex.encode()
