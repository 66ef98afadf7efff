"""What is refused, and how: raw HTTP against a real server."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from edgert_models.errors import QueueFullError, RequestError

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served

MESSAGES = [{"role": "user", "content": "hello"}]


def chat_body(served: Served, **fields: Any) -> dict[str, Any]:
    return {"model": served.llm.name, "messages": MESSAGES, "max_tokens": 4, "temperature": 0, **fields}


def post(served: Served, body: Any, path: str = "/v1/chat/completions") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(served.url + path, content=content, headers={"content-type": "application/json"}, timeout=60)


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"temperature": True}, "temperature", "valid number"),
        ({"temperature": "0.5"}, "temperature", "valid number"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 2.5}, "max_tokens", "integer"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"n": 129}, "n", "less than or equal to 128"),
        ({"samplers": ["top_k", "best"]}, "samplers", "'best' is none of penalties, dry, top_n_sigma"),
        ({"samplers": ["top_k", "top_k"]}, "samplers", "top_k is there twice"),
        ({"dry_base": 0.5}, "dry_base", "greater than or equal to 1"),
        ({"dry_sequence_breakers": ["x" * 41]}, "dry_sequence_breakers", "at most 40"),
        ({"mirostat": 3}, "mirostat", "less than or equal to 2"),
        ({"mirostat": True}, "mirostat", "integer"),
        ({"min_tokens": 5}, "min_tokens", "min_tokens is 5, above max_tokens, which is 4"),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.1}, "repeat_penalty", "are the same"),
        ({"typ_p": 0.9}, "typ_p", "Extra inputs are not permitted"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"stop": ""}, "stop", "at least 1 character"),
        ({"logit_bias": {"abc": 1}}, "logit_bias", "'abc' is not a token id"),
        ({"logit_bias": {"999999": 1}}, "logit_bias", "999999"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages", "'system', 'developer', 'user'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "text"),
        ({"tools": {}}, "tools", "valid list"),
        ({"response_format": {"type": "xml"}}, "response_format", "'json_schema'"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "Field required"),
        ({"structured_outputs": {"regex": "a", "grammar": "b"}}, "structured_outputs", "not regex and grammar"),
        ({"grammar": "root ::= x", "json_schema": {}}, "grammar", "cannot both say what the answer is"),
        ({"grammar": "root ::= x"}, "grammar", "Rule 'x' not found"),
        ({"frobnicate": 1}, "frobnicate", "Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_bad_fields_are_named(served: Served, change: dict[str, Any], param: str, message: str) -> None:
    response = post(served, chat_body(served, **change))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert message in error["message"]


def test_every_sampling_field_is_honoured(served: Served) -> None:
    """By what it makes of the answer: of the same seed each gives another than all the others leave."""
    plain = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1, "max_tokens": 40}
    plain |= {"logit_bias": {"260": 4.0, "261": 3.0}}
    changes: list[dict[str, Any]] = [
        {"dynatemp_range": 1.0},
        {"top_n_sigma": 0.5},
        {"top_k": 2},
        {"typical_p": 0.3},
        {"top_p": 0.2},
        {"min_p": 0.9},
        {"xtc_probability": 1.0, "xtc_threshold": 0.05},
        {"repeat_penalty": 1.5},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 2.0},
        {"dry_multiplier": 9.0, "dry_allowed_length": 0},
        {"mirostat": 1, "mirostat_tau": 0.5},
        {"mirostat": 2, "mirostat_tau": 0.5},
        {"samplers": []},
        {"seed": 2},
    ]

    def text(change: dict[str, Any]) -> str:
        response = post(served, chat_body(served, **{**plain, **change}))
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["message"]["content"]  # type: ignore[no-any-return]

    unchanged = text({})
    assert text({}) == unchanged
    for change in changes:
        assert text(change) != unchanged, change


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "required"),
        (b"{", "not valid JSON"),
        (b"[]", "valid dictionary"),
        (b'{"temperature": NaN}', "NaN is no JSON number"),
        (b'{"temperature": 1e999, "model": "x", "messages": [{"role": "user", "content": "x"}]}', "finite"),
        (b'{"model": "a", "model": "b"}', "the key 'model' is there twice"),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper than 64"),
        (b"[" * 100_000, "nested deeper than 64"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
        (b"[" * 64 + b"]" * 64, "valid dictionary"),
        (b"[0" + b",0" * (1 << 20) + b"]", "more than 524288 values"),
        (b'{"a":' + b"1" * 10_000 + b"}", "integer string conversion"),
        (b'{"model": "\xff"}', "not valid JSON"),
    ],
    ids=[
        "empty",
        "open",
        "list",
        "nan",
        "infinite",
        "twice",
        "deep",
        "deeper",
        "just",
        "fits",
        "many",
        "long",
        "bytes",
    ],
)
def test_bad_bodies(served: Served, body: bytes, message: str) -> None:
    response = post(served, body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize("server_model", ["reference"], indirect=True)
def test_bodies_of_another_type_are_told_so(served: Served) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    for path in ("/v1/chat/completions", "/v1/messages", "/completion"):
        response = httpx.post(served.url + path, content=b"{}", headers=kind, timeout=60)
        assert response.status_code == 400
        message = response.json()["error"]["message"]
        assert message.startswith("the body is read with 'Content-Type: application/json' only")


def test_brackets_in_texts_are_no_nesting(served: Served) -> None:
    messages = [{"role": "user", "content": "[" * 20 + '"{{\\'}]
    assert post(served, chat_body(served, messages=messages)).status_code == 200


def test_unknown_routes_and_methods(served: Served) -> None:
    for response, status in (
        (httpx.get(f"{served.url}/v2"), 404),
        (httpx.get(f"{served.url}/v1/chat/completions"), 405),
        (post(served, chat_body(served, model="other")), 404),
    ):
        assert response.status_code == status
        assert response.json()["error"]["message"]


def test_health_and_schema(served: Served) -> None:
    health = httpx.get(f"{served.url}/health").json()
    assert health["status"] == "ok"
    assert health["blocks_held"] == 0
    schema = httpx.get(f"{served.url}/openapi.json").json()
    assert "/v1/chat/completions" in schema["paths"]
    assert "ChatRequest" in schema["components"]["schemas"]


def test_stream_ends_with_done(served: Served) -> None:
    response = post(served, chat_body(served, stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0][6:])["choices"][0]["delta"] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_everything(served: Served, stream: bool, choices: int) -> None:
    body = json.dumps(chat_body(served, stream=stream, max_tokens=100, logit_bias={"60": 100}, n=choices)).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        if stream:
            assert connection.recv(20)
        else:
            deadline = time.monotonic() + 10
            while served.llm.statistics().running == 0 and time.monotonic() < deadline:
                time.sleep(0.001)
    deadline = time.monotonic() + 5
    while served.llm.statistics().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert served.llm.statistics().running == 0
    assert served.llm.statistics().blocks_held == 0


def test_choices_that_do_not_fit_the_queue_leave_nothing(tiny_path: Path) -> None:
    from edgert import LLM, SamplingParams
    from edgert.answer import AsyncStream
    from edgert.server.stream import start

    with LLM(tiny_path, backend="reference", context=128, sequences=1, queue_limit=2) as llm:

        async def ask() -> None:
            params = SamplingParams(max_tokens=100, ignore_eos=True)
            held: list[AsyncStream] = []

            async def fill() -> None:
                for _ in range(2):
                    held.extend(await start(llm, "hello", params, 3))

            with pytest.raises(QueueFullError, match="2 requests are waiting already"):
                await fill()
            for stream in held:
                await stream.aclose()
            with pytest.raises(
                RequestError, match="n: 4 answers at once are more than the 3 that may run and wait here"
            ):
                await start(llm, "hello", params, 4)

        asyncio.run(ask())
        deadline = time.monotonic() + 10
        while (left := llm.statistics()).running + left.waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (left.running, left.waiting) == (0, 0)
        assert left.generated_tokens < 300


def test_foreign_host_is_refused(served: Served) -> None:
    response = httpx.get(f"{served.url}/v1/models", headers={"Host": "evil.example"})
    assert response.status_code == 403
    for host in ("localhost", f"localhost:{served.port}", "127.0.0.1", "[::1]:80"):
        assert httpx.get(f"{served.url}/v1/models", headers={"Host": host}).status_code == 200


def test_large_bodies_are_refused(served: Served) -> None:
    def endless() -> Any:
        for _ in range(9):
            yield b" " * (1 << 20)

    assert httpx.post(f"{served.url}/v1/completions", content=b" " * (9 << 20)).status_code == 413
    response = httpx.post(
        f"{served.url}/v1/completions", content=endless(), headers={"content-type": "application/json"}
    )
    assert response.status_code == 413


def test_key(served_with_key: Served) -> None:
    url = f"{served_with_key.url}/v1/models"
    assert httpx.get(f"{served_with_key.url}/health").status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
        response = httpx.get(url, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
    assert httpx.get(url, headers={"Authorization": "Bearer secret"}).status_code == 200
    assert httpx.get(url, headers={"X-API-Key": "secret"}).status_code == 200
    assert httpx.get(url, headers={"X-API-Key": "other"}).status_code == 200
    both = {"X-API-Key": "secret", "Authorization": "Bearer wrong"}
    assert httpx.get(url, headers=both).status_code == 401


@pytest.mark.parametrize("server_model", ["reference"], indirect=True)
def test_a_key_is_asked_for_on_every_route(served_with_key: Served) -> None:
    """Whatever the path or the Host header is made to look like (CVE-2026-48710)."""
    url = served_with_key.url
    paths = httpx.get(f"{url}/openapi.json", headers={"X-API-Key": "secret"}).json()["paths"]
    del paths["/health"]
    asked = [(path.replace("{name}", "x"), method) for path, methods in paths.items() for method in methods]
    assert len(asked) > 20
    with httpx.Client(base_url=url, timeout=60) as client:
        for path, method in asked:
            assert client.request(method, path).status_code == 401, (path, method)
    for target in ("/health/../v1/models", "/health%2f..%2fv1/models", "//v1/models", "/v1/models?/health", "/live"):
        for host in ("localhost", "localhost/health", "localhost/health?x="):
            with socket.create_connection(("127.0.0.1", served_with_key.port)) as connection:
                connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert connection.recv(99)[:12] in (b"HTTP/1.1 401", b"HTTP/1.1 403"), (target, host)


@pytest.mark.parametrize("server_model", ["reference"], indirect=True)
def test_no_address_of_a_request_is_fetched(served: Served) -> None:
    """What names one is refused, and nobody has knocked there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        image = {"type": "image", "source": {"type": "url", "url": address}}
        for path, content in (
            ("/v1/chat/completions", [{"type": "image_url", "image_url": {"url": address}}]),
            ("/v1/messages", [image]),
            ("/v1/messages", [{"type": "document", "source": image["source"]}]),
        ):
            body = {"model": served.llm.name, "max_tokens": 1, "messages": [{"role": "user", "content": content}]}
            assert post(served, body, path).status_code == 400
        parts = [{"type": "input_image", "image_url": address}, {"type": "input_file", "file_url": address}]
        body = {"model": served.llm.name, "input": [{"role": "user", "content": parts}]}
        assert post(served, body, "/v1/responses").status_code == 400
        body = {"model": served.llm.name, "messages": [{"role": "user", "content": "x", "images": [address]}]}
        assert post(served, body, "/api/chat").status_code == 400
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": address}}}
        assert post(served, chat_body(served, response_format=schema)).status_code == 400
        for model in (address, "/etc/passwd", "../model.gguf", "file:///etc/passwd"):
            assert post(served, chat_body(served, model=model)).status_code == 404
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/models", {"error": {"type": "authentication_error"}}),
        ("/v1/messages", {"type": "error", "error": {"type": "authentication_error"}}),
        ("/api/tags", {"error": "no API key, or a wrong one"}),
    ],
)
def test_refusals_have_the_form_of_the_protocol(served_with_key: Served, path: str, error: Any) -> None:
    found = httpx.get(served_with_key.url + path).json()
    if isinstance(error["error"], dict):
        found["error"] = {"type": found["error"]["type"]}
    assert found == error
