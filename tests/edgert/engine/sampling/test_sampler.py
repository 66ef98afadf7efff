"""The chain as a whole: order, what may not come, seeds, log-probabilities, forecasts for devices."""

import numpy as np
import pytest
from edgert_models.errors import BackendError, RequestError
from edgert_runtimes.base import Draw
from hypothesis import given, settings

from edgert.engine.params import ALL_SAMPLERS, SamplingParams
from edgert.engine.sampling import Breakers, Sampler, uniform
from edgert.engine.sampling.registry import STEPS
from tests.edgert.engine.sampling.support import drawn, logits_of, near, rows, sampler

EVERYTHING = {
    "temperature": 0.9,
    "dynatemp_range": 0.4,
    "top_n_sigma": 3.0,
    "top_k": 30,
    "typical_p": 0.98,
    "top_p": 0.97,
    "min_p": 0.001,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.1,
    "dry_multiplier": 0.5,
}


def test_every_name_has_a_step() -> None:
    assert set(STEPS) == set(ALL_SAMPLERS)


def test_draws_follow_the_distribution() -> None:
    logits = logits_of(0.5, 0.25, 0.15, 0.1)
    assert near(drawn(sampler(4, seed=1), logits), {0: 0.5, 1: 0.25, 2: 0.15, 3: 0.1})


def test_temperature_sharpens_and_flattens() -> None:
    logits = logits_of(0.8, 0.2)
    assert near(drawn(sampler(2, seed=1, temperature=0.5), logits), {0: 16 / 17, 1: 1 / 17})
    assert near(drawn(sampler(2, seed=1, temperature=2.0), logits), {0: 2 / 3, 1: 1 / 3})


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = np.array([1.0, 3.0, 3.0, 2.0], dtype=np.float32)
    assert sampler(4, temperature=0).choose(logits, []).token == 1


def test_top_k() -> None:
    logits = logits_of(0.1, 0.4, 0.2, 0.3)
    assert near(drawn(sampler(4, seed=2, top_k=2), logits), {1: 4 / 7, 3: 3 / 7})
    assert drawn(sampler(4, seed=2, top_k=1), logits) == {1: 1.0}
    assert len(drawn(sampler(4, seed=2, top_k=400), logits)) == 4


def test_top_p_keeps_the_fewest_that_reach_p() -> None:
    logits = logits_of(0.1, 0.4, 0.2, 0.3)
    assert near(drawn(sampler(4, seed=3, top_p=0.6), logits), {1: 4 / 7, 3: 3 / 7})
    assert drawn(sampler(4, seed=3, top_p=0.35), logits) == {1: 1.0}
    assert drawn(sampler(4, seed=3, top_p=0.0), logits) == {1: 1.0}


def test_top_p_counts_what_top_k_left() -> None:
    # Of 0.4 and 0.3 the first is 4/7 = 0.571 of what is left.
    assert drawn(sampler(4, seed=3, top_k=2, top_p=0.55), logits_of(0.1, 0.4, 0.2, 0.3)) == {1: 1.0}


def test_top_p_before_temperature() -> None:
    # At temperature 4 the four would be nearly equal; the cut is made before.
    shares = drawn(sampler(4, seed=3, top_p=0.6, temperature=4.0), logits_of(0.1, 0.4, 0.2, 0.3))
    assert set(shares) == {1, 3}


def test_min_p() -> None:
    logits = logits_of(0.1, 0.4, 0.2, 0.3)
    assert set(drawn(sampler(4, seed=4, min_p=0.6), logits)) == {1, 3}
    assert set(drawn(sampler(4, seed=4, min_p=1.0), logits)) == {1}


def test_the_order_matters() -> None:
    logits = logits_of(0.4, 0.3, 0.2, 0.1)
    # At temperature 4 the four are nearly equal: the cut keeps two before it, and three after it.
    assert set(drawn(sampler(4, seed=1, top_p=0.6, temperature=4.0), logits)) == {0, 1}
    after = sampler(4, seed=1, top_p=0.6, temperature=4.0, samplers=("temperature", "top_p"))
    assert set(drawn(after, logits)) == {0, 1, 2}
    # Of all, 0.7 are the first two; of the three likeliest, the first alone is 0.44, with the second 0.78.
    assert set(drawn(sampler(4, seed=1, top_k=3, top_p=0.75), logits)) == {0, 1}
    assert set(drawn(sampler(4, seed=1, top_k=3, top_p=0.75, samplers=("top_p", "top_k")), logits)) == {0, 1, 2}


