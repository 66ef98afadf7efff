"""The official client against a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest

from edgert import SamplingParams

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served

HELLO = [{"role": "user", "content": "hello"}]
GREEDY = {"temperature": 0.0, "max_tokens": 12}


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


def test_several_choices(client: openai.OpenAI, served: Served) -> None:
    """They share the prompt's cache; each is what its seed gives alone, and a stream's are the same."""
    asked = {"temperature": 1.5, "max_tokens": 12, "seed": 7}
    prompt = HELLO[0]["content"] + " world" * 10
    alone = [
        served.llm.chat([{"role": "user", "content": prompt}], SamplingParams(**{**asked, "seed": 7 + index}))
        for index in range(3)
    ]
    assert len({completion.text for completion in alone}) == 3
    messages = [{"role": "user", "content": prompt}]
    answer = client.chat.completions.create(model=served.llm.name, messages=messages, n=3, **asked)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.message.content for choice in answer.choices] == [completion.text for completion in alone]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert answer.usage.completion_tokens == sum(completion.usage.completion_tokens for completion in alone)
    options = {"include_usage": True}
    texts = ["", "", ""]
    endings = {}
    chunks = client.chat.completions.create(
        model=served.llm.name, messages=messages, n=3, stream=True, stream_options=options, **asked
    )
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                endings[choice.index] = choice.finish_reason
    assert texts == [completion.text for completion in alone]
    assert endings == {index: completion.finish_reason for index, completion in enumerate(alone)}
    assert chunk.usage == answer.usage


def test_several_completions(client: openai.OpenAI, served: Served) -> None:
    asked = {"temperature": 1.5, "max_tokens": 12, "seed": 7, "logprobs": 1}
    answer = client.completions.create(model=served.llm.name, prompt="hello", n=2, best_of=2, **asked)
    wanted = [served.llm.generate("hello", SamplingParams(**{**asked, "seed": seed})) for seed in (7, 8)]
    assert [choice.text for choice in answer.choices] == [completion.text for completion in wanted]
    chunks = list(client.completions.create(model=served.llm.name, prompt="hello", n=2, stream=True, **asked))
    for index, completion in enumerate(wanted):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(choice.text for choice in mine) == completion.text
        assert mine[-1].finish_reason == completion.finish_reason
    with pytest.raises(openai.BadRequestError, match="best_of must be n, which is 1"):
        client.completions.create(model=served.llm.name, prompt="hello", best_of=2)


def test_samplers_as_llama_cpps_clients_ask_for_them(client: openai.OpenAI, served: Served) -> None:
    extra = {"samplers": ["penalties", "top_k", "typ_p", "temperature"], "repeat_penalty": 1.3, "typical_p": 0.9}
    answer = client.completions.create(
        model=served.llm.name, prompt="hello", seed=3, max_tokens=20, temperature=1.5, extra_body=extra
    )
    params = SamplingParams(
        seed=3,
        max_tokens=20,
        temperature=1.5,
        samplers=("penalties", "top_k", "typical_p", "temperature"),
        repetition_penalty=1.3,
        typical_p=0.9,
    )
    assert answer.choices[0].text == served.llm.generate("hello", params).text
