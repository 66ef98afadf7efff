"""What is checked before any route sees a request: host, origin, key, size. Plain ASGI, outermost layer."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgert.engine.request import CLIENT
from edgert.server.errors import Problem, problem_response
from edgert.server.page.routes import PAGE_PATHS

MAX_HEADERS = 32 << 10
MAX_BODY = 8 << 20
MAX_BODIES = 64 << 20
"""Of all requests under way, so that clients that send at once cannot take the memory."""
_FRAME = len(": \r\n")
_TOO_LARGE = f"the body is larger than {MAX_BODY} bytes"
_OPEN_PATHS = frozenset({"/health", *PAGE_PATHS})


def is_loopback(host: str) -> bool:
    """Whether an address means this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Refuses foreign Host headers (DNS rebinding) with `check_host`, wrong keys where there are `api_keys`, pages of
    other origins where there are none, headers over 32 KiB, bodies over 8 MiB, and over 64 MiB of all together.
    """

    def __init__(self, app: ASGIApp, *, check_host: bool, api_keys: Collection[str]) -> None:
        self._app = app
        self._check_host = check_host
        self._keys = [key.encode() for key in api_keys]
        self._bodies = 0  # bytes of requests under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is fine; answer the rest in the protocol's error form."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        if sum(len(name) + len(value) + _FRAME for name, value in headers) > MAX_HEADERS:
            # The parser limits only those that do not come at once.
            problem = Problem(400, f"the headers are larger than {MAX_HEADERS} bytes")
        elif self._check_host and (len(hosts) != 1 or not is_loopback(_without_port(hosts[0]))):
            problem = Problem(403, f"host {hosts} is not this machine")
        elif not self._keys and any(_address(origin) not in hosts for origin in origins):
            problem = Problem(403, f"a page of {origins} may not use this server; it has no API key to know it by")
        elif not self._authorized(scope, headers):
            problem = Problem(401, "no API key, or a wrong one", code="invalid_api_key")
        elif _too_long(headers):
            problem = Problem(413, _TOO_LARGE)
        else:
            CLIENT.set(_client(scope, headers))
            body = _Body(self, receive)
            try:
                await self._app(scope, body.receive, send)
            finally:
                self._bodies -= body.received
            return
        await problem_response(scope["path"], problem)(scope, receive, send)

    def take(self, count: int) -> None:
        """So many bytes of a body more; HTTPException where there are too many under way."""
        if self._bodies + count > MAX_BODIES:
            raise HTTPException(503, "other requests' bodies take all the memory there is for them; try again later")
        self._bodies += count

    def _authorized(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> bool:
        # scope["path"] is what the server parsed; what a client can put into other parts of the URL is not read here.
        if not self._keys or scope["path"] in _OPEN_PATHS:
            return True
        given = [value for name, value in headers if name == b"x-api-key"]  # Anthropic's clients
        for name, value in headers:
            if name == b"authorization":
                given.append(value[7:].strip() if value[:7].lower() == b"bearer " else b"")
        if len(given) != 1:
            return False
        return sum(hmac.compare_digest(given[0], key) for key in self._keys) > 0  # `any` would tell which


def _client(scope: Scope, headers: list[tuple[bytes, bytes]]) -> str:
    """Who takes turns with others: an address, and of those with keys each key."""
    keys = [value for name, value in headers if name in (b"x-api-key", b"authorization")]
    address = scope["client"][0] if scope["client"] else ""
    return f"{address} {hashlib.sha256(b' '.join(keys)).hexdigest()}"


class _Body:
    """Counts what is received of a request."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self.received = 0
        self._guard = guard
        self._receive = receive

    async def receive(self) -> Message:
        message = await self._receive()
        count = len(message.get("body", b""))
        if self.received + count > MAX_BODY:
            raise HTTPException(413, _TOO_LARGE)
        self._guard.take(count)
        self.received += count
        return message


def _too_long(headers: list[tuple[bytes, bytes]]) -> bool:
    lengths = [value for name, value in headers if name == b"content-length"]
    return any(not value.isdigit() or len(value) > 18 or int(value) > MAX_BODY for value in lengths)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _address(origin: str) -> str:
    """Host and port as a Host header has them; of what is no origin ("null") something that none has."""
    try:
        return urlsplit(origin).netloc or origin
    except ValueError:
        return origin
