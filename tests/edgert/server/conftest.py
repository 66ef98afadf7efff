"""A real server on a free port, over the tiny model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.backends import GPUS

if TYPE_CHECKING:
    from edgert import LLM
    from tests.edgert.scripted import Say


@dataclass
class Served:
    llm: LLM
    url: str
    port: int


def serve(llm: LLM, **options: str) -> Iterator[Served]:
    import uvicorn

    from edgert.server.app import create_app
    from edgert.server.run import listen

    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(create_app(llm, **options), log_level="error", http="h11")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = listener.getsockname()[1]
    try:
        yield Served(llm, f"http://127.0.0.1:{port}", port)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


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
    yield from serve(server_model, api_key="secret")


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Served, Say]]:
    """A server over a model that says what it is told to."""
    from tests.edgert.scripted import open_scripted

    llm, say = open_scripted(tmp_path, monkeypatch)
    with llm:
        for made in serve(llm):
            yield made, say
