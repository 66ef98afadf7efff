"""All samplers through the library, on every backend."""

from collections.abc import Callable

import pytest

from edgert import LLM, SamplingParams, UnsupportedError

Open = Callable[..., LLM]
EVERYTHING = {
    "temperature": 1.4,
    "dynatemp_range": 0.4,
    "top_n_sigma": 2.5,
    "top_k": 0,
    "typical_p": 0.98,
    "top_p": 0.99,
    "min_p": 0.001,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.02,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.1,
    "dry_multiplier": 0.8,
    "dry_allowed_length": 1,
}
CHAINS = [
    EVERYTHING,
    {**EVERYTHING, "mirostat": 1, "mirostat_tau": 4.0},
    {**EVERYTHING, "mirostat": 2, "mirostat_tau": 4.0},
    {**EVERYTHING, "samplers": ("temperature", "xtc", "top_p", "dry", "penalties")},
]


def test_the_same_alone_and_in_company(open_tiny: Open) -> None:
    """Requests that devices could draw for are among them; the queue and preemption keep what samplers remember."""
    several = [SamplingParams(max_tokens=30, seed=seed, **chain) for seed, chain in enumerate(CHAINS)]
    several += [SamplingParams(max_tokens=30, seed=9, temperature=1.0), SamplingParams(max_tokens=30, temperature=0)]
    prompts = ["hello world", "hello", "world world world", "or", "hello world", "hello"]
    alone = open_tiny()
    wanted = [alone.generate(prompt, params).token_ids for prompt, params in zip(prompts, several, strict=True)]
    assert len(set(map(tuple, wanted))) == len(wanted)
    for options in ({"sequences": 6}, {"sequences": 2}):
        together = open_tiny(**options).generate(prompts, several)
        assert [completion.token_ids for completion in together] == wanted


def test_preemption_keeps_what_samplers_remember(open_tiny: Open) -> None:
    several = [SamplingParams(max_tokens=100, seed=seed, ignore_eos=True, **chain) for seed, chain in enumerate(CHAINS)]
    prompts = [[n] * 60 for n in range(4)]
    roomy, scarce = open_tiny(), open_tiny(sequences=4)
    wanted = [roomy.generate(*pair).token_ids for pair in zip(prompts, several, strict=True)]
    pool = scarce._engine._worker.scheduler.pool
    pool._free = pool._free[-18:]  # as if the pool had one context and a bit
    assert [completion.token_ids for completion in scarce.generate(prompts, several)] == wanted
    assert scarce.statistics().preemptions > 0


def test_dry_and_its_breakers(tiny: LLM) -> None:
    """A model that only ever says the same is moved on, unless a breaker lets it."""
    (again,) = tiny.tokenize("or", add_special=False)
    bias = {again: 30.0}
    plain = SamplingParams(max_tokens=20, temperature=0, logit_bias=bias)
    assert tiny.generate("hello", plain).token_ids == [again] * 20
    dry = {"dry_multiplier": 5.0, "dry_base": 2.0}
    moved = SamplingParams(max_tokens=20, temperature=0, logit_bias=bias, **dry)
    assert set(tiny.generate("hello", moved).token_ids) > {again}
    freed = SamplingParams(max_tokens=20, temperature=0, logit_bias=bias, dry_sequence_breakers=("or",), **dry)
    assert tiny.generate("hello", freed).token_ids == [again] * 20


def test_breakers_need_a_tokenizer(tiny: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny._opened, "tokenizer", None)
    with pytest.raises(UnsupportedError, match="has no tokenizer, so dry_sequence_breakers cannot be found"):
        tiny.generate([5, 6], SamplingParams(max_tokens=3, dry_multiplier=1.0))
    params = SamplingParams(max_tokens=3, dry_multiplier=1.0, dry_sequence_breakers=())
    assert len(tiny.generate([5, 6], params).token_ids) == 3


def test_the_first_tokens_do_not_end_it(tiny: LLM) -> None:
    bias = dict.fromkeys(tiny.tokenizer.stop_ids, 100.0)
    params = SamplingParams(temperature=0, max_tokens=9, min_tokens=4, logit_bias=bias)
    completion = tiny.generate("hello", params)
    assert len(completion.token_ids) == 5
    assert completion.finish_reason == "stop"


def test_log_probabilities_do_not_mind_samplers(tiny: LLM) -> None:
    params = SamplingParams(max_tokens=6, seed=2, logprobs=3, **EVERYTHING)
    completion = tiny.generate("hello", params)
    assert completion.logprobs is not None
    forced = tiny.logits([*tiny.tokenize("hello"), *completion.token_ids])
    for row, entry in zip(forced[-7:], completion.logprobs, strict=False):
        top = row.argsort()[::-1][:3]
        assert [token for token, _ in entry.top] == top.tolist()
