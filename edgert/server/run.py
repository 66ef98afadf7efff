"""Listening: where, with which limits, and until when."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from edgert_models.errors import BackendError, RequestError

from edgert import LLM
from edgert.server.app import create_app
from edgert.server.guard import is_loopback

_DRAIN_SECONDS = 10
_MAX_HEADER = 32 << 10


def key_of(api_key: str | None, file: Path | None) -> str | None:
    """The key that requests must carry: given, or the text of a file; RequestError where there are both, or none in
    what should have it.
    """
    if file is not None:
        if api_key is not None:
            raise RequestError("--api-key and --api-key-file (or EDGERT_API_KEY) are both given", parameter="api_key")
        try:
            api_key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"--api-key-file {file}: {error}", parameter="api_key_file") from None
        if not api_key:
            raise RequestError(f"--api-key-file {file} is empty", parameter="api_key_file")
    if api_key is not None and not api_key.strip():
        raise RequestError("--api-key is empty", parameter="api_key")
    return api_key


def check_address(host: str, api_key: str | None) -> None:
    """Refuse to be reachable from other machines without a key."""
    if api_key is None and not is_loopback(host):
        raise RequestError(
            f"--host {host} can be reached from other machines: give --api-key, --api-key-file or EDGERT_API_KEY too",
            parameter="host",
        )


def run(llm: LLM, *, host: str, port: int, api_key: str | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests under way then have ten seconds to end."""
    check_address(host, api_key)
    listener = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"{llm.name} at http://{shown}:{listener.getsockname()[1]}/v1", flush=True)
    config = uvicorn.Config(
        create_app(llm, host=host, api_key=api_key),
        log_level="warning",
        access_log=False,
        server_header=False,
        http="h11",
        h11_max_incomplete_event_size=_MAX_HEADER,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    with _surviving_sigterm():
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _surviving_sigterm() -> Iterator[None]:
    """Uvicorn ends on SIGTERM in order, and then raises it again. Here that is to end no more than the serving, so
    that the model is closed and the exit code is 0.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; BackendError says why it cannot be."""
    listener = None
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # who reads the address may connect at once, and waits until requests are taken
    except OSError as error:
        if listener is not None:
            listener.close()
        raise BackendError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
    return listener
