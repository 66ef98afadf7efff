"""POST /completion, as clients of llama.cpp's server know it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.edgert.server.conftest import Served


@pytest.fixture(scope="module")
def native(tiny_path: Path) -> Iterator[Served]:
    from edgert import LLM
    from tests.edgert.server.conftest import serve

    with LLM(tiny_path, backend="cpu", context=128, threads=1, overflow="truncate-middle") as llm:
        yield from serve(llm)


def complete(native: Served, **fields: Any) -> Any:
    fields = {"prompt": "hello", "n_predict": 6, "temperature": 0, **fields}
    response = httpx.post(f"{native.url}/completion", json=fields, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def test_one_prompt(native: Served) -> None:
    found = complete(native, return_tokens=True, ignore_eos=True, n_probs=3)
    assert found["stop_type"] == "limit"
    assert (found["tokens_predicted"], found["truncated"]) == (6, False)
    assert len(found["tokens"]) == 6
    timings = found["timings"]
    assert timings["predicted_n"] == 6
    assert timings["predicted_per_second"] * timings["predicted_ms"] == pytest.approx(5 * 1000)  # after the first
    assert timings["predicted_per_token_ms"] * timings["predicted_per_second"] == pytest.approx(1000)
    assert "draft_n" not in timings
    assert timings["prompt_n"] + timings["cache_n"] == found["tokens_evaluated"]
    assert [len(each["top_logprobs"]) for each in found["completion_probabilities"]] == [3] * 6
    assert [each["id"] for each in found["completion_probabilities"]] == found["tokens"]
    assert complete(native, ignore_eos=True)["tokens"] == []
    assert found["generation_settings"]["n_predict"] == 6


def test_prompts_in_every_form(native: Served) -> None:
    ids = native.llm.tokenize("hello")
    single = complete(native)["content"]
    assert complete(native, prompt=ids)["content"] == single
    assert complete(native, prompt=[*ids[:-1], native.llm.detokenize(ids[-1:])])["content"] == single
    several = complete(native, prompt=["hello", ids, {"prompt_string": "hello"}, "other"])
    assert [each["index"] for each in several] == [0, 1, 2, 3]
    assert [each["content"] for each in several[:3]] == [single] * 3
    assert complete(native, prompt=["hello"])[0]["content"] == single


def test_streams(native: Served) -> None:
    body = {"prompt": ["hello", "other"], "n_predict": 6, "temperature": 0, "ignore_eos": True, "stream": True}
    response = httpx.post(f"{native.url}/completion", json=body, timeout=60)
    pieces = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    whole = complete(native, prompt=["hello", "other"], ignore_eos=True)
    for index, expected in enumerate(whole):
        own = [piece for piece in pieces if piece["index"] == index]
        assert "".join(piece["content"] for piece in own) == expected["content"]
        assert [piece["stop"] for piece in own] == [False] * (len(own) - 1) + [True]
        assert own[-1]["stop_type"] == "limit"


def test_what_ends_it(native: Served) -> None:
    first = complete(native, ignore_eos=True)["content"][0]
    stopped = complete(native, stop=[first])
    assert (stopped["stop_type"], stopped["stopping_word"], stopped["content"]) == ("word", first, "")
    end = native.llm.tokenizer.eos_id
    assert complete(native, logit_bias={str(end): 100})["stop_type"] == "eos"
    assert complete(native, prompt="hello " * 200, n_predict=4)["truncated"]


def test_bias_in_every_form(native: Served) -> None:
    token = native.llm.tokenize("hello", add_special=False)[0]
    for bias in ({str(token): 100}, [[token, 100]]):
        assert complete(native, logit_bias=bias, return_tokens=True, n_predict=2)["tokens"] == [token, token]
    text = native.llm.detokenize([token])
    unbiased = complete(native, logit_bias=[[text, False]], return_tokens=True)["tokens"]
    assert not set(native.llm.tokenize(text, add_special=False)) & set(unbiased)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": {"prompt_string": "x", "multimodal_data": ["x"]}}, "prompt"),
        ({"prompt": [10**9]}, "prompt"),
        ({"n_predict": 0}, "n_predict"),
        ({"n_probs": 21}, "n_probs"),
        ({"logit_bias": [[1, 101]]}, "logit_bias"),
        ({"id_slot": -2}, "id_slot"),
        ({"n_keep": 1}, "n_keep"),
        ({"prompt": [["a"] * 3] * 129}, "prompt"),
    ],
    ids=str,
)
def test_what_is_refused(native: Served, fields: dict[str, Any], param: str) -> None:
    response = httpx.post(f"{native.url}/completion", json={"prompt": "x", **fields}, timeout=60)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
