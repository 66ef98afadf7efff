from pathlib import Path

import pytest
from edgert_models.errors import RequestError
from edgert_quant.hub import hub_cache

from edgert import resolve
from edgert.resolve import resolve_model


def cache_model(cache: Path, hub: str, *files: str) -> Path:
    folder = cache / f"models--{hub.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc123")
    for name in files:
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).touch()
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def refused(reference: str | Path | None, match: str) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        resolve_model(reference)
    assert caught.value.parameter == "model"


def test_nothing_and_nobody() -> None:
    refused("", "the model's name is empty; 'demo' is the bundled one")
    refused("~nobody-here/a.gguf", "there is no file '~nobody-here/a.gguf'")


def test_a_file_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "a b.gguf"
    path.touch()
    assert resolve_model(path) == path
    assert resolve_model(str(path)) == path
    assert resolve_model(f"file://{str(path).replace(' ', '%20')}") == path


def test_a_file_wins_over_a_hub_id(cache: Path) -> None:
    Path("org").mkdir()
    Path("org/model").touch()
    cache_model(cache, "org/model", "m-Q4_K_M.gguf")
    assert resolve_model("org/model") == Path("org/model")
    assert resolve_model("hf://org/model").name == "m-Q4_K_M.gguf"


def test_what_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "none.gguf", r"there is no file '.*none\.gguf'")
    refused("folder/none.gguf", r"there is no file 'folder/none\.gguf'")
    refused("file:///none.gguf", r"there is no file 'file:///none\.gguf'")
    refused(tmp_path, "is a folder, not a GGUF file; edgert serve takes one with --models-dir")


def test_a_checkpoint_is_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    refused(tmp_path, "is a checkpoint; convert it first: edgert convert ")


def test_the_demo_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "__file__", str(tmp_path / "resolve.py"))
    refused(None, "no demo model; name a GGUF file")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "model.gguf").touch()
    assert resolve_model(None) == tmp_path / "demo" / "model.gguf"


def test_a_hub_id_is_looked_up_in_the_cache(cache: Path) -> None:
    snapshot = cache_model(cache, "org/name", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "README.md")
    assert resolve_model("org/name") == snapshot / "m-Q4_K_M.gguf"
    assert resolve_model("org/name:q8_0") == snapshot / "m-Q8_0.gguf"
    assert resolve_model("hf://org/name:Q8_0") == snapshot / "m-Q8_0.gguf"
    refused("org/name:Q2_K", r"'org/name' has no file of Q2_K; there are: m-Q4_K_M\.gguf, m-Q8_0\.gguf")


def test_a_single_file_needs_no_name(cache: Path) -> None:
    snapshot = cache_model(cache, "org/name", "only-Q6_K.gguf")
    assert resolve_model("org/name") == snapshot / "only-Q6_K.gguf"


def test_the_first_shard_stands_for_all(cache: Path) -> None:
    shards = [f"sub/m-Q4_K_M-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    snapshot = cache_model(cache, "org/name", *shards)
    assert resolve_model("org/name") == snapshot / shards[0]


def test_several_that_fit_are_told(cache: Path) -> None:
    cache_model(cache, "org/name", "a-Q4_K_M.gguf", "b-Q4_K_M.gguf")
    refused("org/name", "more than one file of Q4_K_M")


def test_what_the_cache_does_not_have_is_not_downloaded(cache: Path) -> None:
    refused("org/name", r"'org/name' is neither a file nor in the Hugging Face cache \(.*\); --offline or")
    cache_model(cache, "org/plain", "config.json", "model.safetensors")
    refused("org/plain", "a checkpoint without GGUF files; convert it first: edgert convert org/plain")
    refused("hf://nothing", "not of the form org/name")


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/h"}, "/h/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(
    environment: dict[str, str], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hub_cache() == Path(wanted)