def test_what_is_not_named_is_not_done() -> None:
    logits = logits_of(0.4, 0.3, 0.2, 0.1)
    none = sampler(4, seed=1, samplers=(), **{**EVERYTHING, "top_k": 1})
    assert near(drawn(none, logits), {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1})
    assert near(drawn(sampler(4, seed=1, samplers=(), temperature=0), logits), {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1})


@settings(max_examples=60, deadline=None)
@given(rows())
def test_greedy_is_the_likeliest_whatever_else_is_asked(logits: np.ndarray) -> None:
    cuts = {**EVERYTHING, "temperature": 0, "dynatemp_range": 0, "repetition_penalty": 1.0, "presence_penalty": 0}
    for extra in ({}, {"mirostat": 1}, {"mirostat": 2}, {"samplers": ("xtc", "temperature")}):
        made = sampler(logits.size, **{**cuts, "xtc_probability": 1.0, **extra})
        assert made.choose(logits, [0, 1, 2]).token == int(logits.argmax())
    assert sampler(logits.size, temperature=0).draw(3) == Draw()


def test_greedy_minds_penalties_and_dry() -> None:
    logits = np.array([1.0, 1.5, 0.0], dtype=np.float32)
    assert sampler(3, temperature=0, presence_penalty=1.0).choose(logits, [1]).token == 0
    assert sampler(3, temperature=0, dry_multiplier=1.0, dry_allowed_length=1).choose(logits, [2, 1, 2]).token == 0
    assert sampler(3, temperature=0, presence_penalty=1.0, samplers=("temperature",)).choose(logits, [1]).token == 1


def test_dynamic_temperature_around_zero_is_not_greedy() -> None:
    shares = drawn(sampler(2, seed=1, temperature=0, dynatemp_range=2.0), logits_of(0.5, 0.5))
    assert near(shares, {0: 0.5, 1: 0.5})


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_takes_the_place_of_the_cuts(version: int) -> None:
    logits = np.zeros(50, dtype=np.float32)
    made = sampler(50, seed=1, mirostat=version, mirostat_tau=8.0, **{**EVERYTHING, "top_k": 1, "dry_multiplier": 0})
    assert len({made.choose(logits, [10**6] * position).token for position in range(400)}) > 40
    low = sampler(50, seed=1, mirostat=version, mirostat_tau=0.01, mirostat_eta=0.0)
    falling = np.linspace(0, -20, 50, dtype=np.float32)
    assert {low.choose(falling, [0] * position).token for position in range(100)} == {0}


def test_the_same_seed_is_the_same_text_with_everything_on() -> None:
    """With memory of penalties and DRY, XTC's own numbers, and mirostat's mu."""

    def text(seed: int, **extra: object) -> list[int]:
        made = sampler(
            40, seed=seed, breakers=Breakers.find(["d"], [b"d"] * 4 + [b"x"] * 36), **{**EVERYTHING, **extra}
        )
        tokens = [1, 2, 3, 1, 2]
        for step in range(60):
            logits = np.random.default_rng(step).normal(0, 2, 40).astype(np.float32)
            tokens.append(made.choose(logits, tokens).token)
        return tokens

    for extra in ({}, {"mirostat": 1}, {"mirostat": 2}):
        assert text(4, **extra) == text(4, **extra)
        assert text(4, **extra) != text(5, **extra)


def test_logit_bias_and_forbidden_end() -> None:
    logits = np.array([5.0, 4.0, 0.0], dtype=np.float32)
    assert sampler(3, temperature=0, logit_bias={2: 100}).choose(logits, []).token == 2
    assert sampler(3, temperature=0, end_ids=(0,)).choose(logits, []).token == 0
    assert sampler(3, temperature=0, end_ids=(0,), ignore_eos=True).choose(logits, []).token == 1
    assert logits.tolist() == [5.0, 4.0, 0.0]


def test_the_first_tokens_do_not_end_the_answer() -> None:
    logits = np.array([5.0, 4.0, 3.0, 0.0], dtype=np.float32)
    made = sampler(4, temperature=0, end_ids=(0,), stop_token_ids=[1], min_tokens=2, prompt=3)
    assert [made.choose(logits, [3] * length).token for length in (3, 4, 5, 6)] == [2, 2, 0, 0]


