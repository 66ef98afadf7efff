"""The server's own routes."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import httpx

from tests.edgert.server.conftest import serve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.edgert.server.conftest import Served

MESSAGES = [{"role": "user", "content": "hello"}]
_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*)\})? (-?[0-9.e+-]+|\+Inf)')


def scrape(served: Served) -> dict[tuple[str, str], float]:
    response = httpx.get(f"{served.url}/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    kinds: dict[str, str] = {}
    for line in response.text.splitlines():
        if line.startswith("#"):
            word, name, told = line[2:].split(" ", 2)
            assert word in ("HELP", "TYPE")
            kinds.setdefault(name, told)
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        found[match[1], match[2] or ""] = float(match[3])
        assert any(match[1].startswith(name) for name in kinds)
    assert response.text.endswith("\n")
    return found


def test_tokens(served: Served) -> None:
    llm = served.llm

    def post(path: str, **body: Any) -> Any:
        return httpx.post(f"{served.url}/{path}", json=body).json()

    text = "hello wörld<|im_end|>"
    ids = llm.tokenize(text, add_special=False)
    assert post("tokenize", content=text) == {"tokens": ids}
    assert post("tokenize", content=text, add_special=True) == {"tokens": llm.tokenize(text)}
    plain = post("tokenize", content=text, parse_special=False)["tokens"]
    assert len(plain) > len(ids)
    assert post("detokenize", tokens=plain) == {"content": text}
    pieces = post("tokenize", content="hellö", with_pieces=True)["tokens"]
    assert pieces[0] == {"id": llm.tokenizer.token_id("hell"), "piece": "hell"}
    assert [piece["piece"] for piece in pieces[1:]] == [[0xC3], [0xB6]]
    refused = httpx.post(f"{served.url}/detokenize", json={"tokens": [10**6]})
    assert refused.status_code == 400
    assert "ids[0] is 1000000; the vocabulary has ids from 0" in refused.json()["error"]["message"]


def test_template(served: Served) -> None:
    def post(**body: Any) -> Any:
        return httpx.post(f"{served.url}/apply-template", json={"messages": MESSAGES, **body}).json()

    assert post() == {"prompt": served.llm.render(MESSAGES)}
    assert post(add_generation_prompt=False)["prompt"] == "<|im_start|>user\nhello<|im_end|>\n"
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert post(tools=tools)["prompt"] == served.llm.render(MESSAGES, tools=tools)
    assert "param" in post(stream=True)["error"]


def test_slots(served: Served) -> None:
    idle = httpx.get(f"{served.url}/slots").json()
    assert [slot["id"] for slot in idle] == list(range(served.llm.limits.sequences))
    assert not any(slot["is_processing"] for slot in idle)
    endless = {"max_tokens": 1_000_000, "overflow": "sliding", "ignore_eos": True, "stream": True}
    body = {"model": served.llm.name, "messages": MESSAGES, **endless}
    busy: list[dict[str, Any]] = []
    deadline = time.monotonic() + 30
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, timeout=60):
        while not busy and time.monotonic() < deadline:
            found = httpx.get(f"{served.url}/slots", timeout=60).json()
            busy = [slot for slot in found if slot["is_processing"]]
    assert len(busy) == 1
    assert busy[0]["prompt_tokens"] == len(served.llm.chat_tokens(MESSAGES))
    assert busy[0]["n_ctx"] == served.llm.context
    assert "content" not in str(busy)


def test_metrics(served: Served) -> None:
    before = scrape(served)
    body = {"model": served.llm.name, "messages": MESSAGES, "max_tokens": 5, "logit_bias": {"60": 100}}
    assert httpx.post(f"{served.url}/v1/chat/completions", json=body).status_code == 200
    assert httpx.post(f"{served.url}/v1/chat/completions", json={}).status_code == 400
    assert httpx.get(f"{served.url}/nowhere/{time.time()}").status_code == 404
    after = scrape(served)

    own = f'model="{served.llm.name}"'

    def more(name: str, labels: str = own) -> float:
        return after[name, labels] - before.get((name, labels), 0.0)

    route = 'method="POST",route="/v1/chat/completions"'
    assert more("edgert_http_responses_total", f'{route},status="200"') == 1
    assert more("edgert_http_responses_total", f'{route},status="400"') == 1
    assert more("edgert_http_responses_total", 'method="GET",route="none",status="404"') == 1
    assert more("edgert_generated_tokens_total") == 5
    assert more("edgert_prompt_tokens_total") == len(served.llm.chat_tokens(MESSAGES))
    assert more("edgert_requests_total") == 1
    assert more("edgert_time_to_first_token_seconds_count") == 1
    assert more("edgert_queue_seconds_count") == 1
    assert more("edgert_time_between_tokens_seconds_count") == 4
    assert more("edgert_time_between_tokens_seconds_sum") > 0
    assert more("edgert_time_between_tokens_seconds_bucket", f'{own},le="+Inf"') == 4
    blocks = [after["edgert_kv_blocks", f'{own},state="{state}"'] for state in ("held", "cached", "free")]
    assert sum(blocks) == served.llm.statistics().blocks
    assert after["edgert_requests_running", own] == 0
    buckets = [value for (name, _), value in after.items() if name == "edgert_queue_seconds_bucket"]
    assert buckets == sorted(buckets)


def test_live(served: Served) -> None:
    def ask(url: str) -> Any:
        return httpx.get(f"{url}/live").json()

    before = ask(served.url)
    body = {"model": served.llm.name, "messages": MESSAGES, "max_tokens": 5, "logit_bias": {"60": 100}}
    httpx.post(f"{served.url}/v1/chat/completions", json=body).raise_for_status()
    after = ask(served.url)
    assert after["seconds"] > before["seconds"]
    assert after["generated_tokens"] - before["generated_tokens"] == 5
    assert after["between_tokens_seconds"]["count"] - before["between_tokens_seconds"]["count"] == 4
    assert (after["running"], after["answering"]) == (0, [])
    assert after["model"] == served.llm.name
    counted = served.llm.expert_load()  # not on every backend
    assert after["experts"] == (counted and [{"layer": i, "tokens": list(own)} for i, own in counted.items()])


def test_experts_are_counted(tiny_path: Path) -> None:
    from edgert import LLM

    with LLM(tiny_path, backend="cpu", context=128, threads=1) as llm:
        for served in serve(llm):
            body = {"model": llm.name, "messages": MESSAGES, "max_tokens": 5, "logit_bias": {"60": 100}}
            httpx.post(f"{served.url}/v1/chat/completions", json=body).raise_for_status()
            rows = len(llm.chat_tokens(MESSAGES)) + 4  # what the last token leads to is not computed
            layers = httpx.get(f"{served.url}/live").json()["experts"]
            assert [layer["layer"] for layer in layers] == list(range(llm.spec.layers))
            assert [sum(layer["tokens"]) for layer in layers] == [rows * llm.spec.experts_used] * len(layers)
            metrics = scrape(served)
            for layer in layers:
                for expert, count in enumerate(layer["tokens"]):
                    labels = f'model="{llm.name}",layer="{layer["layer"]}",expert="{expert}"'
                    assert metrics["edgert_expert_tokens_total", labels] == count


def test_metrics_need_the_key(served_with_key: Served) -> None:
    assert httpx.get(f"{served_with_key.url}/metrics").status_code == 401
    headers = {"Authorization": "Bearer secret"}
    counted = httpx.get(f"{served_with_key.url}/metrics", headers=headers).text
    assert 'edgert_http_responses_total{method="GET",route="none",status="401"} 1' in counted
