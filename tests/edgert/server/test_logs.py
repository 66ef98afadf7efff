"""What is logged, in both forms: one line for each response, with nothing in it that is not the logs' business."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import httpx
import pytest

from edgert.server.logs import MAX_LINE, set_up_logging

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served


@pytest.fixture
def _root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.getLogger("edgert").setLevel(logging.NOTSET)


def lines(capsys: pytest.CaptureFixture[str], count: int) -> list[str]:
    """What has been logged, once so many lines have."""
    text, deadline = "", time.monotonic() + 10
    while text.count("\n") < count and time.monotonic() < deadline:
        text += capsys.readouterr().err
        time.sleep(0.01)
    return text.splitlines()


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize("server_model", ["reference"], indirect=True)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_for_each_response(
    served_with_key: Served, form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    served = served_with_key
    set_up_logging(form, "info")
    key = {"X-API-Key": "secret"}
    body = {"model": served.llm.name, "prompt": "whisper", "max_tokens": 2}
    httpx.post(f"{served.url}/v1/completions", json=body, headers={**key, "X-Request-Id": "mine-1"}, timeout=60)
    httpx.get(f"{served.url}/v1/models?api_key=hidden", headers={"Authorization": "Bearer wrongkey"})
    strange = httpx.get(f"{served.url}/%0alevel=error%1b[31m" + "x" * 500, headers={**key, "X-Request-Id": "no good"})
    written = lines(capsys, 3)
    assert len(written) == 3
    assert not any(word in line for line in written for word in ("whisper", "secret", "hidden", "wrongkey", "\x1b"))
    if form == "json":
        first, second, third = map(json.loads, written)
        assert first.keys() == {"time", "level", "logger", "message", "method", "path", "status", "ms", "client", "id"}
        assert (first["path"], first["status"], first["id"]) == ("/v1/completions", 200, "mine-1")
        assert (second["path"], second["status"]) == ("/v1/models", 401)
        assert (len(third["path"]), third["status"]) == (200, 404)
        assert third["id"] == strange.headers["x-request-id"] != "no good"
    else:
        assert " info response method=POST path=/v1/completions status=200 ms=" in written[0]
        assert written[0].endswith(" id=mine-1")
        assert "path=/\\nlevel=error\\x1b[31mxxx" in written[2]


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize("form", ["text", "json"])
def test_troubles(form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(form, "warning")
    log = logging.getLogger("edgert.server")
    log.info("not this")
    try:
        raise ValueError("\0" * 10_000)
    except ValueError:
        log.exception("it \n broke" + "\0" * 5_000)
    text = capsys.readouterr().err
    assert "not this" not in text
    assert "it \\n broke" in text
    assert len(text) <= MAX_LINE + 1
    if form == "json":
        assert json.loads(text)["level"] == "error"
