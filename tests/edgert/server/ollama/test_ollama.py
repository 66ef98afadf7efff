"""Ollama's official client against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import ollama
import pytest

from edgert import SamplingParams, __version__
from tests.edgert.scripted import CALL, TOOLS, Say

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Weather?"}]
HELLO = [{"role": "user", "content": "hello"}]
GREEDY = {"temperature": 0.0, "num_predict": 12}
ANSWER = f"<think>\nI look.\n</think>\n\nOne moment.\n{CALL}"


@pytest.fixture
def client(served: Served) -> Iterator[ollama.Client]:
    with ollama.Client(served.url, timeout=60) as made:
        yield made


@pytest.fixture
def speaker(scripted: tuple[Served, Say]) -> Iterator[ollama.Client]:
    with ollama.Client(scripted[0].url, timeout=60) as made:
        yield made


def test_models(client: ollama.Client, served: Served) -> None:
    llm = served.llm
    (model,) = client.list().models
    assert (model.model, model.size) == (llm.name, llm.path.stat().st_size)
    assert model.details is not None
    assert (model.details.format, model.details.family) == ("gguf", "qwen3moe")
    assert model.details.quantization_level == "F32"
    (loaded,) = client.ps().models
    assert (loaded.model, loaded.context_length) == (llm.name, 128)
    assert loaded.size == llm.report.weight_bytes + llm.report.cache_bytes
    shown = client.show(f"{llm.name}:latest")
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "qwen3moe"
    assert shown.modelinfo["general.parameter_count"] == llm.parameters
    assert shown.modelinfo["tokenizer.ggml.tokens"] is None
    assert shown.capabilities == ["completion", "embedding", "tools"]
    assert shown.template == llm.metadata["tokenizer.chat_template"]
    verbose = httpx.post(f"{served.url}/api/show", json={"model": llm.name, "verbose": True}).json()
    assert len(verbose["model_info"]["tokenizer.ggml.tokens"]) == llm.vocabulary
    assert httpx.get(f"{served.url}/api/version").json() == {"version": __version__}


def test_generate(client: ollama.Client, served: Served) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=12)
    raw = client.generate(served.llm.name, "hello wor", raw=True, options=GREEDY)
    assert raw.response == served.llm.generate("hello wor", params).text
    expected = served.llm.chat([{"role": "system", "content": "x"}, *HELLO], params)
    answer = client.generate(served.llm.name, "hello", system="x", options=GREEDY)
    assert (answer.response, answer.done) == (expected.text, True)
    assert answer.done_reason == expected.finish_reason
    assert answer.prompt_eval_count == expected.usage.prompt_tokens
    assert answer.eval_count == expected.usage.completion_tokens
    assert answer.total_duration is not None
    assert answer.eval_duration is not None
    assert answer.total_duration > answer.eval_duration > 0
    chunks = list(client.generate(served.llm.name, "hello", system="x", options=GREEDY, stream=True))
    assert "".join(chunk.response or "" for chunk in chunks) == expected.text
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].eval_count == expected.usage.completion_tokens


def test_options(client: ollama.Client, served: Served) -> None:
    llm = served.llm
    options = {
        "temperature": 1.3,
        "top_k": 30,
        "top_p": 0.9,
        "min_p": 0.01,
        "typical_p": 0.99,
        "repeat_last_n": 16,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "seed": 5,
        "num_predict": 10,
        "num_ctx": 128,
    }
    params = SamplingParams(
        temperature=1.3,
        top_k=30,
        top_p=0.9,
        min_p=0.01,
        typical_p=0.99,
        repeat_last_n=16,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        seed=5,
        max_tokens=10,
    )
    full = llm.chat(HELLO, params).text
    assert client.chat(llm.name, HELLO, options=options).message.content == full
    stop = full[2:4]
    stopped = client.chat(llm.name, HELLO, options={**options, "stop": [stop]})
    assert stopped.message.content == full[: full.index(stop)]
    free = client.chat(llm.name, HELLO, options={"seed": -1, "num_predict": -1})
    assert free.done_reason in ("stop", "length")


def test_logprobs(client: ollama.Client, served: Served) -> None:
    expected = served.llm.chat(HELLO, SamplingParams(temperature=0.0, max_tokens=12, logprobs=2)).logprobs
    assert expected is not None
    answer = client.chat(served.llm.name, HELLO, options=GREEDY, logprobs=True, top_logprobs=2)
    assert answer.logprobs is not None
    assert [entry.logprob for entry in answer.logprobs] == pytest.approx([entry.logprob for entry in expected])
    assert all(len(entry.top_logprobs or ()) == 2 for entry in answer.logprobs)


def test_loading(client: ollama.Client, served: Served) -> None:
    assert client.generate(served.llm.name).done_reason == "load"
    assert client.chat(served.llm.name, keep_alive="10m").done_reason == "load"


def test_tools_and_thinking(speaker: ollama.Client, scripted: tuple[Served, Say]) -> None:
    served, say = scripted
    say(ANSWER)
    answer = speaker.chat(served.llm.name, ASK, tools=TOOLS)
    assert (answer.message.content, answer.message.thinking) == ("One moment.", "I look.")
    (call,) = answer.message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Zürich"})
    say(ANSWER)
    chunks = list(speaker.chat(served.llm.name, ASK, tools=TOOLS, stream=True))
    assert "".join(chunk.message.content or "" for chunk in chunks) == "One moment."
    assert "".join(chunk.message.thinking or "" for chunk in chunks) == "I look."
    assert [chunk.message.tool_calls for chunk in chunks if chunk.message.tool_calls] == [[call]]
    # The message goes back as it is, with what the tool said.
    say("Sunny.")
    result = {"role": "tool", "tool_name": "get_weather", "content": "sunny"}
    last = speaker.chat(served.llm.name, [*ASK, answer.message, result], tools=TOOLS)
    assert last.message.content == "Sunny."
    say("Yes.")
    on = speaker.generate(served.llm.name, "Weather?", think=True)
    say("Yes.")
    off = speaker.generate(served.llm.name, "Weather?", think=False)
    assert on.prompt_eval_count is not None
    assert off.prompt_eval_count == on.prompt_eval_count + len("<think></think>")


def test_embed(client: ollama.Client, served: Served) -> None:
    texts = ["hello world", "hello"]
    answer = client.embed(served.llm.name, texts)
    assert np.allclose(answer.embeddings, served.llm.embed(texts), atol=1e-6)
    assert answer.prompt_eval_count == sum(len(served.llm.tokenize(text)) for text in texts)
    short = np.array(client.embed(served.llm.name, "hello", dimensions=4).embeddings[0])
    whole = served.llm.embed("hello")[0, :4]
    assert np.allclose(short, whole / np.linalg.norm(whole), atol=1e-6)
    long = "x" * 500
    with pytest.raises(ollama.ResponseError, match="do not fit the context of 128"):
        client.embed(served.llm.name, long)
    cut = client.embed(served.llm.name, long, truncate=True)
    assert cut.prompt_eval_count == 128


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("chat", {"options": {"mirostat": 3}}, "options.mirostat"),
        ("chat", {"options": {"num_gpu": 1}}, "options.num_gpu: Extra inputs are not permitted"),
        ("chat", {"options": {"num_ctx": 4096}}, "options.num_ctx is 4096; the context holds 2048"),
        ("chat", {"options": {"num_predict": 0}}, "options.num_predict must be at least 1"),
        ("chat", {"format": "yaml"}, "format"),
        ("chat", {"format": {"not": {}}}, "format: the schema has keywords that are not supported: not"),
        ("chat", {"think": "high"}, "reasoning_effort: this model's chat template has no use for 'high'"),
        ("chat", {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, "messages.0.images"),
        ("generate", {"suffix": "x"}, "has no tokens for filling in"),
        ("generate", {"template": "{{ .Prompt }}"}, "template"),
        ("generate", {"context": [1, 2]}, "context"),
        ("embed", {"dimensions": 1000}, "dimensions: the model's vectors have"),
        ("show", {"name": "x"}, "name: Extra inputs"),
    ],
    ids=str,
)
def test_what_is_refused(scripted: tuple[Served, Say], path: str, change: dict[str, Any], message: str) -> None:
    served, _ = scripted
    given = {"chat": {"messages": ASK}, "generate": {"prompt": "x"}, "embed": {"input": "x"}, "show": {}}[path]
    response = httpx.post(f"{served.url}/api/{path}", json={"model": served.llm.name, **given, **change})
    assert response.status_code == 400
    assert response.json().keys() == {"error"}
    assert message in response.json()["error"]


def test_errors_are_the_clients_own(
    client: ollama.Client, served: Served, scripted: tuple[Served, Say], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ollama.ResponseError, match="the model 'other' does not exist") as caught:
        client.chat("other", HELLO)
    assert caught.value.status_code == 404
    speaking, say = scripted
    say("x")
    monkeypatch.setattr(speaking.llm._engine._worker.session, "script", ())  # the next step fails
    body = {"model": speaking.llm.name, "messages": ASK}
    lines = httpx.post(f"{speaking.url}/api/chat", json=body).text.splitlines()
    assert "the step failed" in json.loads(lines[-1])["error"]


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_bodies_need_no_content_type(served: Served, kind: str | None) -> None:
    """As in Ollama's examples for curl. Pages of other origins could send these too; they are refused for that."""
    body = json.dumps({"model": served.llm.name, "messages": HELLO, "stream": False, "options": GREEDY}).encode()
    headers = {} if kind is None else {"Content-Type": kind}
    answer = httpx.post(f"{served.url}/api/chat", content=body, headers=headers, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["message"]["role"] == "assistant"
    assert httpx.post(f"{served.url}/api/chat", content=b"a=b", headers=headers).status_code == 400
    for origin in ("https://evil.example", "null"):
        refused = httpx.post(f"{served.url}/api/chat", content=body, headers={**headers, "Origin": origin})
        assert refused.status_code == 403
    strict = httpx.post(f"{served.url}/v1/chat/completions", content=body, headers=headers)
    assert strict.status_code == 400
