"""What the device draws is what the host's sampler chooses."""

import numpy as np
import pytest
from edgert_runtimes.base import Draw

from edgert.engine.params import SamplingParams
from edgert.engine.sampling import Sampler

mx = pytest.importorskip("mlx.core", reason="the mlx package is not installed")
pytestmark = pytest.mark.mlx

from edgert_runtimes.mlx.forecast import Drawing  # noqa: E402

SIZE = 300


@pytest.mark.parametrize(
    "choices",
    [
        {"temperature": 0.0},
        {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 0.8},
        {"temperature": 2.0, "top_k": 5, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 1.5, "top_k": 0, "top_p": 0.7, "min_p": 0.0},
        {"temperature": 1.5, "top_k": 0, "top_p": 0.0, "min_p": 0.0},
        {"temperature": 1.2, "top_k": 0, "top_p": 1.0, "min_p": 0.2},
        {"temperature": 1.2, "top_k": 50, "top_p": 0.9, "min_p": 0.02},
    ],
    ids=str,
)
def test_samplers(choices: dict[str, float]) -> None:
    logits = np.random.default_rng(4).normal(0, 3, (400, SIZE)).astype(np.float32)
    sampler = Sampler(SamplingParams(seed=9, **choices), vocabulary=SIZE)  # type: ignore[arg-type]
    draws = [draw for position in range(len(logits)) if (draw := sampler.draw(position)) is not None]
    chosen = [sampler.choose(row, range(position)).token for position, row in enumerate(logits)]
    found, certain = map(np.asarray, Drawing().draw(mx.array(logits), draws))
    # A number at the border between two tokens may fall to either, float32 here, float64 there; but then it is told.
    assert ((certain == chosen) | (certain == -1)).all()
    assert ((certain == found) | (certain == -1)).all()
    assert (certain == -1).sum() <= 0.1 * len(certain)
    assert (found != chosen).sum() <= 1
    assert len(set(chosen)) > 50


def test_large_vocabularies() -> None:
    """Sums of many small numbers err most: what is called certain is right all the same."""
    logits = np.random.default_rng(5).normal(0, 2, (12, 40_000)).astype(np.float32)
    sampler = Sampler(SamplingParams(seed=9, temperature=0.7, top_k=0, top_p=0.95, min_p=0), vocabulary=40_000)
    draws = [draw for position in range(len(logits)) if (draw := sampler.draw(position)) is not None]
    chosen = np.array([sampler.choose(row, range(position)).token for position, row in enumerate(logits)])
    certain = np.asarray(Drawing().draw(mx.array(logits), draws)[1])
    assert (certain[certain >= 0] == chosen[certain >= 0]).all()


@pytest.mark.parametrize(
    ("logits", "draw"),
    [
        ([0, 0, 0, 0], Draw(1.0, number=0.5)),  # at a border
        ([2, 0, 0, -9], Draw(1.0, top_k=2, number=0.9)),  # equals, of which one is kept
        ([0, 0, -np.inf, -np.inf], Draw(1.0, top_p=0.5, number=0.1)),
        ([1, np.nan, 0, 0], Draw()),
        ([1, np.inf, 0, 0], Draw()),
        ([1, np.nan, 0, 0], Draw(1.0, number=0.3)),
        ([-np.inf] * 4, Draw(1.0, number=0.3)),
    ],
)
def test_what_float32_cannot_tell_is_left_open(logits: list[float], draw: Draw) -> None:
    tokens, certain = Drawing().draw(mx.array([logits], mx.float32), [draw])
    assert certain.tolist() == [-1]
    assert 0 <= tokens.item() < 4


def test_rows_have_samplers_of_their_own() -> None:
    logits = np.random.default_rng(4).normal(0, 3, (3, SIZE)).astype(np.float32)
    draws = [Draw(), Draw(1.0, number=0.999999), Draw(1.0, top_k=1, number=0.5)]
    first, second, third = np.asarray(Drawing().draw(mx.array(logits), draws)[0]).tolist()
    assert (first, third) == (logits[0].argmax(), logits[2].argmax())
    assert second > SIZE - 50


def test_samplers_that_look_at_more_than_logits_say_nothing() -> None:
    for params in (
        {"repetition_penalty": 1.1},
        {"logit_bias": {3: 1.0}},
        {"typical_p": 0.9},
        {"presence_penalty": 1.0},
    ):
        sampler = Sampler(SamplingParams(seed=1, **params), vocabulary=SIZE)  # type: ignore[arg-type]
        assert sampler.draw(3) is None
