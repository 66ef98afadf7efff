"""Deadlines and overflow, as clients see them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.edgert.server.conftest import Served

LONG = "hello world " * 60


@pytest.fixture(scope="module")
def small(tiny_path: Path) -> Iterator[Served]:
    from edgert import LLM
    from tests.edgert.server.conftest import serve

    with LLM(tiny_path, backend="cpu", context=64, threads=1) as llm:
        yield from serve(llm)


def ask(small: Served, path: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{small.url}{path}", json={"model": small.llm.name, **fields}, timeout=60)


def test_too_long_is_an_error_unless_asked_otherwise(small: Served) -> None:
    fields = {"prompt": LONG, "max_tokens": 4}
    refused = ask(small, "/v1/completions", **fields)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
    tokens = len(small.llm.tokenize(LONG))
    answered = ask(small, "/v1/completions", **fields, overflow="truncate-middle").json()["usage"]
    assert answered["prompt_tokens"] == 60
    assert answered["prompt_tokens_details"]["dropped_tokens"] == tokens - 60
    streamed = ask(small, "/v1/completions", **fields, overflow="truncate-middle", stream=True)
    assert streamed.headers["x-dropped-tokens"] == str(tokens - 60)
    assert "x-dropped-tokens" not in ask(small, "/v1/completions", prompt="a", max_tokens=2, stream=True).headers
    bad = ask(small, "/v1/completions", **fields, overflow="cut")
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "overflow")


def test_responses_may_be_truncated(small: Served) -> None:
    fields = {"input": LONG, "max_output_tokens": 4}
    assert ask(small, "/v1/responses", **fields).status_code == 400
    answered = ask(small, "/v1/responses", **fields, truncation="auto").json()
    assert answered["truncation"] == "auto"
    assert answered["usage"]["input_tokens_details"]["dropped_tokens"] > 0


def test_a_policy_of_the_server_is_told_in_every_protocol(tiny_path: Path) -> None:
    from edgert import LLM
    from tests.edgert.server.conftest import serve

    messages = [{"role": "user", "content": LONG}]
    with LLM(tiny_path, backend="cpu", context=64, threads=1, overflow="sliding") as llm:
        for served in serve(llm):
            usage = ask(served, "/v1/messages", messages=messages, max_tokens=90).json()["usage"]
            assert usage["dropped_input_tokens"] > 0
            options = {"num_predict": 90}
            found = ask(served, "/api/chat", messages=messages, stream=False, options=options).json()
            assert found["dropped_count"] > 0
            assert ask(served, "/v1/chat/completions", messages=messages, overflow="error").status_code == 400


def test_a_request_that_takes_too_long(small: Served) -> None:
    fields = {"prompt": "hello", "max_tokens": 50_000, "ignore_eos": True, "overflow": "sliding", "timeout": 0.3}
    late = ask(small, "/v1/completions", **fields)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
    assert "longer than 0.3 s" in late.json()["error"]["message"]
    streamed = ask(small, "/v1/completions", **fields, stream=True).text
    assert '"code":"timeout"' in streamed.splitlines()[-2]
    assert "[DONE]" not in streamed
    assert small.llm.statistics().blocks_held == 0


def test_a_full_queue(tiny_path: Path) -> None:
    from edgert import LLM
    from tests.edgert.server.conftest import serve

    gate = threading.Event()
    with LLM(tiny_path, backend="cpu", context=128, threads=1, queue_limit=1) as llm, ThreadPoolExecutor() as pool:
        for served in serve(llm):
            fields = {"prompt": "hello", "max_tokens": 1}
            held = pool.submit(llm.borrow, 0, lambda *_: gate.wait(20))
            first = pool.submit(ask, served, "/v1/completions", **fields)
            deadline = time.monotonic() + 20
            while not llm.statistics().waiting and time.monotonic() < deadline:
                time.sleep(0.001)
            refused = ask(served, "/v1/completions", **fields)
            gate.set()
            assert refused.status_code == 429, refused.text
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert first.result().status_code == 200
            assert held.result()
