"""A real server on a free port, over the tiny model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.backends import GPUS

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from edgert import LLM
    from tests.edgert.scripted import Say


@dataclass
class Served:
    llm: LLM
    url: str
    port: int


@contextmanager
def running(app: ASGIApp, connections: int = 1024) -> Iterator[int]:
    """The port at which an application is served, as `edgert serve` does."""
    from edgert.server.address import Address
    from edgert.server.run import make_server

    address = Address(port=0)
    listener = address.listen()
    server = make_server(app, address, connections)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def serve(llm: LLM, **options: Any) -> Iterator[Served]:
    from edgert.server.app import create_app

    with running(create_app(llm, **options)) as port:
        yield Served(llm, f"http://127.0.0.1:{port}", port)


@pytest.fixture(scope="session", params=["reference", *GPUS])
def server_model(tiny_path: Path, request: pytest.FixtureRequest) -> Iterator[LLM]:
    from edgert_models.errors import BackendError

    from edgert import LLM

    try:
        llm = LLM(tiny_path, backend=request.param, context=128)
    except BackendError as error:
        pytest.skip(str(error))
    with llm:
        yield llm


@pytest.fixture(scope="session")
def served(server_model: LLM) -> Iterator[Served]:
    yield from serve(server_model)


@pytest.fixture
def served_with_key(server_model: LLM) -> Iterator[Served]:
    yield from serve(server_model, api_keys=["other", "secret"])


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Served, Say]]:
    """A server over a model that says what it is told to."""
    from tests.edgert.scripted import open_scripted

    llm, say = open_scripted(tmp_path, monkeypatch)
    with llm:
        for made in serve(llm):
            yield made, say
