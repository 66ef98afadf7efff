"""Clients that send or read slowly, or are too many: a real server, deadlines cut short."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from edgert.server import connection, guard
from tests.edgert.server.conftest import running

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served

on_reference = pytest.mark.parametrize("server_model", ["reference"], indirect=True)
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RECEIVE_SECONDS", 1.0)
    monkeypatch.setattr(connection, "SEND_SECONDS", 1.0)


def closed(client: socket.socket) -> bool:
    """Whether the server ends the connection, within ten seconds."""
    client.settimeout(10)
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


@on_reference
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/comp",
        HEAD,
        HEAD + b"Content-Length: 100\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1",
    ],
    ids=["nothing", "a line", "headers", "body", "chunk"],
)
def test_a_request_that_does_not_end_is_ended(served: Served, impatient: None, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(sent)
        assert closed(client)
    assert httpx.get(f"{served.url}/health").status_code == 200


@on_reference
def test_a_byte_now_and_then_does_not_help(served: Served, impatient: None) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(HEAD)
        deadline = time.monotonic() + 10
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() < deadline:
                client.sendall(b"X-More: 1\r\n")
                time.sleep(0.05)
        assert time.monotonic() < deadline


@on_reference
def test_the_second_request_of_a_connection_has_a_deadline_too(served: Served, impatient: None) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        for _ in range(2):
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while not received.endswith(b"}"):
                received += client.recv(1 << 16)
            assert received.startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /health HTTP/1.1\r\n")
        assert closed(client)


class Endless:
    """An application that sends until its client is gone, and counts."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        leaving = asyncio.ensure_future(self._left(receive))
        await send({"type": "http.response.start", "status": 200})
        while not leaving.done():
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
            self.sent += 1 << 16
            await asyncio.sleep(0)
        self.ended = True

    async def _left(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


@pytest.fixture
def endless() -> Iterator[tuple[Endless, int]]:
    app = Endless()
    with running(app) as port:
        yield app, port


def test_a_client_that_does_not_read_is_left(endless: tuple[Endless, int], impatient: None) -> None:
    app, port = endless
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline = time.monotonic() + 10
        while not app.ended and time.monotonic() < deadline:
            time.sleep(0.01)
        assert app.ended
        assert app.sent < 64 << 20  # what the system holds, and uvicorn's 64 KiB


def test_a_client_that_reads_slowly_is_not(endless: tuple[Endless, int], impatient: None) -> None:
    app, port = endless
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        begin = time.monotonic()
        while time.monotonic() < begin + 2.5:
            assert client.recv(1 << 20)
            time.sleep(0.02)
        assert not app.ended


def test_more_connections_than_allowed() -> None:
    app = Endless()
    with running(app, connections=2) as port:
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        time.sleep(0.1)
        response = httpx.post(f"http://127.0.0.1:{port}/v1/messages", content=b"x" * 100_000)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["type"] == "overloaded_error"
        for each in held:
            each.close()
        time.sleep(0.1)
        with httpx.stream("GET", f"http://127.0.0.1:{port}") as allowed:
            assert allowed.status_code == 200


@on_reference
def test_bodies_have_a_limit_together(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_BODIES", 100_000)
    body = {"content": "x" * 50_000}
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.sendall(HEAD + b"Content-Length: 90000\r\n\r\n" + b"x" * 60_000)
        deadline = time.monotonic() + 10
        while (refused := httpx.post(f"{served.url}/tokenize", json=body)).status_code != 503:
            assert time.monotonic() < deadline
        assert refused.headers["retry-after"] == "1"
        assert "take all the memory there is for them" in refused.json()["error"]["message"]
    while (taken := httpx.post(f"{served.url}/tokenize", json=body)).status_code != 200:
        assert time.monotonic() < deadline, taken.text


@on_reference
@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\xfe garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: a\r\n" * 5_000 + b"\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%00%ff%0a%0d HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:30])[2:-1],
)
def test_hostile_bytes_are_answered_with_4xx(served: Served, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(sent)
        client.settimeout(10)
        assert client.recv(12)[:10] == b"HTTP/1.1 4"
    assert httpx.get(f"{served.url}/health").status_code == 200


@on_reference
def test_pages_of_other_origins(served: Served, served_with_key: Served) -> None:
    url = f"{served.url}/v1/models"
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{served.port + 1}", "http://["):
        refused = httpx.get(url, headers={"Origin": origin})
        assert refused.status_code == 403
        assert refused.json()["error"]["message"].startswith(f"a page of ['{origin}'] may not use this server")
    assert httpx.get(url, headers={"Origin": served.url}).status_code == 200
    with_key = {"Origin": "http://evil.example", "X-API-Key": "secret"}
    answer = httpx.get(f"{served_with_key.url}/v1/models", headers=with_key)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
