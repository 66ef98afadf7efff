"""Filling in, in the three protocols that have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import ollama
import openai
import pytest

from tests.edgert.scripted import open_scripted
from tests.edgert.server.conftest import serve
from tests.edgert.text.test_infill import QWEN

if TYPE_CHECKING:
    from tests.edgert.scripted import Say
    from tests.edgert.server.conftest import Served

GAP = {"input_prefix": "def f(", "input_suffix": "):\n"}


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Say]]:
    with pytest.MonkeyPatch.context() as patch:
        llm, say = open_scripted(tmp_path_factory.mktemp("coder"), patch, special=QWEN)
    with llm:
        for served in serve(llm):
            yield served, say


def post(served: Served, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/infill", json={**GAP, **body}, timeout=60)


def test_infill(coder: tuple[Served, Say]) -> None:
    served, say = coder
    say("x: int")
    found = post(served, input_extra=[{"filename": "a.py", "text": "a"}], prompt="x").json()
    expected = served.llm.infill_prompt("def f(", "):\n", files=[("a.py", "a")])
    assert (found["content"], found["stop"], found["stop_type"]) == ("x: int", True, "eos")
    assert found["tokens_evaluated"] == len(expected) + 1
    assert found["tokens_predicted"] == len(served.llm.tokenize("x: int", add_special=False)) + 1
    assert found["timings"]["predicted_n"] == found["tokens_predicted"]
    say("x: int")
    assert post(served, n_predict=2).json()["stop_type"] == "limit"
    say("x: int")
    events = [json.loads(line[6:]) for line in post(served, stream=True).text.split("\n\n") if line]
    assert "".join(event["content"] for event in events) == "x: int"
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]


VIM: dict[str, Any] = {
    "id_slot": 0,
    "input_extra": [{"text": "a", "time": [1, 2], "filename": "a.py"}],
    "prompt": "",
    "n_predict": 128,
    "stop": [],
    "n_indent": 4,
    "top_k": 40,
    "top_p": 0.90,
    "samplers": ["top_k", "top_p", "infill"],
    "stream": False,
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 100_000,
    "response_fields": ["content", "timings/prompt_n", "timings/predicted_per_token_ms", "truncated", "nothing/here"],
}
"""What llama.vim asks."""


def test_what_llama_vim_asks(coder: tuple[Served, Say]) -> None:
    served, say = coder
    say("x):\n    return 1\n\ndef g(")
    found = post(served, **VIM).json()
    assert found.pop("content") == "x):\n    return 1"  # up to the line that is not indented
    assert set(found) == {"timings/prompt_n", "timings/predicted_per_token_ms", "truncated"}
    say("x):\n    return 1\n\ndef g(")
    late = post(served, **{**VIM, "n_indent": 0, "t_max_predict_ms": 0}).json()
    assert late["content"] == "x):\n    return 1\n\ndef g("  # 0: no limit of time
    warm = {"n_predict": 0, "temperature": 0.0, "samplers": [], "t_max_predict_ms": 1, "response_fields": [""]}
    assert post(served, **{**VIM, **warm}).json() == {}
    say("x: int")
    told = post(served, n_predict=0).json()
    assert (told["content"], told["tokens_predicted"], told["stop_type"]) == ("", 0, "limit")
    events = [json.loads(line[6:]) for line in post(served, n_predict=0, stream=True).text.split("\n\n") if line]
    assert [(event["content"], event["stop"]) for event in events] == [("", True)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"n_predict": 5, "max_tokens": 5}, "llama.cpp's name for max_tokens; give one"),
        ({"input_extra": [{"text": "a"}]}, "input_extra.0.filename: Field required"),
        ({"n_indent": -1}, "n_indent: Input should be greater than or equal to 0"),
        ({"n_keep": 5}, "n_keep: Extra inputs are not permitted"),
    ],
)
def test_refusals(coder: tuple[Served, Say], body: dict[str, Any], message: str) -> None:
    response = post(coder[0], **body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_suffixes_of_openai_and_ollama(coder: tuple[Served, Say]) -> None:
    served, say = coder
    name, prompt = served.llm.name, served.llm.infill_prompt("def f(", "):\n")
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        say("x: int")
        done = client.completions.create(model=name, prompt="def f(", suffix="):\n")
        assert (done.choices[0].text, done.usage and done.usage.prompt_tokens) == ("x: int", len(prompt))
        with pytest.raises(openai.BadRequestError, match="suffix: the prompt must be text too, not token ids"):
            client.completions.create(model=name, prompt=[1], suffix="x")
    with ollama.Client(served.url) as local:
        say("x: int")
        answer = local.generate(name, "def f(", suffix="):\n")
        assert (answer.response, answer.prompt_eval_count) == ("x: int", len(prompt))
        with pytest.raises(ollama.ResponseError, match="leave system and think out"):
            local.generate(name, "def f(", suffix="):\n", system="Be brief.")


def test_a_model_that_cannot(served: Served) -> None:
    response = post(served)
    assert response.status_code == 400
    assert "has no tokens for filling in" in response.json()["error"]["message"]
