import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgert_quant.blocks import BlockType

from edgert import (
    LLM,
    ContextLengthError,
    RequestError,
    SamplingParams,
    UnsupportedError,
)
from tests.edgert.answers import GREEDY, MESSAGES, free_of_clocks, quiet
from tests.edgert.tiny_gguf import tokenizer_entries, vocabulary, write_tiny

Open = Callable[..., LLM]
# Only bytes that are characters by themselves, so that the text of all tokens is the texts of each.
ASCII = {**dict.fromkeys(range(128, 256), -100.0), **dict.fromkeys(range(262, 265), -100.0)}


def test_tokens_and_text(tiny: LLM) -> None:
    ids = tiny.tokenize("hello world")
    names = vocabulary()
    assert [names[i] for i in ids] == ["<|bos|>", "hello", "Ġw", "or", "l", "d"]
    assert tiny.tokenize("hello world", add_special=False) == ids[1:]
    assert tiny.detokenize(ids[1:]) == "hello world"


def test_greedy_follows_the_logits(tiny: LLM) -> None:
    ids = tiny.tokenize("hello")
    stop = tiny.tokenizer.stop_ids
    wanted = list(ids)
    for _ in range(8):
        row = tiny.logits(wanted)[-1].copy()
        row[list(stop)] = -np.inf
        wanted.append(int(row.argmax()))
    completion = tiny.generate("hello", dataclasses.replace(GREEDY, max_tokens=8))
    assert completion.token_ids == wanted[len(ids) :]
    assert completion.finish_reason == "length"
    assert completion.usage.prompt_tokens == len(ids)
    assert completion.usage.completion_tokens == 8
    assert completion.text == tiny.tokenizer.decode(completion.token_ids, skip_special=True, continuation=True)
    assert tiny.generate(ids, dataclasses.replace(GREEDY, max_tokens=8)).token_ids == completion.token_ids


def test_logits(tiny: LLM, open_tiny: Open) -> None:
    ids = list(range(60))
    logits = tiny.logits(ids)
    assert logits.shape == (60, len(vocabulary()))
    assert logits.dtype == np.float32
    tiny.generate(ids, GREEDY)  # now in the prefix cache
    assert np.array_equal(tiny.logits(ids), logits)
    assert np.array_equal(tiny.logits(ids[:20]), logits[:20])
    assert np.array_equal(open_tiny(rows=9).logits(ids), logits)


KINDS = [
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q4_0",
    "q4_k",
    "q5_k",
    "q6_k",
    "llama q4_k",
    "olmoe q8_0",
    "gpt-oss q8_0",
    "qwen2moe q8_0",
]


@pytest.mark.parametrize(
    ("backend_name", "kind"),
    [("reference", "f32"), ("reference", "llama q4_k"), *(("cpu", kind) for kind in KINDS)],
    indirect=["backend_name"],
)
def test_the_seed_alone_decides(kind: str, open_tiny: Open, tmp_path: Path) -> None:
    """Alone and in company, pieces of any size, other threads, with and without the prefix cache, after a restart."""
    *architecture, matrices = kind.split()
    sizes = {"width": 256, "feed_forward": 256, "heads": 8, "head_size": 32, "kv_heads": 4, "layers": 1}
    if architecture != ["llama"]:
        sizes |= {"expert_feed_forward": 256, "experts": 4}
    if architecture == ["gpt-oss"]:  # a layer with a window shorter than the prompt, and one without
        sizes |= {"layers": 2, "window": 21, "attention_bias": True, "output_bias": True}
    if architecture == ["qwen2moe"]:
        sizes |= {"shared_feed_forward": 512, "attention_bias": True}
    path = write_tiny(
        tmp_path / "model.gguf", (architecture or ["qwen3moe"])[0], matrices=BlockType.parse(matrices), **sizes
    )
    open_model = functools.partial(open_tiny, path)
    shared = open_model()
    prompt = "hello world, " * 6
    params = SamplingParams(max_tokens=25, seed=3, temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, logprobs=2)
    wanted = free_of_clocks(open_model().generate(prompt, params))
    assert len(set(wanted["token_ids"])) > 15
    for options in ({"rows": 8}, {"rows": 13}, {"rows": 24}, {"threads": 1}, {"sequences": 1}):
        assert free_of_clocks(open_model(**options).generate(prompt, params)) == wanted, options
    first, again = shared.generate(prompt, params), shared.generate(prompt, params)
    assert free_of_clocks(first) == free_of_clocks(again) == wanted
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1
    others = ["hello", "world " * 20, "or"]
    together = open_model().generate([*others, prompt, prompt], dataclasses.replace(params))
    assert free_of_clocks(together[3]) == free_of_clocks(together[4]) == wanted
    assert free_of_clocks(open_model(seed=3).generate(prompt, dataclasses.replace(params, seed=None))) == wanted


