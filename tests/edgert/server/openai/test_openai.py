"""The official client against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import openai
import pytest

from edgert import SamplingParams

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served

HELLO = [{"role": "user", "content": "hello"}]
GREEDY = {"temperature": 0.0, "max_tokens": 12}


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def greedy(**fields: object) -> SamplingParams:
    return SamplingParams(**{**GREEDY, **fields})


def test_models(client: openai.OpenAI, served: Served) -> None:
    (model,) = client.models.list().data
    assert model.id == served.llm.name
    assert client.models.retrieve(model.id).owned_by == "edgert"
    with pytest.raises(openai.NotFoundError, match="the model 'gpt-9' does not exist") as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_chat(client: openai.OpenAI, served: Served) -> None:
    expected = served.llm.chat(HELLO, greedy())
    answer = client.chat.completions.create(model=served.llm.name, messages=HELLO, **GREEDY)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage is not None
    assert answer.usage.completion_tokens == expected.usage.completion_tokens
    assert answer.usage.total_tokens == expected.usage.prompt_tokens + expected.usage.completion_tokens
    assert answer.usage.prompt_tokens_details is not None


def test_chat_streamed(client: openai.OpenAI, served: Served) -> None:
    expected = served.llm.chat(HELLO, greedy())
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model=served.llm.name, messages=HELLO, stream=True, stream_options=options, **GREEDY
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected.text
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        expected.finish_reason
    ]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == expected.usage.completion_tokens
    assert len({c.id for c in chunks}) == 1


def test_stream_without_usage(client: openai.OpenAI, served: Served) -> None:
    chunks = list(client.chat.completions.create(model=served.llm.name, messages=HELLO, stream=True, **GREEDY))
    assert all(c.choices and c.usage is None for c in chunks)
    assert chunks[-1].choices[0].finish_reason


def test_stop_seed_and_bias(client: openai.OpenAI, served: Served) -> None:
    full = served.llm.chat(HELLO, greedy()).text
    stop = full[3:5]
    answer = client.chat.completions.create(model=served.llm.name, messages=HELLO, stop=[stop], **GREEDY)
    assert answer.choices[0].message.content == full[: full.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    sampled = [
        client.chat.completions.create(model=served.llm.name, messages=HELLO, seed=11, temperature=1.5, max_tokens=12)
        for _ in range(2)
    ]
    assert sampled[0].choices[0].message.content == sampled[1].choices[0].message.content
    (token,) = served.llm.tokenize("Z", add_special=False)
    biased = client.chat.completions.create(
        model=served.llm.name, messages=HELLO, logit_bias={str(token): 100}, **GREEDY
    )
    assert biased.choices[0].message.content == "Z" * 12


def test_chat_logprobs(client: openai.OpenAI, served: Served) -> None:
    answer = client.chat.completions.create(
        model=served.llm.name, messages=HELLO, logprobs=True, top_logprobs=3, **GREEDY
    )
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content is not None
    assert answer.usage is not None
    assert len(content) == answer.usage.completion_tokens
    assert all(len(entry.top_logprobs) == 3 and entry.logprob <= 0 for entry in content)
    assert content[0].top_logprobs[0].logprob == content[0].logprob


def test_completions(client: openai.OpenAI, served: Served) -> None:
    expected = served.llm.generate("hello wor", greedy(logprobs=2))
    answer = client.completions.create(model=served.llm.name, prompt="hello wor", logprobs=2, **GREEDY)
    assert answer.choices[0].text == expected.text
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.token_logprobs == pytest.approx([entry.logprob for entry in expected.logprobs])
    ids = served.llm.tokenize("hello wor")
    assert client.completions.create(model=served.llm.name, prompt=ids, **GREEDY).choices[0].text == expected.text
    chunks = list(client.completions.create(model=served.llm.name, prompt="hello wor", stream=True, **GREEDY))
    assert "".join(c.choices[0].text for c in chunks) == expected.text
    assert chunks[-1].choices[0].finish_reason == expected.finish_reason
    default = client.completions.create(model=served.llm.name, prompt="hello", temperature=0.0)
    assert default.usage is not None
    assert default.usage.completion_tokens <= 16


def test_too_long_is_refused(client: openai.OpenAI, served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="the context holds 128") as caught:
        client.completions.create(model=served.llm.name, prompt="x" * 500)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="max_tokens is 4000; the context holds 128"):
        client.chat.completions.create(model=served.llm.name, messages=HELLO, max_tokens=4000)
