"""What is checked before any route sees a request: host, key, size. Plain ASGI, outermost layer."""

from __future__ import annotations

import hmac
import ipaddress

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgert.server.errors import Problem, problem_response

MAX_BODY = 8 << 20
_TOO_LARGE = f"the body is larger than {MAX_BODY} bytes"
_OPEN_PATHS = ("/health",)


def is_loopback(host: str) -> bool:
    """Whether an address means this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Refuses foreign Host headers (DNS rebinding) while listening on loopback, wrong keys, and bodies over 8 MiB."""

    def __init__(self, app: ASGIApp, *, host: str, api_key: str | None) -> None:
        self._app = app
        self._check_host = is_loopback(host)
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is fine; answer the rest in the protocol's error form."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if self._check_host and (len(hosts) != 1 or not is_loopback(_without_port(hosts[0]))):
            problem = Problem(403, f"host {hosts} is not this machine")
        elif not self._authorized(scope, headers):
            problem = Problem(401, "no API key, or a wrong one", code="invalid_api_key")
        elif _too_long(headers):
            problem = Problem(413, _TOO_LARGE)
        else:
            await self._app(scope, _limited(receive), send)
            return
        await problem_response(scope["path"], problem)(scope, receive, send)

    def _authorized(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> bool:
        # scope["path"] is what the server parsed; what a client can put into other parts of the URL is not read here.
        if self._key is None or scope["path"] in _OPEN_PATHS:
            return True
        given = [value for name, value in headers if name == b"x-api-key"]  # Anthropic's clients
        for name, value in headers:
            if name == b"authorization":
                given.append(value[7:].strip() if value[:7].lower() == b"bearer " else b"")
        return len(given) == 1 and hmac.compare_digest(given[0], self._key)


def _limited(receive: Receive) -> Receive:
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return counted


def _too_long(headers: list[tuple[bytes, bytes]]) -> bool:
    lengths = [value for name, value in headers if name == b"content-length"]
    return any(not value.isdigit() or len(value) > 18 or int(value) > MAX_BODY for value in lengths)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
