"""Serving until it is over."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from edgert_models.errors import RequestError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from edgert.server.address import Address
from edgert.server.app import create_app
from edgert.server.arenas import give_back
from edgert.server.connection import RECEIVE_SECONDS, Connection
from edgert.server.guard import MAX_HEADERS
from edgert.server.models.fleet import Fleet
from edgert.server.systemd import keep_telling, notify

_log = logging.getLogger("edgert.server")
_DRAIN_SECONDS = 10
_LAST_SECONDS = 2
"""Then, to tell clients that their requests have been ended."""
_COLLECT_AFTER = 10_000
"""Objects made until the garbage collector looks for cycles, of which requests leave some."""
_GIVE_BACK_SECONDS = 60
"""Between two times that memory goes back to the system."""
_OTHER_FILES = 256
"""Descriptors that the process needs beside those of its connections."""


def run(
    fleet: Fleet, address: Address, *, api_keys: Sequence[str] = (), connections: int = 1024, allow_pull: bool = False
) -> None:
    """Serve until SIGINT or SIGTERM; requests under way then have ten seconds to end."""
    address.check(api_keys)
    _allow_files(connections + _OTHER_FILES)
    listener = address.listen()
    try:
        url = address.url(listener)
        print(f"{_names(fleet)} at {url}" + ("" if address.path else "/v1"), flush=True)
        if address.path is None:
            _log.info("to chat, and to watch the machine, open %s", url)
        own = address.path is None and address.local
        app = create_app(fleet, check_host=own, api_keys=api_keys, allow_pull=allow_pull)
        server = make_server(app, address, connections)
        with _surviving_sigterm(), asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(_serve(server, listener, fleet))
    finally:
        address.leave()


async def _serve(server: uvicorn.Server, listener: socket.socket, fleet: Fleet) -> None:
    """Serve, and tell systemd how it is."""
    telling = asyncio.create_task(keep_telling(lambda: not fleet.hangs))
    ending = asyncio.create_task(_end_requests(server, fleet))
    tidying = asyncio.create_task(_keep_tidy(server))
    try:
        notify("READY=1")  # who connects from now on waits, until requests are taken
        await server.serve(sockets=[listener])
    finally:
        notify("STOPPING=1")
        for task in (telling, ending, tidying):
            task.cancel()


async def _keep_tidy(server: uvicorn.Server) -> None:
    """Once all is there, leave it to the collector no more: it looks through what requests leave, often and briefly.
    The command line has made it wait for long, for the sake of the start; so garbage would pile up. From time to time
    memory that nothing is in goes back to the system.
    """
    while not server.started:
        await asyncio.sleep(0.05)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    while True:
        await asyncio.sleep(_GIVE_BACK_SECONDS)
        await asyncio.to_thread(give_back)


async def _end_requests(server: uvicorn.Server, fleet: Fleet) -> None:
    """End those that are still under way when their time is over: uvicorn would break off their connections."""
    while not server.should_exit:
        await asyncio.sleep(0.1)
    await asyncio.sleep(_DRAIN_SECONDS)
    await run_in_threadpool(fleet.close)


def _names(fleet: Fleet) -> str:
    """What is served, in a few words."""
    names = list(dict.fromkeys([*fleet.loaded(), *fleet.catalogue.entries()]))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def make_server(app: ASGIApp, address: Address, connections: int) -> uvicorn.Server:
    """Uvicorn's server, with limits on what clients may take."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=Connection,
        ws="none",
        h11_max_incomplete_event_size=MAX_HEADERS,
        limit_concurrency=connections,
        timeout_graceful_shutdown=_DRAIN_SECONDS + _LAST_SECONDS,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    return uvicorn.Server(config)


class _Loop(asyncio.SelectorEventLoop):
    """With a deadline for TLS's handshake, which uvicorn leaves at a minute."""

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        """As asyncio's."""
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = RECEIVE_SECONDS
        return await super().create_server(*arguments, **options)


def _allow_files(count: int) -> None:
    """Let the process open so many files, or refuse; the usual limit is 1,024."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count or soft == resource.RLIM_INFINITY:
        return
    if hard < count and hard != resource.RLIM_INFINITY:
        most = hard - _OTHER_FILES
        raise RequestError(
            f"--connections: this system lets a process open {hard} files; give {most} or fewer",
            parameter="connections",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


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
