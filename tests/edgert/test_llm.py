import asyncio
import dataclasses
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgert_quant.blocks import BlockType

from edgert import (
    LLM,
    BackendError,
    CancelledError,
    Completion,
    ContextLengthError,
    FileFormatError,
    MemoryBudgetError,
    RequestError,
    SamplingParams,
    UnsupportedError,
)
from tests.edgert.tiny_gguf import tokenizer_entries, vocabulary, write_tiny

Open = Callable[..., LLM]
MESSAGES = [{"role": "user", "content": "hello world"}]
GREEDY = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True, seed=0)
# Only bytes that are characters by themselves, so that the text of all tokens is the texts of each.
ASCII = {**dict.fromkeys(range(128, 256), -100.0), **dict.fromkeys(range(262, 265), -100.0)}


def free_of_clocks(completion: Completion) -> dict[str, Any]:
    """Everything that must not depend on time, company or the cache."""
    fields = dataclasses.asdict(completion)
    del fields["timings"]
    del fields["usage"]["cached_tokens"]
    return fields


def quiet(llm: LLM) -> bool:
    """Whether the engine becomes idle, with every block given back, within a second."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        now = llm.statistics()
        if not (now.running or now.waiting or now.blocks_held):
            return True
        time.sleep(0.005)
    return False


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


KINDS = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q5_k", "q6_k", "llama q4_k", "olmoe q8_0"]


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
    for ask in (tiny.chat, tiny.stream_chat):
        with pytest.raises(UnsupportedError, match=r"response_format: only \{'type': 'text'\} is supported"):
            ask(MESSAGES, response_format={"type": "json_object"})
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
    assert np.array_equal(open_tiny(rows=8).embed(["hello world, hello"]), vectors[2:])
    assert tiny.embed([]).shape == (0, 64)
    assert abs(float(vectors[0] @ vectors[1])) < 0.999


def test_threads_share_the_batch(open_tiny: Open) -> None:
    llm = open_tiny()
    prompts = [f"hello {n}" for n in range(6)]
    wanted = [llm.generate(prompt, GREEDY).token_ids for prompt in prompts]
    steps = llm.statistics().steps
    answers: dict[int, list[int]] = {}

    def work(n: int) -> None:
        answers[n] = llm.generate(prompts[n], GREEDY).token_ids

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[n] for n in range(6)] == wanted
    assert llm.statistics().steps - steps < 6 * 12


def test_streams_end_when_they_are_left(open_tiny: Open) -> None:
    llm = open_tiny()
    endless = SamplingParams(temperature=0, ignore_eos=True)
    stream = llm.stream([1], endless)
    next(stream)
    stream.close()
    assert list(stream) == []
    assert quiet(llm)
    for _ in llm.stream([1], endless):
        break
    assert quiet(llm)
    llm.stream([1], endless)
    assert quiet(llm)
    assert llm.statistics().generated_tokens < 3 * 200


def test_from_asyncio(tiny: LLM) -> None:
    params = SamplingParams(max_tokens=20, seed=1)

    async def answer(prompt: str) -> tuple[str, Completion | None]:
        stream = tiny.astream(prompt, params)
        text = "".join([chunk.text async for chunk in stream])
        return text, stream.completion

    async def several() -> list[tuple[str, Completion | None]]:
        return await asyncio.gather(*(answer(prompt) for prompt in ("hello", "world", "or")))

    for prompt, (text, completion) in zip(("hello", "world", "or"), asyncio.run(several()), strict=True):
        wanted = tiny.generate(prompt, params)
        assert text == wanted.text
        assert completion is not None
        assert free_of_clocks(completion) == free_of_clocks(wanted)

    async def leave() -> None:
        stream = tiny.astream([1], SamplingParams(ignore_eos=True))
        await anext(stream)
        await stream.aclose()
        assert [chunk async for chunk in stream] == []

    asyncio.run(leave())
    assert quiet(tiny)


def test_ctrl_c_ends_the_request(open_tiny: Open) -> None:
    llm = open_tiny()
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT))
    gc.collect()
    gc.disable()  # or the interrupt may hit the finalizer of something else, where Python drops it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            llm.generate([[n] for n in range(200)] * 20, SamplingParams(ignore_eos=True))
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
        gc.enable()
    assert quiet(llm)


def test_closing(open_tiny: Open) -> None:
    llm = open_tiny()
    stream = llm.stream([1], SamplingParams(ignore_eos=True))
    with llm:
        next(stream)
    llm.close()
    with pytest.raises(CancelledError, match="the model was closed"):
        list(stream)
    for use in (
        lambda: llm.generate("hello"),
        lambda: llm.stream("hello"),
        lambda: llm.chat(MESSAGES),
        lambda: llm.logits([1]),
        lambda: llm.embed("hello"),
    ):
        with pytest.raises(CancelledError, match="the model was closed"):
            use()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_reloading_gives_everything_back(tiny_path: Path, backend_name: str) -> None:
    def use(*, close: bool) -> None:
        llm = LLM(tiny_path, backend=backend_name, threads=2)
        llm.generate([1, 2], dataclasses.replace(GREEDY, max_tokens=2))
        if close:
            llm.close()

    use(close=True)
    gc.collect()
    files, threads = open_files(), threading.active_count()
    for turn in range(10):
        use(close=turn % 2 == 0)
    gc.collect()
    assert (open_files(), threading.active_count()) == (files, threads)


def test_a_program_may_end_without_closing(tiny_path: Path, backend_name: str) -> None:
    program = (
        "import edgert, sys\n"
        f"llm = edgert.LLM({str(tiny_path)!r}, backend={backend_name!r}, threads=2)\n"
        "stream = llm.stream([1], edgert.SamplingParams(ignore_eos=True, temperature=0))\n"
        "print(len(next(stream).token_ids) > 0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_options_that_are_refused(tiny_path: Path, tmp_path: Path) -> None:
    for options, match in (
        ({"backend": "gpu"}, "unknown backend 'gpu'; there are: auto"),
        ({"kv_type": "q4"}, "kv_type must be one of auto, f32, f16, bf16, q8_0, q4_0, not 'q4'"),
        ({"threads": 0}, "threads must be an integer from 1"),
        ({"seed": -1}, "seed must be an integer from 0"),
    ):
        with pytest.raises(RequestError, match=match):
            LLM(tiny_path, **{"backend": "reference", **options})  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="there is no file"):
        LLM(tmp_path / "none.gguf", backend="reference")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF\3\0\0\0")
    with pytest.raises(FileFormatError, match=r"bad\.gguf"):
        LLM(bad, backend="reference")


def test_a_file_that_lacks_a_tensor_is_named(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "short.gguf")
    # Two layers of weights under the metadata of three: the block count is a single byte.
    raw = bytearray(path.read_bytes())
    at = raw.index(b"qwen3moe.block_count") + len(b"qwen3moe.block_count") + 4
    assert raw[at] == 2
    raw[at] = 3
    path.write_bytes(raw)
    with pytest.raises(FileFormatError, match=r"short\.gguf, tensor blk\.2\..*: the tensor is missing"):
        LLM(path, backend="reference")


def test_the_cache_shrinks_to_the_memory(tiny_path: Path) -> None:
    # A position takes 2 layers · (keys and values) · 32 floats = 512 bytes; a context of 256 takes 128 KiB.
    with LLM(tiny_path, backend="reference", memory=300 * 1024) as llm:
        assert llm.statistics().blocks == 32
        assert llm.report.cache_bytes == 256 * 1024
        assert len(llm.generate(["a", "b", "c"], GREEDY)) == 3
    with pytest.raises(MemoryBudgetError) as caught:
        LLM(tiny_path, backend="reference", memory=100 * 1024)
    assert (caught.value.needed, caught.value.available) == (128 * 1024, 100 * 1024)


def test_a_file_without_tokenizer_takes_ids(open_tiny: Open, tmp_path: Path) -> None:
    llm = open_tiny(write_tiny(tmp_path / "bare.gguf", tokenizer={"tokenizer.ggml.model": "none"}))
    completion = llm.generate([1, 2], GREEDY)
    assert (completion.text, len(completion.token_ids)) == ("", 12)
    chunks = list(llm.stream([1, 2], GREEDY))
    assert [token for chunk in chunks for token in chunk.token_ids] == completion.token_ids
    for use in (lambda: llm.generate("hello"), lambda: llm.tokenize("hello"), lambda: llm.detokenize([1])):
        with pytest.raises(UnsupportedError, match=r"bare\.gguf has no tokenizer; pass token ids instead of text"):
            use()
    with pytest.raises(UnsupportedError, match="stop texts cannot be found"):
        llm.generate([1], SamplingParams(stop="x"))


def test_padding_of_the_matrix_is_never_chosen(open_tiny: Open, tmp_path: Path) -> None:
    llm = open_tiny(write_tiny(tmp_path / "padded.gguf", padding=500))
    params = SamplingParams(max_tokens=100, seed=1, temperature=100.0, top_k=0, top_p=1.0, min_p=0.0, ignore_eos=True)
    assert max(llm.generate([1], params).token_ids) < 265
    assert llm.logits([1]).shape == (1, 765)
    with pytest.raises(RequestError, match="token 0 of the prompt is 265, outside the vocabulary of 265"):
        llm.generate([265])


def test_recommended_sampling_comes_from_the_file(open_tiny: Open, tmp_path: Path) -> None:
    recommended = {"general.sampling.temp": 0.0, "general.sampling.top_k": 5}
    llm = open_tiny(write_tiny(tmp_path / "greedy.gguf", metadata=recommended))
    wanted = llm.generate([1], dataclasses.replace(GREEDY, temperature=0)).token_ids
    assert llm.generate([1], dataclasses.replace(GREEDY, temperature=None)).token_ids == wanted
    bad = write_tiny(tmp_path / "bad.gguf", metadata={"general.sampling.top_p": 3.0})
    with pytest.raises(FileFormatError, match=r"general\.sampling\.top_p.*must be a number from 0 to 1, not 3\.0"):
        open_tiny(bad)


def test_about_the_model(tiny: LLM, tiny_path: Path, backend_name: str) -> None:
    assert tiny.path == tiny_path
    assert tiny.name == "tiny"
    assert tiny.spec.architecture == "qwen3moe"
    assert tiny.report.backend == backend_name
    # Output matrix, two layers of attention and two of eight experts, routers, norms, and one row of the embedding.
    matrices = 265 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 2 * 3 * 64 * 32 + 8 * 64)
    assert tiny.weight_bytes_per_token == 4 * (matrices + 64 + 64 + 2 * (64 + 64 + 16 + 16))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_is_told_why_it_cannot(tiny: LLM) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            tiny.generate([1])
            message = "no error"
        except BackendError as error:
            message = str(error)
        os.write(write, message.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert "loaded before this process was forked" in pipe.read()
    os.waitpid(child, 0)
    assert len(tiny.generate([1], GREEDY).token_ids) == 12


def test_a_file_that_is_cut_under_a_loaded_model_is_an_error(tiny_path: Path, tmp_path: Path) -> None:
    """Weights are mapped: to touch what is gone would end the process."""
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_path.read_bytes())
    size = path.stat().st_size
    with LLM(path, backend="cpu", threads=2) as llm:
        greedy = SamplingParams(max_tokens=2, temperature=0.0)
        before = llm.generate([1, 2, 3], greedy)
        with path.open("r+b") as file:
            file.truncate(4096)
        with pytest.raises(FileFormatError, match=f"had {size} bytes when it was opened and has 4096 now"):
            llm.generate([4, 5, 6], greedy)
        path.write_bytes(tiny_path.read_bytes())
        assert llm.generate([1, 2, 3], greedy).token_ids == before.token_ids
