"""The short form of `benchmarks.soak`: the same trials, with fewer clients for a shorter time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from benchmarks import soak
from tests.edgert.tiny_gguf import write_tiny

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[soak.Server]:
    path = write_tiny(tmp_path_factory.mktemp("soak") / "tiny.gguf", context=2048)
    options = ("--backend", "cpu", "--threads", "1", "--context", "512", "--queue", "8", "--connections", "40")
    with soak.serving(str(path), *options) as serving:
        yield serving


def test_a_crowd(server: soak.Server) -> None:
    """More connections than there may be, and more requests than may wait."""
    found = asyncio.run(soak.crowd(server, connections=60, requests=240))
    assert found["failures"] == {}
    assert found["statuses"].keys() <= {"200", "429", "503"}
    assert found["statuses"]["200"] > 0


def test_clients_that_leave(server: soak.Server) -> None:
    found = asyncio.run(soak.leavers(server, 24, at_once=12))
    assert found["failures"] == {}
    assert len(found["settled_seconds"]) == 7


def test_readers_that_stall(server: soak.Server) -> None:
    found = asyncio.run(soak.readers(server, 20, seconds=0.3))
    assert found["tokens_per_second"]["beside"] > 0


def test_endurance(server: soak.Server) -> None:
    found = asyncio.run(soak.endurance(server, 6.0, clients=6))
    assert found["failures"] == {}
    assert {"200", "left"} < found["counts"].keys()
    assert found["memory_bytes"]["most"] < 300 << 20
