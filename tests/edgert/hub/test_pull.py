"""Fetching models from a hub that fails in every way it can."""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from edgert_models.errors import EdgertError, HubError, RequestError

from edgert.hub.pull import pull
from edgert.resolve import resolve_model
from tests.support.hub import COMMIT, Fault, Hub

MODEL = bytes(range(256)) * 20
FILES = {"m-Q4_K_M.gguf": MODEL, "m-Q8_0.gguf": MODEL * 2, "mmproj-F16.gguf": b"x", "README.md": b"read"}
SHARDS = {f"q/m-Q4_K_M-{n:05}-of-00003.gguf": bytes([n]) * 3000 for n in (1, 2, 3)}
CHECKPOINT = {
    "config.json": b"{}",
    "model-00001-of-00001.safetensors": MODEL,
    "consolidated.safetensors": MODEL,
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"no",
    "onnx/model.onnx": b"no",
}


@pytest.fixture(autouse=True)
def repositories(hub: Hub) -> None:
    hub.repositories |= {"lab/m": dict(FILES), "lab/split": dict(SHARDS), "lab/checkpoint": dict(CHECKPOINT)}


def names(cache: Path) -> set[str]:
    """The files of models that can be seen."""
    return {path.name for path in cache.glob("models--*/snapshots/*/**/*") if path.is_file()}


def fails(reference: str, kind: type[EdgertError], *parts: str, **options: str) -> str:
    with pytest.raises(kind) as caught:
        pull(reference, **options)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    return message


