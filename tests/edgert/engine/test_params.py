import dataclasses
import math
import pickle

import pytest
from edgert_models.errors import RequestError

from edgert.engine.params import SamplingParams


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", True),
        ("max_tokens", 1.0),
        ("max_tokens", "7"),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", True),
        ("top_k", -1),
        ("top_k", False),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("typical_p", 2),
        ("typical_p", None),
        ("repetition_penalty", 0),
        ("repetition_penalty", math.nan),
        ("repeat_last_n", -2),
        ("frequency_penalty", 2.5),
        ("frequency_penalty", None),
        ("presence_penalty", -3),
        ("presence_penalty", math.nan),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", {1: math.inf}),
        ("logit_bias", {1: 101}),
        ("logit_bias", {-1: 1}),
        ("logit_bias", {"1": 1}),
        ("logit_bias", {True: 1}),
        ("logit_bias", [1]),
        ("min_tokens", -1),
        ("min_tokens", None),
        ("samplers", "top_k"),
        ("samplers", ["top_k", "best"]),
        ("samplers", ["top_k", "top_k"]),
        ("samplers", ["typ_p", "typical_p"]),
        ("samplers", [1]),
        ("samplers", None),
        ("dynatemp_range", -1),
        ("dynatemp_exponent", math.nan),
        ("top_n_sigma", -2),
        ("dry_multiplier", -0.1),
        ("dry_multiplier", None),
        ("dry_base", 0.9),
        ("dry_allowed_length", -1),
        ("dry_penalty_last_n", -2),
        ("dry_sequence_breakers", ["a", ""]),
        ("dry_sequence_breakers", ["x" * 41]),
        ("dry_sequence_breakers", 1),
        ("xtc_probability", 1.1),
        ("xtc_threshold", -0.1),
        ("mirostat", 3),
        ("mirostat", True),
        ("mirostat", 1.0),
        ("mirostat_tau", -1),
        ("mirostat_eta", 2),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", True),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", [1]),
        ("stop", None),
        ("stop", 5),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", [True]),
        ("stop_token_ids", "ab"),
        ("stop_token_ids", 3),
        ("logprobs", 21),
        ("logprobs", -1),
        ("logprobs", True),
        ("ignore_eos", 1),
        ("ignore_eos", None),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RequestError, match=name) as caught:
        SamplingParams(**{name: value})
    assert caught.value.parameter == name


def test_the_message_gives_range_and_value() -> None:
    with pytest.raises(RequestError, match=r"^top_p must be a number from 0 to 1, not 1\.5$"):
        SamplingParams(top_p=1.5)
    with pytest.raises(RequestError, match=r"^logprobs must be an integer from 0 to 20, not 21$"):
        SamplingParams(logprobs=21)
    with pytest.raises(RequestError, match=r"^max_tokens must be an integer from 1, not 0$"):
        SamplingParams(max_tokens=0)


def test_samplers_are_named() -> None:
    with pytest.raises(
        RequestError, match=r"^samplers: 'best' is none of penalties, dry, top_n_sigma, top_k, typical_p"
    ):
        SamplingParams(samplers=("best",))
    assert SamplingParams(samplers=["typ_p", "temp"]).samplers == ("typical_p", "temperature")
    assert SamplingParams(samplers=[]).samplers == ()


def test_fewest_and_most_tokens() -> None:
    assert SamplingParams(min_tokens=4, max_tokens=4).min_tokens == 4
    with pytest.raises(RequestError, match=r"^min_tokens is 5, above max_tokens, which is 4$"):
        SamplingParams(min_tokens=5, max_tokens=4)


def test_values_are_normalised_and_frozen() -> None:
    params = SamplingParams(stop="end", stop_token_ids=[3, 4], logit_bias={5: -100})  # type: ignore[arg-type]
    assert params.stop == ("end",)
    assert params.stop_token_ids == (3, 4)
    assert params.logit_bias == {5: -100.0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.seed = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(params)) == params
    assert dataclasses.asdict(params)["logit_bias"] == {5: -100.0}
    assert dataclasses.replace(params, seed=9).stop == ("end",)
    assert hash(SamplingParams(seed=1)) == hash(SamplingParams(seed=1))


def test_the_callers_bias_can_change_without_harm() -> None:
    bias = {5: 1.0}
    params = SamplingParams(logit_bias=bias)
    bias[5] = 9.0
    assert params.logit_bias == {5: 1.0}


def test_only_keywords() -> None:
    with pytest.raises(TypeError):
        SamplingParams(5)  # type: ignore[misc]
