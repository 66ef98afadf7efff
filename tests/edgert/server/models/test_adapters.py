"""Adapters that requests name after the model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_quant.adapters import Pair

from edgert.cli.options import adapter_source, named_adapters
from edgert.server.app import create_app
from edgert.server.models.opening import open_fleet
from tests.edgert.cli.support import run
from tests.edgert.server.conftest import running
from tests.support.adapters import write_gguf


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the tiny model: turns the first layer's queries and values about."""
    draw = np.random.default_rng(1)

    def pair(out: int) -> Pair:
        a, b = draw.standard_normal((2, 64)), draw.standard_normal((out, 2))
        return Pair(a.astype(np.float32), b.astype(np.float32))

    pairs = {"blk.0.attn_q.weight": pair(64), "blk.0.attn_v.weight": pair(32), "blk.1.attn_output.weight": pair(64)}
    path = tmp_path_factory.mktemp("adapter") / "adapter.gguf"
    return write_gguf(path, pairs, **{"general.architecture": "qwen3moe"})


@pytest.fixture(scope="module")
def client(tiny_path: Path, adapter: Path) -> Iterator[httpx.Client]:
    adapters = named_adapters([f"strong={adapter}", f"none={adapter}:0"])
    options: dict[str, Any] = {"backend": "reference", "context": 64, "queue_limit": 8, "chat_template": None}
    fleet = open_fleet([f"base={tiny_path}"], None, {**options, "adapters": adapters})
    with running(create_app(fleet)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as made:
        yield made
    fleet.close()


def ask(client: httpx.Client, model: str) -> Any:
    body = {"model": model, "prompt": "hello", "max_tokens": 8, "temperature": 0}
    return client.post("/v1/completions", json=body).json()


def test_requests_name_an_adapter(client: httpx.Client) -> None:
    names = ["base", "base:strong", "base:none"]
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == names
    assert [model["name"] for model in client.get("/api/tags").json()["models"]] == names
    assert client.get("/v1/models/base:strong").json()["id"] == "base:strong"
    answers = {name: ask(client, name) for name in names}
    assert {name: answer["model"] for name, answer in answers.items()} == dict(zip(names, names, strict=True))
    texts = {name: answer["choices"][0]["text"] for name, answer in answers.items()}
    assert texts["base"] == texts["base:none"] != texts["base:strong"]
    body = {
        "model": "base:strong:latest",
        "prompt": "hello",
        "raw": True,
        "stream": False,
        "options": {"num_predict": 2},
    }
    assert client.post("/api/generate", json=body).json()["model"] == "base:strong"
    assert [model["name"] for model in client.get("/api/ps").json()["models"]] == ["base"]


def test_an_adapter_that_is_not_there(client: httpx.Client) -> None:
    error = ask(client, "base:weak")["error"]
    assert error["code"] == "model_not_found"
    served = "this server has 'base', 'base:strong', 'base:none'"
    assert error["message"] == f"the model 'base:weak' does not exist; {served}"


def test_options(tmp_path: Path) -> None:
    assert adapter_source("a/b") == ("a/b", 1.0)
    assert adapter_source("a/b:0.5") == ("a/b", 0.5)
    assert adapter_source("a:b") == ("a:b", 1.0)
    (tmp_path / "x:2").touch()
    assert adapter_source(f"{tmp_path}/x:2") == (f"{tmp_path}/x:2", 1.0)
    with pytest.raises(RequestError, match="--adapter x: it is to be written like NAME=PATH or NAME=PATH:SCALE"):
        named_adapters(["x"])
    with pytest.raises(RequestError, match="--adapter a=y: a is there twice"):
        named_adapters(["a=x", "a=y"])


def test_commands(tiny_path: Path, adapter: Path) -> None:
    def generate(*more: str) -> str:
        options = ("--backend", "reference", "--context", "64", "--temperature", "0", "-n", "8")
        answer = run("generate", str(tiny_path), "hello", *options, *more)
        assert answer.exit_code == 0
        return answer.stdout

    assert generate() == generate("--adapter", f"{adapter}:0") != generate("--adapter", str(adapter))
    several = [sys.executable, "-m", "edgert", "serve", f"a={tiny_path}", f"b={tiny_path}", "--adapter", f"x={adapter}"]
    refused = subprocess.run(several, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (64, "edgert: --adapter is for one model; several are served here\n")