def test_a_model_comes_whole_and_checked(hub: Hub, cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    found = pull("lab/m", progress=lambda *now: told.append(now))
    assert found.path == cache / "models--lab--m/snapshots" / COMMIT / "m-Q4_K_M.gguf"
    assert found.path.read_bytes() == MODEL
    assert found.path.is_symlink()
    assert (cache / "models--lab--m/refs/main").read_text() == COMMIT
    assert found.downloaded == found.size == len(MODEL)
    assert told[0] == ("download", 0, len(MODEL))
    assert ("download", len(MODEL), len(MODEL)) in told
    assert told[-1] == ("verify", len(MODEL), len(MODEL))
    asked = len(hub.seen)
    again = pull("hf://lab/m:q4_k_m")
    assert (again.path, again.downloaded) == (found.path, 0)
    assert len(hub.seen) == asked + 1  # what there is, and no bytes
    assert names(cache) == {"m-Q4_K_M.gguf"}


def test_huggingface_hub_finds_what_was_pulled(hub: Hub, cache: Path) -> None:
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    path = pull("lab/m:Q8_0").path
    assert try_to_load_from_cache("lab/m", "m-Q8_0.gguf", cache_dir=cache) == str(path)
    found = scan_cache_dir(cache)
    assert not found.warnings
    assert [repo.repo_id for repo in found.repos] == ["lab/m"]


def test_a_reference_opens_what_it_means(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = resolve_model("lab/m")
    assert fetched.read_bytes() == MODEL
    asked = len(hub.seen)
    assert resolve_model("lab/m:Q4_K_M") == fetched
    assert len(hub.seen) == asked  # nobody was asked
    assert resolve_model("lab/m:m-Q8_0.gguf").read_bytes() == MODEL * 2
    with pytest.raises(RequestError, match=r"'lab/split' is neither a file nor .* edgert pull lab/split fetches it"):
        resolve_model("lab/split", download=False)
    with pytest.raises(RequestError, match="there is no file 'lab/m:Q2_K', and 'lab/m' has no file of Q2_K; there are"):
        resolve_model("lab/m:Q2_K")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model("lab/m") == fetched
    with pytest.raises(RequestError, match="; --offline or HF_HUB_OFFLINE forbids to fetch it"):
        resolve_model("lab/split")
    fails("lab/split", HubError, "'lab/split' cannot be fetched: it is not in the cache, and --offline or HF_HUB_OFF")
    assert pull("lab/m").path == fetched


def test_all_shards_or_none(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgert.hub.remote.ATTEMPTS", 1)
    hub.faults = deque([Fault(), Fault(), Fault(cut=0)])
    fails("lab/split", HubError, "cannot be reached", "0 of 3000 bytes of q/m-Q4_K_M-00003-of-00003.gguf are here")
    assert names(cache) == set()
    found = pull("lab/split")
    assert found.path.name == "m-Q4_K_M-00001-of-00003.gguf"
    assert found.downloaded == 3000  # two were here
    assert {Path(name).name for name in SHARDS} == names(cache)
    found.path.with_name("m-Q4_K_M-00002-of-00003.gguf").unlink()
    with pytest.raises(RequestError, match=r"lacks 1 of 3 shards of q/m-.*; edgert pull lab/split"):
        resolve_model("lab/split")
    assert pull("lab/split").downloaded == 0
    assert resolve_model("lab/split") == found.path


def test_a_checkpoint_is_what_convert_reads(hub: Hub, cache: Path) -> None:
    found = pull("lab/checkpoint")
    assert found.path == cache / "models--lab--checkpoint/snapshots" / COMMIT
    assert names(cache) == {"config.json", "model-00001-of-00001.safetensors", "tokenizer.json"}
    with pytest.raises(RequestError, match=r"convert it first: edgert convert lab/checkpoint model\.gguf"):
        resolve_model("lab/checkpoint")
    fails("lab/checkpoint:Q8_0", RequestError, "has no GGUF files, so none of Q8_0; edgert pull lab/checkpoint")


def test_it_goes_on_where_it_stopped(hub: Hub) -> None:
    hub.faults = deque(
        [Fault(cut=1000), Fault(cut=500), Fault(status=503), Fault(status=429, headers={"Retry-After": "0"})]
    )
    assert pull("lab/m").path.read_bytes() == MODEL
    assert hub.bytes_asked() == [None, "bytes=1000-", *["bytes=1500-"] * 3]


def test_it_goes_on_after_an_interruption(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgert.hub.remote.ATTEMPTS", 2)
    hub.faults = deque([Fault(cut=1000), Fault(cut=0), Fault(cut=0)])
    fails("lab/m", HubError, f"{hub.url} cannot be reached", "1000 of 5120 bytes", "edgert pull goes on from there")
    found = pull("lab/m")
    assert found.path.read_bytes() == MODEL
    assert found.downloaded == len(MODEL) - 1000
    assert hub.bytes_asked()[-1] == "bytes=1000-"


def test_a_server_that_ignores_ranges_begins_anew(hub: Hub) -> None:
    hub.faults = deque([Fault(cut=1000), Fault(whole=True)])
    assert pull("lab/m").path.read_bytes() == MODEL


def test_leftovers_that_are_too_long_are_dropped(hub: Hub, cache: Path) -> None:
    partial = cache / "models--lab--m/blobs" / f"{hashlib.sha256(MODEL).hexdigest()}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(MODEL + b"more")
    assert pull("lab/m").path.read_bytes() == MODEL
    partial.write_bytes(b"x" * 700)
    shutil.rmtree(cache / "models--lab--m/snapshots")
    partial.with_name(partial.stem).unlink()
    hub.faults = deque([Fault(status=416)])
    assert pull("lab/m").path.read_bytes() == MODEL


def test_what_came_damaged_is_deleted(hub: Hub, cache: Path) -> None:
    hub.listed["m-Q4_K_M.gguf"] = {"lfs": {"sha256": "ab" * 32, "size": len(MODEL), "pointerSize": 1}}
    fails("lab/m", HubError, "m-Q4_K_M.gguf came damaged and was deleted: its SHA-256 is ", f"not {'ab' * 32}; pull it")
    hub.listed = {"config.json": {"blobId": "ab" * 20}}
    fails("lab/checkpoint", HubError, "config.json came damaged and was deleted: its git's hash is ")
    assert names(cache) == set()
    assert not list(cache.glob("models--*/blobs/*"))


def test_more_bytes_than_told(hub: Hub) -> None:
    hub.listed["m-Q4_K_M.gguf"] = {"lfs": {"sha256": "ab" * 32, "size": 100, "pointerSize": 1}}
    fails("lab/m", HubError, "is no hub, or a damaged one: it answered with more than the 100 bytes of m-Q4_K_M.gguf")


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        (Fault(401), "wants a token, in HF_TOKEN, or takes not the one that it was given"),
        (Fault(401, code="RepoNotFound"), "there is no model 'lab/m' on http://127.0.0.1:"),
        (Fault(403), "refuses access (403)"),
        (Fault(404, code="RepoNotFound"), "there is no model 'lab/m' on"),
        (Fault(403, code="GatedRepo"), "'lab/m' is gated: it wants a token, in HF_TOKEN; accept its terms at http://"),
        (Fault(429), "asks for fewer requests (429)"),
        (Fault(500), "has failed (500)"),
        (Fault(418), "answered with 418"),
        (Fault(200), "is no hub, or a damaged one"),
    ],
)
def test_refusals(hub: Hub, cache: Path, fault: Fault, part: str) -> None:
    hub.listing_faults = deque([fault])
    fails("lab/m", EdgertError, part)
    assert not cache.exists()


def test_what_the_hub_does_not_have(hub: Hub) -> None:
    fails("lab/none", RequestError, "there is no model 'lab/none' on http://127.0.0.1:", "HF_TOKEN gives no access")
    fails("lab/m", RequestError, "'lab/m' has no revision 'v9'", revision="v9")
    listed = "'lab/m' has no file of Q2_K; there are: m-Q4_K_M.gguf, m-Q8_0.gguf"
    assert fails("lab/m:Q2_K", RequestError) == listed
    hub.repositories["lab/m"] = {"README.md": b""}
    fails("lab/m", RequestError, "neither GGUF files nor a checkpoint in safetensors")
    fails("nothing", RequestError, "'nothing' is not of the form")


def test_revisions(hub: Hub, cache: Path) -> None:
    other = "d" * 40
    hub.commits |= {"v1": other, other: other}
    assert pull("lab/m", revision="v1").commit == other
    assert (cache / "models--lab--m/refs/v1").read_text() == other
    pull("lab/m:Q8_0")
    # What one revision has and main has not is found all the same.
    assert resolve_model("lab/m:Q4_K_M").parent.name == other
    assert resolve_model("lab/m:Q8_0").parent.name == COMMIT
    assert pull("lab/m", revision=other).downloaded == 0
    assert not (cache / "models--lab--m/refs" / other).exists()


def test_the_token_goes_to_the_hub_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    fails("lab/m", HubError, "'lab/m' is gated: it wants a token, in HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message = fails("lab/m", HubError, "'lab/m' is gated: this token (HF_TOKEN) has no access")
    assert "hf_wrong" not in message
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.seen.clear()
    pull("lab/m")
    assert {seen.authorization for seen in hub.seen if "/resolve/" in seen.path} == {"Bearer hf_secret"}
    assert {(seen.host, seen.authorization) for seen in hub.seen if "/cdn/" in seen.path} == {("localhost", None)}


def test_room_is_checked_before(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5119))
    fails("lab/m", HubError, "'lab/m' takes 5120 bytes (5.0 KiB) more, and", "has room for 5119 bytes")
    assert hub.bytes_asked() == []


def test_a_file_that_is_too_large_for_http(hub: Hub) -> None:
    hub.listed["m-Q4_K_M.gguf"] = {"lfs": {"sha256": "ab" * 32, "size": 60 * 10**9, "pointerSize": 1}}
    fails("lab/m", HubError, "m-Q4_K_M.gguf has 60000000000 bytes", "`hf download` brings it to the same cache")


def test_two_at_once_fetch_it_once(hub: Hub) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: pull("lab/m"), range(2)))
    assert found[0].path == found[1].path
    assert sorted(one.downloaded for one in found) == [0, len(MODEL)]
    assert hub.bytes_asked() == [None]


def test_a_cache_that_cannot_be_written(hub: Hub, cache: Path) -> None:
    cache.write_bytes(b"")
    fails("lab/m", HubError, "'lab/m' cannot be kept in")


def test_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://user:word@127.0.0.1:9")
    message = fails("lab/m", HubError, "http://127.0.0.1:9 cannot be reached (ConnectError)")
    assert "word" not in message


@pytest.mark.parametrize(
    "entry",
    [
        {"rfilename": "../m-Q4_K_M.gguf"},
        {"rfilename": "/etc/m-Q4_K_M.gguf"},
        {"rfilename": "a\\b-Q4_K_M.gguf"},
        {"lfs": {"sha256": "../../x", "size": 3, "pointerSize": 1}},
        {"lfs": {"sha256": "ab" * 32, "size": -3, "pointerSize": 1}},
        {"lfs": {"sha256": "ab" * 32, "size": "3", "pointerSize": 1}},
        {"lfs": [], "blobId": None},
    ],
)
def test_a_hostile_listing(hub: Hub, cache: Path, entry: dict[str, object]) -> None:
    hub.listed["m-Q4_K_M.gguf"] = entry
    fails("lab/m", HubError, "is no hub, or a damaged one: it answered with a ")
    assert not cache.exists()
