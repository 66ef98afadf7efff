"""Prefixes that a model finds on disk are its own: another model, cache type or version finds nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from edgert_models.errors import RequestError, UnsupportedError

import edgert
from edgert import LLM, SamplingParams
from edgert.server.app import create_app
from tests.edgert.tiny_gguf import write_tiny

PROMPT = list(range(3, 70))  # four blocks of 16, and three tokens
OPTIONS = {"backend": "reference", "context": 128, "prefix_disk": 1 << 20}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("edgert.prefix_disk.cache_folder", lambda: tmp_path / "kernels")
    return tmp_path / "prefixes"


def cached(path: Path, **options: object) -> tuple[int, list[int]]:
    with LLM(path, **{**OPTIONS, **options}) as llm:  # type: ignore[arg-type]
        found = llm.generate(PROMPT, SamplingParams(max_tokens=5, temperature=0))
        assert llm.statistics().disk_tokens == found.usage.cached_tokens
    return found.usage.cached_tokens, found.token_ids


def test_after_a_restart(tiny_path: Path, folder: Path) -> None:
    first = cached(tiny_path)
    assert (first[0], cached(tiny_path)) == (0, (64, first[1]))
    assert len(list(folder.glob("models/*"))) == 1
    for path in folder.glob("models/*"):
        path.write_text("rubbish")
    assert cached(tiny_path) == (64, first[1])


def other_weights(path: Path) -> dict[str, object]:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    return {}


@pytest.mark.parametrize(
    "change",
    [other_weights, lambda path: {"kv_type": "f32"}, lambda path: {"backend": "cpu"}],
    ids=["weights", "kv_type", "backend"],
)
def test_what_was_computed_otherwise_is_not_found(tmp_path: Path, change: Callable[[Path], dict[str, object]]) -> None:
    path = write_tiny(tmp_path / "own.gguf")
    assert cached(path, kv_type="f16")[0] == 0
    assert cached(path, **{"kv_type": "f16", **change(path)})[0] == 0


def test_another_version_finds_nothing(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(tiny_path)
    monkeypatch.setattr(edgert, "__version__", "99")
    assert cached(tiny_path)[0] == 0


def test_the_server_tells_of_it(tiny_path: Path) -> None:
    from starlette.testclient import TestClient

    cached(tiny_path)
    with LLM(tiny_path, **OPTIONS) as llm, TestClient(create_app(llm), "http://localhost") as client:  # type: ignore[arg-type]
        answer = client.post("/v1/completions", json={"model": llm.name, "prompt": PROMPT, "max_tokens": 2})
        assert answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 64
        told = client.get("/metrics").text
        assert f'edgert_disk_tokens_total{{model="{llm.name}"}} 64.0' in told
        assert client.get("/live").json()["disk_tokens"] == client.get("/health").json()["disk_tokens"] == 64
        assert client.get("/health").json()["disk_bytes"] > 0


@pytest.mark.parametrize("bytes_", [0, True, "8GiB"])
def test_what_is_no_number_of_bytes_is_refused(tiny_path: Path, bytes_: object) -> None:
    with pytest.raises(RequestError, match="prefix_disk is a number of bytes from 1 on, not "):
        LLM(tiny_path, backend="reference", prefix_disk=bytes_)  # type: ignore[arg-type]


def test_backends_that_do_not_give_their_cache(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("edgert_runtimes.reference.backend.ReferenceSession.read_blocks")
    with pytest.raises(UnsupportedError, match="the backend 'reference' cannot give its cache to a disk; leave out"):
        LLM(tiny_path, **OPTIONS)  # type: ignore[arg-type]


def test_without_a_home_it_is_refused(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("edgert.prefix_disk.cache_folder", homeless)
    with pytest.raises(RequestError, match="prefixes have no place on disk: Could not determine home directory"):
        LLM(tiny_path, **OPTIONS)  # type: ignore[arg-type]