def test_a_pool_that_is_too_small_for_all_changes_nothing(tiny: LLM, open_tiny: Open, backend_name: str) -> None:
    params = SamplingParams(max_tokens=100, seed=5, temperature=1.5, top_k=0, ignore_eos=True)
    prompts = [[n] * 60 for n in range(4)]
    wanted = [tiny.generate(prompt, params).token_ids for prompt in prompts]
    scarce = open_tiny(memory=None, sequences=4)
    engine = scarce._engine
    pool = engine._worker.scheduler.pool
    pool._free = pool._free[-18:]  # as if the pool had one context and a bit
    assert [completion.token_ids for completion in scarce.generate(prompts, params)] == wanted
    assert scarce.statistics().preemptions > 0


def test_a_stream_is_the_completion_in_pieces(tiny: LLM) -> None:
    params = SamplingParams(max_tokens=30, seed=8, temperature=1.2, top_k=0, logprobs=1)
    completion = tiny.generate("hello", params)
    stream = tiny.stream("hello", params)
    assert stream.completion is None
    chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == completion.text
    assert [token for chunk in chunks for token in chunk.token_ids] == completion.token_ids
    assert [entry for chunk in chunks for entry in chunk.logprobs or []] == completion.logprobs
    assert all(chunk.finish_reason is None and chunk.usage is None for chunk in chunks[:-1])
    assert all(chunk.text for chunk in chunks[:-1])
    last = chunks[-1]
    assert last.finish_reason == completion.finish_reason
    assert last.usage is not None
    assert last.usage.completion_tokens == completion.usage.completion_tokens
    assert last.timings is not None
    assert stream.completion is not None
    assert free_of_clocks(stream.completion) == free_of_clocks(completion)
    assert list(stream) == []


def test_stop_texts(tiny: LLM) -> None:
    params = SamplingParams(max_tokens=60, seed=2, temperature=1.0, logit_bias=ASCII)
    full = tiny.generate("hello", params)
    stop = full.text[8:10]
    cut = dataclasses.replace(params, stop=(stop, "never to be seen"))
    completion = tiny.generate("hello", cut)
    assert completion.text == full.text[: full.text.index(stop)]
    assert (completion.finish_reason, completion.stop) == ("stop", stop)
    assert completion.token_ids == full.token_ids[: len(completion.token_ids)]
    assert stop in tiny.tokenizer.decode(completion.token_ids, continuation=True)
    assert stop not in tiny.tokenizer.decode(completion.token_ids[:-1], continuation=True)
    stream = tiny.stream("hello", cut)
    assert "".join(chunk.text for chunk in stream) == completion.text
    assert stream.completion is not None
    assert free_of_clocks(stream.completion) == free_of_clocks(completion)
    assert quiet(tiny)
    assert completion.usage.completion_tokens == len(completion.token_ids) < 60


def test_a_stop_text_ends_its_request_among_many(open_tiny: Open) -> None:
    llm = open_tiny()
    params = SamplingParams(seed=2, temperature=1.0, logit_bias=ASCII, max_tokens=150)
    text = llm.generate("hello", params).text
    before = llm.statistics().generated_tokens
    llm.generate(["hello"] * 3, dataclasses.replace(params, stop=text[0]))
    assert llm.statistics().generated_tokens - before < 3 * 75


def test_stop_tokens_and_the_end_token(tiny: LLM) -> None:
    params = dataclasses.replace(GREEDY, logit_bias=ASCII)
    tokens = tiny.generate("hello", params).token_ids
    completion = tiny.generate("hello", dataclasses.replace(params, stop_token_ids=(tokens[5],)))
    count = tokens.index(tokens[5]) + 1
    assert completion.token_ids == tokens[:count]
    assert (completion.finish_reason, completion.stop) == ("stop", tokens[5])
    assert completion.text == tiny.tokenizer.decode(tokens[: count - 1], continuation=True)
    end = next(iter(tiny.tokenizer.stop_ids))
    forced = tiny.generate("hello", SamplingParams(temperature=0, logit_bias={end: 100}))
    assert (forced.text, forced.token_ids, forced.finish_reason, forced.stop) == ("", [end], "stop", end)


def test_logprobs(tiny: LLM) -> None:
    ids = tiny.tokenize("hello")
    completion = tiny.generate(ids, dataclasses.replace(GREEDY, logprobs=3, max_tokens=4, temperature=2.0, seed=1))
    logits = tiny.logits(ids + completion.token_ids).astype(np.float64)[len(ids) - 1 : -1]
    shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert completion.logprobs is not None
    for token, entry, row in zip(completion.token_ids, completion.logprobs, shares, strict=True):
        assert entry.token == token
        assert entry.logprob == pytest.approx(row[token], abs=1e-4)
        assert [t for t, _ in entry.top] == np.argsort(-row)[:3].tolist()
    assert tiny.generate(ids, GREEDY).logprobs is None


def test_a_completion_is_plain_data(tiny: LLM) -> None:
    completion = tiny.generate("hello", dataclasses.replace(GREEDY, logprobs=1))
    assert json.loads(json.dumps(dataclasses.asdict(completion)))["finish_reason"] == "length"
    timings = completion.timings
    assert min(timings.queue, timings.prefill, timings.decode) >= 0
    assert timings.time_to_first_token == pytest.approx(timings.queue + timings.prefill)
    assert timings.decode_tokens_per_second == pytest.approx(11 / timings.decode)


