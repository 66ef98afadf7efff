"""Several models over HTTP, and the names they have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from edgert_models.errors import RequestError

from edgert.server.app import create_app
from edgert.server.models.catalogue import Catalogue, named
from edgert.server.models.fleet import Fleet
from edgert.server.models.opening import open_fleet
from tests.edgert.server.conftest import running
from tests.edgert.tiny_gguf import write_tiny

HELLO = [{"role": "user", "content": "hello"}]
OPTIONS: dict[str, Any] = {"backend": "reference", "context": 64, "queue_limit": 8, "chat_template": None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models that differ, and a file that is none."""
    models = tmp_path / "models"
    (models / "sub").mkdir(parents=True)
    write_tiny(models / "one.gguf")
    write_tiny(models / "sub/two.gguf", seed=1)
    (models / "broken.gguf").write_bytes(b"GGUF")
    return models


@pytest.fixture
def fleet(folder: Path) -> Iterator[Fleet]:
    fleet = open_fleet([], folder, OPTIONS)
    yield fleet
    fleet.close()


@pytest.fixture
def client(fleet: Fleet) -> Iterator[httpx.Client]:
    with running(create_app(fleet)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as made:
        yield made


def ask(client: httpx.Client, model: str, **more: Any) -> httpx.Response:
    return client.post("/v1/completions", json={"model": model, "prompt": "hello", "max_tokens": 4, **more})


def loaded(client: httpx.Client) -> list[str]:
    return [model["name"] for model in client.get("/api/ps").json()["models"]]


def test_models_are_loaded_when_they_are_asked_for(client: httpx.Client, fleet: Fleet, folder: Path) -> None:
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["one", "sub/two"]
    assert client.get("/v1/models/sub/two").json()["id"] == "sub/two"
    assert loaded(client) == []
    assert client.get("/slots").json() == []
    texts = {name: ask(client, name, temperature=0).json() for name in ("one", "sub/two", "one")}
    assert {name: text["model"] for name, text in texts.items()} == {"one": "one", "sub/two": "sub/two"}
    assert texts["one"]["choices"][0]["text"] != texts["sub/two"]["choices"][0]["text"]
    assert loaded(client) == ["one", "sub/two"]
    assert client.get("/health").json()["models"] == ["one", "sub/two"]
    assert len(client.get("/slots", params={"model": "sub/two"}).json()) == 8
    assert client.post("/tokenize", json={"content": "hello", "model": "sub/two"}).status_code == 200
    metrics = client.get("/metrics").text
    assert 'edgert_model_loads_total{model="one"} 1.0' in metrics
    assert 'edgert_requests_total{model="sub/two"} 1.0' in metrics
    (folder / "three.gguf").write_bytes((folder / "one.gguf").read_bytes())
    assert ask(client, "three").json()["model"] == "three"


def test_what_cannot_be_had(client: httpx.Client, folder: Path) -> None:
    unknown = ask(client, "four")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "model_not_found"
    assert unknown.json()["error"]["message"] == "the model 'four' does not exist; this server has 'one', 'sub/two'"
    assert client.post("/v1/messages", json={"model": "four", "messages": HELLO, "max_tokens": 1}).status_code == 404
    one = folder / "one.gguf"
    client.get("/v1/models")
    one.write_bytes(one.read_bytes()[:-64])
    os.utime(one, ns=(1, 1))
    assert [model["name"] for model in client.get("/api/tags").json()["models"]] == ["sub/two"]
    assert ask(client, "sub/two").status_code == 200


def test_a_model_that_fails_to_load_is_that_requests_error(client: httpx.Client, fleet: Fleet) -> None:
    fleet._open = open_fleet([], fleet.catalogue.folder, {**OPTIONS, "kv_type": "q3"})._open
    failed = ask(client, "one")
    assert failed.status_code == 400
    assert "kv_type must be one of" in failed.json()["error"]["message"]
    assert loaded(client) == []
    fleet._open = open_fleet([], fleet.catalogue.folder, OPTIONS)._open
    assert ask(client, "one").status_code == 200


def test_keep_alive(client: httpx.Client) -> None:
    def chat(name: str, **more: Any) -> dict[str, Any]:
        body = {"model": name, "stream": False, **more}
        found: dict[str, Any] = client.post("/api/generate", json=body).json()
        return found

    assert chat("one", keep_alive="10m")["done_reason"] == "load"
    while "expires_at" not in (model := client.get("/api/ps").json()["models"][0]):
        pass  # the answer is sent before the model is given back
    assert model["expires_at"].endswith("Z")
    assert chat("one", keep_alive=-1)["done_reason"] == "load"
    assert "expires_at" not in client.get("/api/ps").json()["models"][0]
    assert chat("one", keep_alive=0) | {"created_at": ""} == {
        "model": "one",
        "created_at": "",
        "response": "",
        "done": True,
        "done_reason": "unload",
    }
    options = {"num_predict": 2, "temperature": 0}
    assert chat("sub/two", prompt="hello", raw=True, options=options, keep_alive=0)["done_reason"] == "length"
    gone = client.post("/api/chat", json={"model": "one", "keep_alive": "0s"}).json()
    assert gone["message"] == {"role": "assistant", "content": ""}
    while loaded(client):
        pass
    bad = client.post("/api/chat", json={"model": "one", "keep_alive": "soon"})
    assert (bad.status_code, "keep_alive" in bad.json()["error"]) == (400, True)
    assert client.post("/api/show", json={"model": "one"}).json()["capabilities"] == [
        "completion",
        "embedding",
        "tools",
    ]
    assert loaded(client) == []


def test_room_for_one(folder: Path) -> None:
    size = (folder / "one.gguf").stat().st_size
    fleet = open_fleet([], folder, OPTIONS, memory=size * 3 // 2)
    with running(create_app(fleet)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for name in ("one", "sub/two", "one"):
            assert ask(client, name).status_code == 200
            assert loaded(client) == [name]
    fleet.close()
    assert fleet.unloads == 2
    tight = open_fleet([], folder, OPTIONS, memory=1000)
    with running(create_app(tight)) as port:
        refused = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json={"model": "one", "prompt": "hello"})
    assert refused.status_code == 500
    assert "bytes are left for models (--memory)" in refused.json()["error"]["message"]


def test_names(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = str(folder / "one.gguf"), str(folder / "sub/two.gguf")
    own = "Tiny"
    for path, seed in ((one, 0), (two, 1)):
        write_tiny(Path(path), metadata={"general.name": own}, seed=seed)
    assert [entry.name for entry in named([one])] == [own]
    assert [entry.name for entry in named([one, two])] == ["one", "two"]  # both call themselves the same
    assert [entry.name for entry in named([f"small={one}", two])] == ["small", own]
    assert named([None])[0].name == named(["demo"])[0].name
    with pytest.raises(RequestError, match="are both called 'x'; give each another NAME=MODEL"):
        named([f"x={one}", f"x={two}"])
    with pytest.raises(RequestError, match="there is no file '/nowhere"):
        named(["x=/nowhere.gguf"])
    snapshot = tmp_path / "hub/models--lab--m/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "m-Q4_K_M.gguf").write_bytes(Path(one).read_bytes())
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (entry,) = named(["hf://lab/m:Q4_K_M"])
    assert (entry.name, entry.aliases) == ("lab/m:Q4_K_M", {own})
    assert list(Catalogue(cache=True).entries()) == ["lab/m:Q4_K_M"]


def test_what_makes_no_fleet(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(RequestError, match=r"--models-dir .*/none: there is no such folder"):
        open_fleet([], tmp_path / "none", OPTIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"--models-dir .*/empty has no model that runs"):
        open_fleet([], tmp_path / "empty", OPTIONS)
    with pytest.raises(RequestError, match="--chat-template is for one model; several are served here"):
        open_fleet([], folder, {**OPTIONS, "chat_template": Path("x")})


def test_command(folder: Path) -> None:
    command = [sys.executable, "-m", "edgert", "serve", f"a={folder}/one.gguf", f"b={folder}/sub/two.gguf"]
    options = ["--backend", "reference", "--context", "64", "--port", "0", "--idle-timeout", "10m"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            names, url = server.stdout.readline().strip().split(" at ")
            assert names == "a, b"
            base = url.removesuffix("/v1")
            assert [model["name"] for model in httpx.get(f"{base}/api/ps").json()["models"]] == ["a"]
            body = {"model": "b", "prompt": "hello", "max_tokens": 2}
            assert httpx.post(f"{url}/completions", json=body, timeout=60).json()["model"] == "b"
        finally:
            server.kill()
