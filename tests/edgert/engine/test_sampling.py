from collections import Counter

import numpy as np
import pytest
from edgert_models.errors import BackendError, RequestError
from hypothesis import given, settings
from hypothesis import strategies as st

from edgert.engine.params import SamplingParams
from edgert.engine.sampling import Sampler, _until, likeliest, uniform

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def sampler(vocabulary: int = 8, end_ids: tuple[int, ...] = (), **params: object) -> Sampler:
    return Sampler(SamplingParams(**{**OFF, **params}), vocabulary=vocabulary, end_ids=end_ids)  # type: ignore[arg-type]


def logits_of(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities, dtype=np.float64)).astype(np.float32)


def drawn(chosen: Sampler, logits: np.ndarray, draws: int = 4000) -> dict[int, float]:
    """Shares of the tokens over many positions; position = length of the history."""
    counts = Counter(chosen._draw(chosen._adjust(logits, []), position) for position in range(draws))
    return {token: count / draws for token, count in sorted(counts.items())}


def near(shares: dict[int, float], wanted: dict[int, float]) -> bool:
    return shares.keys() == wanted.keys() and all(abs(shares[t] - wanted[t]) < 0.035 for t in wanted)


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


def test_top_k_takes_the_lower_ids_of_equals() -> None:
    logits = np.array([1, 2, 2, 2, 2, 0], dtype=np.float32)
    assert likeliest(logits, 2).tolist() == [1, 2]
    assert likeliest(logits, 5).tolist() == [0, 1, 2, 3, 4]
    assert likeliest(logits, 0).tolist() == []


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


def test_top_p_of_a_flat_distribution() -> None:
    flat = sampler(5000, seed=3, top_p=0.4999)
    tokens = {flat._draw(np.zeros(5000, dtype=np.float32), position) for position in range(3000)}
    assert 2400 < max(tokens) < 2500
    assert len(tokens) > 1500


def test_top_p_of_nearly_one_keeps_all_but_the_negligible() -> None:
    made = sampler(300, top_p=np.nextafter(1.0, 0))
    logits = np.linspace(0, -5, 300, dtype=np.float32)
    logits[7] = -np.inf
    tokens = {made._draw(logits, position) for position in range(6000)}
    assert 7 not in tokens
    assert len(tokens) > 250


def test_min_p() -> None:
    logits = logits_of(0.1, 0.4, 0.2, 0.3)
    assert set(drawn(sampler(4, seed=4, min_p=0.6), logits)) == {1, 3}
    assert set(drawn(sampler(4, seed=4, min_p=1.0), logits)) == {1}


def test_typical_keeps_what_surprises_as_expected() -> None:
    # Entropy of (0.9, 0.05, 0.05) is 0.394 nats: surprise 0.105 is nearer to it than 2.996, so the first comes first;
    # of (0.4, 0.3, 0.2, 0.1) it is 1.280, nearest to the surprise 1.204 of the second token.
    assert set(drawn(sampler(3, seed=5, typical_p=0.5), logits_of(0.9, 0.05, 0.05))) == {0}
    assert set(drawn(sampler(4, seed=5, typical_p=0.25), logits_of(0.4, 0.3, 0.2, 0.1))) == {1}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 700),
    st.integers(0, 2**32),
    st.floats(0.05, 0.999),
    st.floats(0.0, 0.9),
    st.integers(0, 40),
)
def test_truncation_against_the_plain_definition(
    vocabulary: int, seed: int, top_p: float, min_p: float, top_k: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, vocabulary).astype(np.float32)
    order = sorted(range(vocabulary), key=lambda i: (-logits[i], i))[: top_k or vocabulary]
    weights = np.exp(logits[order].astype(np.float64) - logits.max())
    heights = np.cumsum(weights / weights.sum())
    kept = order[: int(np.searchsorted(heights, top_p)) + 1]
    allowed = {i for i in kept if logits[i] >= logits.max() + (np.log(min_p) if min_p else -np.inf) - 1e-6}
    made = sampler(vocabulary, seed=seed, top_p=top_p, min_p=min_p, top_k=top_k)
    assert {made._draw(logits, position) for position in range(50)} <= allowed


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 900), st.integers(0, 2**32), st.floats(0.1, 30), st.floats(0.01, 0.99), st.booleans())
def test_a_cut_keeps_exactly_the_fewest(size: int, seed: int, spread: float, p: float, strictly: bool) -> None:
    generator = np.random.default_rng(seed)
    order = np.round(generator.normal(0, spread, size), 1)  # rounded: there are equals
    probabilities = generator.random(size) + 1e-3
    probabilities /= probabilities.sum()
    ranked = sorted(range(size), key=lambda i: (-order[i], i))
    heights = np.cumsum(probabilities[ranked])
    if np.abs(heights - p).min() > 1e-9:
        count = int((heights < p).sum()) + 1
        assert _until(probabilities, order, p, strictly=strictly).tolist() == sorted(ranked[:count])


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    made = sampler(4, repetition_penalty=2.0)
    adjusted = made._adjust(np.array([4.0, -4.0, 1.0, 3.0], dtype=np.float32), [0, 1, 1])
    assert adjusted.tolist() == [2.0, -8.0, 1.0, 3.0]


def test_frequency_counts_and_presence_does_not() -> None:
    made = sampler(4, frequency_penalty=0.5, presence_penalty=0.25)
    adjusted = made._adjust(np.zeros(4, dtype=np.float32), [1, 1, 1, 2])
    assert adjusted.tolist() == [0.0, -1.75, -0.75, 0.0]


@pytest.mark.parametrize(
    ("last_n", "penalised"), [(0, []), (1, [3]), (2, [2, 3]), (-1, [0, 1, 2, 3]), (64, [0, 1, 2, 3])]
)
def test_penalties_look_at_the_last_n(last_n: int, penalised: list[int]) -> None:
    made = sampler(5, presence_penalty=1.0, repeat_last_n=last_n)
    adjusted = made._adjust(np.zeros(5, dtype=np.float32), [0, 1, 2, 3])
    assert np.flatnonzero(adjusted).tolist() == penalised


def test_logit_bias_and_forbidden_end() -> None:
    logits = np.array([5.0, 4.0, 0.0], dtype=np.float32)
    assert sampler(3, temperature=0, logit_bias={2: 100}).choose(logits, []).token == 2
    assert sampler(3, temperature=0, end_ids=(0,)).choose(logits, []).token == 0
    assert sampler(3, temperature=0, end_ids=(0,), ignore_eos=True).choose(logits, []).token == 1
    assert logits.tolist() == [5.0, 4.0, 0.0]


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
    assert (made.temperature, made.top_p, made.top_k, made.min_p) == (0.6, 0.5, 40, 0.05)


def test_seeds() -> None:
    assert sampler(seed=5).seed == 5
    assert Sampler(SamplingParams(), vocabulary=9, seed=7).seed == 7
    assert Sampler(SamplingParams(seed=6), vocabulary=9, seed=7).seed == 6
    assert sampler().seed != sampler().seed


def test_random_numbers_are_a_function_of_seed_and_position() -> None:
    # Fixed figures: a saved seed must give the same answer in later versions.
    assert [uniform(1, p) for p in (0, 1, 2)] == [0.3035680343067586, 0.35811448402596147, 0.9456775220595027]
    assert uniform(2**64 - 1, 0) != uniform(1, 0)
