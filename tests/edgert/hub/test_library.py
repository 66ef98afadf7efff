"""What the cache has, and deleting it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from edgert_models.errors import RequestError

from edgert.hub.library import Removal, list_models
from edgert.hub.pull import pull
from tests.edgert.cli.support import run
from tests.support.golden import FOLDER
from tests.support.hub import COMMIT, Hub


@pytest.fixture
def filled(hub: Hub, tiny_path: Path) -> Hub:
    """A model in two types, one in shards, one that does not run, a checkpoint, all in the cache."""
    tiny = tiny_path.read_bytes()
    checkpoint = FOLDER / "qwen3moe"
    hub.repositories = {
        "lab/tiny": {"tiny-F32.gguf": tiny, "tiny-Q4_K_M.gguf": tiny + bytes(32), "README.md": b""},
        "lab/broken": {"broken-Q8_0.gguf": b"GGUF" + bytes(8)},
        "lab/checkpoint": {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.is_file()},
    }
    for name in ("lab/tiny:F32", "lab/tiny", "lab/broken", "lab/checkpoint"):
        pull(name)
    return hub


def test_list(filled: Hub, cache: Path, tiny_path: Path) -> None:
    found = {one.name: one for one in list_models()}
    assert list(found) == ["lab/broken:Q8_0", "lab/checkpoint", "lab/tiny:F32", "lab/tiny:Q4_K_M"]
    tiny = found["lab/tiny:F32"]
    assert (tiny.quantization, tiny.architecture, tiny.problem) == ("F32", "qwen3moe", "")
    assert tiny.size == tiny_path.stat().st_size
    assert "broken-Q8_0.gguf" in found["lab/broken:Q8_0"].problem
    assert found["lab/checkpoint"].architecture == "Qwen3MoeForCausalLM"
    assert found["lab/checkpoint"].problem == "to be converted: edgert convert lab/checkpoint model.gguf"
    (cache / "models--lab--checkpoint/snapshots" / COMMIT / "config.json").unlink()
    assert "lab/checkpoint" not in {one.name for one in list_models()}


def test_names_that_are_not_plain(hub: Hub, tiny_path: Path) -> None:
    tiny = tiny_path.read_bytes()
    names = ("a/m-Q8_0.gguf", "b/m-Q8_0.gguf", "m-UD-Q4_K_XL.gguf", "m.gguf")
    hub.repositories["lab/odd"] = dict.fromkeys(names, tiny)
    for name in names:
        pull(f"lab/odd:{name}")
    listed = ["lab/odd:a/m-Q8_0.gguf", "lab/odd:b/m-Q8_0.gguf", "lab/odd:UD-Q4_K_XL", "lab/odd:m.gguf"]
    assert [one.name for one in list_models()] == listed


def test_remove_one_of_two(filled: Hub, cache: Path, tiny_path: Path) -> None:
    removal = Removal("lab/tiny:F32")
    assert (removal.names, removal.freed) == (["tiny-F32.gguf"], tiny_path.stat().st_size)
    removal.execute()
    assert [one.name for one in list_models() if "tiny" in one.name] == ["lab/tiny:Q4_K_M"]
    assert len(list((cache / "models--lab--tiny/blobs").iterdir())) == 1
    Removal("lab/tiny:Q4_K_M").execute()
    assert not (cache / "models--lab--tiny").exists()
    assert {one.name for one in list_models()} == {"lab/broken:Q8_0", "lab/checkpoint"}


def test_bytes_that_another_name_has_stay(filled: Hub, cache: Path, tiny_path: Path) -> None:
    filled.repositories["lab/tiny"]["copy-Q8_0.gguf"] = tiny_path.read_bytes()
    pull("lab/tiny:Q8_0")
    removal = Removal("lab/tiny:F32")
    assert removal.freed == 0
    removal.execute()
    assert pull("lab/tiny:Q8_0").path.read_bytes() == tiny_path.read_bytes()


def test_remove_all_with_what_was_interrupted(filled: Hub, cache: Path) -> None:
    (cache / "models--lab--tiny/blobs/xyz.incomplete").write_bytes(bytes(1000))
    removal = Removal("hf://lab/tiny")
    assert removal.names == ["tiny-F32.gguf", "tiny-Q4_K_M.gguf"]
    whole = sum(path.stat().st_size for path in (cache / "models--lab--tiny/blobs").iterdir())
    assert removal.freed == whole
    removal.execute()
    assert not (cache / "models--lab--tiny").exists()


def test_nothing_to_remove(filled: Hub, cache: Path) -> None:
    with pytest.raises(RequestError, match=r"'lab/none' is not in the Hugging Face cache \("):
        Removal("lab/none")
    with pytest.raises(RequestError, match="'lab/tiny' has no file of Q2_K; there are: tiny-F32"):
        Removal("lab/tiny:Q2_K")
    shutil.rmtree(cache)
    with pytest.raises(RequestError, match="is not in the Hugging Face cache"):
        Removal("lab/tiny")


def test_commands(hub: Hub, tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["lab/tiny"] = {"tiny-F32.gguf": tiny_path.read_bytes()}
    assert run("list").stdout == "no models; edgert pull ORG/NAME fetches one\n"
    pulled = run("pull", "lab/tiny")
    assert pulled.exit_code == 0
    assert "lab/tiny: 1 file, " in pulled.stdout
    assert json.loads(run("pull", "lab/tiny", "--json").stdout)["downloaded"] == 0
    assert json.loads(run("list", "--json").stdout)[0]["name"] == "lab/tiny:F32"
    assert "lab/tiny:F32" in run("list").stdout
    answer = run("generate", "lab/tiny", "hello", "-n", "1", "--backend", "reference", "--context", "64")
    assert answer.exit_code == 0
    refused = run("rm", "lab/tiny")
    assert isinstance(refused.exception, RequestError)
    assert str(refused.exception) == "rm asks before it deletes 'lab/tiny', and nobody is here; add --yes"
    assert json.loads(run("rm", "lab/tiny", "--yes", "--json").stdout)["files"] == ["tiny-F32.gguf"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    offline = run("chat", "lab/tiny", "--offline", stdin="hello")
    assert "HF_HUB_OFFLINE forbids to fetch it" in str(offline.exception)
