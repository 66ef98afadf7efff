"""A server whose engine fails: 503, and it is mended."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from pathlib import Path


def test_a_killed_engine_is_mended(tiny_path: Path) -> None:
    from edgert import LLM
    from tests.edgert.server.conftest import serve

    with LLM(tiny_path, backend="cpu", context=128, threads=1) as llm:
        for served in serve(llm):
            body = {"model": llm.name, "prompt": "hello", "max_tokens": 8, "temperature": 0}

            def ask(url: str = f"{served.url}/v1/completions", body: dict[str, object] = body) -> httpx.Response:
                return httpx.post(url, json=body, timeout=60)

            before = ask().json()["choices"]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(llm._engine._worker.scheduler, "plan", lambda: 1 / 0)
                refused = ask()
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "engine_failed"
            deadline = time.monotonic() + 30
            while (health := httpx.get(f"{served.url}/health")).status_code != 200:
                assert health.status_code == 503
                assert health.json()["status"] == "restarting"
                assert time.monotonic() < deadline
            assert health.json()["restarts"] == 1
            assert ask().json()["choices"] == before


def test_a_step_that_hangs_is_503(tiny_path: Path) -> None:
    from edgert import LLM
    from tests.edgert.server.conftest import serve

    with LLM(tiny_path, backend="reference", context=128, step_timeout=0.3) as llm:
        session, may = llm._engine._worker.session, threading.Event()
        step = session.step
        for served in serve(llm):
            body = {"model": llm.name, "prompt": "hello", "max_tokens": 8, "temperature": 0}

            def ask(url: str = f"{served.url}/v1/completions", body: dict[str, object] = body) -> httpx.Response:
                return httpx.post(url, json=body, timeout=60)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(session, "step", lambda *rest, **named: (may.wait(60), step(*rest, **named))[1])
                for refused in (ask(), ask()):  # one that was under way, and one that came later
                    assert refused.status_code == 503
                    assert refused.headers["retry-after"] == "1"
                    assert "a step of the model has not come back for" in refused.json()["error"]["message"]
                health = httpx.get(f"{served.url}/health")
                assert (health.status_code, health.json()["status"]) == (503, "hangs")
                may.set()
                deadline = time.monotonic() + 30
                while httpx.get(f"{served.url}/health").status_code != 200:
                    assert time.monotonic() < deadline
            assert ask().status_code == 200