def test_nothing_left_to_choose_is_an_error() -> None:
    logits = np.array([1.0, -np.inf], dtype=np.float32)
    with pytest.raises(BackendError, match="no token is left"):
        sampler(2, end_ids=(0,), ignore_eos=True).choose(logits, [])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_logits_are_an_error(bad: float) -> None:
    logits = np.array([1.0, bad, 0.0], dtype=np.float32)
    with pytest.raises(BackendError, match="position 2 are not finite"):
        sampler(3).choose(logits, [0, 0])


def test_masked_logits_are_fine() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf], dtype=np.float32)
    assert sampler(3, seed=1).choose(logits, []).token == 1


@pytest.mark.parametrize(("name", "value"), [("logit_bias", {8: 1.0}), ("stop_token_ids", [8])])
def test_ids_outside_the_vocabulary_are_refused(name: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"{name}: token 8 is outside the vocabulary of 8"):
        sampler(8, **{name: value})


def test_logprobs_are_of_the_raw_distribution() -> None:
    logits = logits_of(0.5, 0.25, 0.15, 0.1)
    made = sampler(4, temperature=0, logit_bias={3: 50.0}, logprobs=2)
    choice = made.choose(logits, [])
    assert choice.token == 3
    assert choice.logprob == pytest.approx(np.log(0.1), abs=1e-5)
    assert [token for token, _ in choice.top] == [0, 1]
    assert [value for _, value in choice.top] == pytest.approx(np.log([0.5, 0.25]), abs=1e-5)
    assert sampler(4, logprobs=0).choose(logits, []).top == ()
    assert len(sampler(4, logprobs=20).choose(logits, []).top) == 4


def test_model_defaults_then_llama_cpps() -> None:
    made = Sampler(SamplingParams(top_p=0.5), vocabulary=9, defaults={"temperature": 0.6, "top_p": 0.7})
    found = made.settings
    assert (found.temperature, found.top_p, found.top_k, found.min_p) == (0.6, 0.5, 40, 0.05)


def test_seeds() -> None:
    assert sampler(seed=5).seed == 5
    assert Sampler(SamplingParams(), vocabulary=9, seed=7).seed == 7
    assert Sampler(SamplingParams(seed=6), vocabulary=9, seed=7).seed == 6
    assert sampler().seed != sampler().seed


def test_random_numbers_are_a_function_of_seed_and_position() -> None:
    # Fixed figures: a saved seed must give the same answer in later versions.
    assert [uniform(1, p) for p in (0, 1, 2)] == [0.3035680343067586, 0.35811448402596147, 0.9456775220595027]
    assert uniform(2**64 - 1, 0) != uniform(1, 0)


def test_every_use_has_numbers_of_its_own() -> None:
    assert len({uniform(1, 0, use) for use in range(3)}) == 3


def test_what_devices_can_draw() -> None:
    made = sampler(100, seed=1, temperature=0.7, top_k=20, top_p=0.9, min_p=0.1)
    assert made.draw(5) == Draw(0.7, 20, 0.9, 0.1, uniform(1, 5))
    assert sampler(100, seed=1).draw(5) == Draw(1.0, 0, 1.0, 0.0, uniform(1, 5))
    assert sampler(100, seed=1, samplers=("top_k",), top_k=9, top_p=0.5).draw(5) == Draw(
        1.0, 9, 1.0, 0.0, uniform(1, 5)
    )


@pytest.mark.parametrize(
    "params",
    [
        {"logit_bias": {1: 1.0}},
        {"repetition_penalty": 1.1},
        {"temperature": 0, "presence_penalty": 1.0},
        {"temperature": 0, "logit_bias": {1: 1.0}},
        {"dry_multiplier": 0.8},
        {"top_n_sigma": 1.0},
        {"typical_p": 0.9},
        {"xtc_probability": 0.5},
        {"dynatemp_range": 0.5},
        {"mirostat": 1},
        {"mirostat": 2},
        {"samplers": ("top_p", "top_k"), "top_k": 5, "top_p": 0.5},
        {"samplers": ("temperature", "top_p"), "temperature": 0.5, "top_p": 0.5},
    ],
    ids=str,
)
def test_what_devices_cannot_draw(params: dict[str, object]) -> None:
    assert sampler(100, seed=1, **params).draw(5) is None
