"""Clients that fetch and delete models through the server."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from edgert.server.app import create_app
from edgert.server.models.opening import open_fleet
from tests.edgert.server.conftest import running
from tests.support.hub import Fault, Hub

OPTIONS: dict[str, Any] = {"backend": "reference", "context": 64, "queue_limit": 8, "chat_template": None}


@pytest.fixture
def url(hub: Hub, tiny_path: Path) -> Iterator[str]:
    hub.repositories = {"lab/tiny": {"tiny-F32.gguf": tiny_path.read_bytes(), "tiny-F16.gguf": b"GGUF"}}
    fleet = open_fleet(["demo"], None, OPTIONS, cache=True)
    with running(create_app(fleet, allow_pull=True)) as port:
        yield f"http://127.0.0.1:{port}"
    fleet.close()


def test_pull_ask_and_delete(url: str, cache: Path) -> None:
    with ollama.Client(url, timeout=60) as client:
        said = [part.status for part in client.pull("hf.co/lab/tiny:F32", stream=True)]
        stages = ["pulling manifest", "pulling lab/tiny:F32", "verifying sha256 digest", "success"]
        assert list(dict.fromkeys(said)) == stages
        assert client.pull("lab/tiny:F32").status == "success"
        assert "lab/tiny:F32" in [model.model for model in client.list().models]
        answer = client.generate("lab/tiny:F32", "hello", raw=True, options={"num_predict": 2})
        assert answer.model == "lab/tiny:F32"
        assert client.delete("lab/tiny:F32").status == "success"
        assert "lab/tiny:F32" not in [model.model for model in client.ps().models]
        assert not (cache / "models--lab--tiny").exists()
        with pytest.raises(ollama.ResponseError, match="'lab/tiny:F32' does not exist; this server has"):
            client.generate("lab/tiny:F32", "hello")
        (demo,) = client.list().models
        with pytest.raises(ollama.ResponseError, match="is not of the Hugging Face cache; delete its file yourself"):
            client.delete(str(demo.model))


def test_what_goes_wrong_on_the_way(url: str, hub: Hub) -> None:
    with ollama.Client(url, timeout=60) as client:
        with pytest.raises(ollama.ResponseError, match="'lab/tiny' has no file of Q4_K_M; there are"):
            client.pull("lab/tiny")
        hub.listing_faults = deque([Fault(500)])
        with pytest.raises(ollama.ResponseError, match="has failed") as caught:
            client.pull("lab/tiny:F32")
        assert caught.value.status_code == 502
        hub.listing_faults = deque([Fault(500)])
        with pytest.raises(ollama.ResponseError, match="has failed"):
            list(client.pull("lab/tiny:F32", stream=True))
        with pytest.raises(ollama.ResponseError, match="'gemma' is not of the form org/name") as caught:
            client.pull("gemma")
        assert caught.value.status_code == 400


def test_a_client_that_leaves_ends_its_pull(url: str, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgert.hub.remote.PAUSE", 0.2)
    hub.faults = deque([Fault(cut=100)] * 100_000)  # it would go on for long
    with httpx.stream("POST", f"{url}/api/pull", json={"model": "lab/tiny:F32"}, timeout=60) as response:
        lines = response.iter_lines()
        assert "pulling lab/tiny" in [next(lines) for _ in range(3)][-1]
    asked = -1
    deadline = time.monotonic() + 30
    while asked != (asked := len(hub.seen)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert time.monotonic() < deadline
    assert not list(cache.glob("models--*/snapshots/*/*"))


def test_nobody_may_unless_it_is_allowed(hub: Hub, tiny_path: Path) -> None:
    fleet = open_fleet([str(tiny_path)], None, OPTIONS)
    with running(create_app(fleet)) as port, ollama.Client(f"http://127.0.0.1:{port}") as client:
        for ask, what in ((client.pull, "fetch"), (client.delete, "delete")):
            with pytest.raises(ollama.ResponseError, match=f"lets nobody {what} models; edgert serve --allow-pull"):
                ask("lab/tiny")
    fleet.close()
    assert not hub.seen