def test_chat(tiny: LLM) -> None:
    rendered = "<|im_start|>user\nhello world<|im_end|>\n<|im_start|>assistant\n"
    assert tiny.render(MESSAGES) == rendered
    ids = tiny.chat_tokens(MESSAGES)
    assert ids == tiny.tokenize(rendered, add_special=False)
    assert ids[0] == vocabulary().index("<|im_start|>")
    completion = tiny.chat(MESSAGES, GREEDY)
    assert free_of_clocks(completion) == free_of_clocks(tiny.generate(ids, GREEDY))
    assert "".join(chunk.text for chunk in tiny.stream_chat(MESSAGES, GREEDY)) == completion.text
    assert "[look_up]" in tiny.render(MESSAGES, tools=[{"type": "function", "function": {"name": "look_up"}}])
    tiny.chat(MESSAGES, GREEDY, response_format={"type": "text"})


def test_chat_refuses_what_it_cannot_do(tiny: LLM, open_tiny: Open, tmp_path: Path) -> None:
    for wrong in ([], "hello", [{"content": "x"}], ["x"], [{"role": 3, "content": "x"}]):
        with pytest.raises(RequestError, match="messages"):
            tiny.chat(wrong)  # type: ignore[arg-type]
    plain = open_tiny(write_tiny(tmp_path / "plain.gguf", tokenizer=tokenizer_entries(template=None)))
    assert not plain.has_chat_template
    assert tiny.has_chat_template
    with pytest.raises(UnsupportedError, match="has no chat template; give one"):
        plain.chat(MESSAGES)
    assert len(plain.generate("hello", GREEDY).token_ids) == 12


def test_several_prompts(tiny: LLM) -> None:
    prompts = ["hello", [1, 2, 3], "world"]
    wanted = [free_of_clocks(tiny.generate(prompt, GREEDY)) for prompt in prompts]  # type: ignore[call-overload]
    assert [free_of_clocks(each) for each in tiny.generate(prompts, GREEDY)] == wanted
    lengths = [dataclasses.replace(GREEDY, max_tokens=n) for n in (2, 5, 1)]
    assert [len(each.token_ids) for each in tiny.generate(prompts, lengths)] == [2, 5, 1]
    assert isinstance(tiny.generate(["hello"], GREEDY), list)
    assert tiny.generate(np.array([1, 2, 3]), GREEDY).token_ids == wanted[1]["token_ids"]  # type: ignore[call-overload]


def test_wrong_prompts_are_refused(tiny: LLM) -> None:
    for prompt, match in (
        ([], "the prompt is empty"),
        ([[]], "no tokens"),
        ([1, -2], "token 1 of the prompt is -2, outside the vocabulary of 265"),
        ([1, 265], "token 1 of the prompt is 265, outside the vocabulary of 265"),
        ([1.5], "token 0 of the prompt is 1.5, not an integer"),
        ([1, "a"], "token 1 of the prompt is 'a', not an integer"),
        (["a", None], "a prompt is a text or token ids, not NoneType"),
        (["a", 3], "a prompt is a text or token ids, not int"),
        (3, "a prompt is a text or token ids, not int"),
        (b"a", "a prompt is a text or token ids, not bytes"),
        ({"a": 1}, "a prompt is a text or token ids, not dict"),
    ):
        with pytest.raises(RequestError, match=match):
            tiny.generate(prompt, GREEDY)  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="2 prompts have 1 params"):
        tiny.generate(["a", "b"], [GREEDY])
    with pytest.raises(RequestError, match="params must be SamplingParams, not dict"):
        tiny.generate("a", {"max_tokens": 3})  # type: ignore[call-overload]
    assert quiet(tiny)


def test_nothing_is_cut_to_fit(tiny: LLM, open_tiny: Open) -> None:
    assert tiny.context == 256
    with pytest.raises(
        ContextLengthError, match="300 tokens, which leaves no room for an answer; the context holds 256"
    ):
        tiny.generate([1] * 300)
    with pytest.raises(ContextLengthError, match="250 tokens and max_tokens is 12; the context holds 256"):
        tiny.generate([1] * 250, GREEDY)
    with pytest.raises(ContextLengthError, match="257 tokens do not fit the context of 256"):
        tiny.logits([1] * 257)
    completion = tiny.generate([1] * 250, SamplingParams(temperature=0, ignore_eos=True))
    assert (len(completion.token_ids), completion.finish_reason) == (6, "length")
    small = open_tiny(context=32)
    assert small.context == 32
    with pytest.raises(ContextLengthError):
        small.generate([1] * 32)


def test_embeddings(tiny: LLM, open_tiny: Open) -> None:
    vectors = tiny.embed(["hello world", "or", "hello world, hello"])
    assert vectors.shape == (3, 64)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(tiny.embed("or"), vectors[1:2])
    assert np.array_equal(tiny.embed(tiny.tokenize("or")), vectors[1:2])
    assert np.array_equal(open_tiny(rows=8).embed(["hello world, hello"]), vectors[2:])
    assert tiny.embed([]).shape == (0, 64)
    assert abs(float(vectors[0] @ vectors[1])) < 0.999
