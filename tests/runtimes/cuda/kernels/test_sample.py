"""Tokens chosen on the device are those that the engine's sampler chooses."""

from typing import Any

import numpy as np
import pytest
from edgert_runtimes.cuda.kernels import catalogue

from edgert.engine.params import SamplingParams
from edgert.engine.sampling import Sampler, uniform
from tests.support.cuda_host import HostKernels


@pytest.fixture(scope="module")
def host() -> HostKernels:
    return HostKernels([catalogue.argmax(), catalogue.sample()])


def argmax(host: HostKernels, logits: np.ndarray) -> tuple[list[int], list[int]]:
    tokens, certain = (np.full(len(logits), -9, np.int32) for _ in range(2))
    sizes = {"rows": len(logits), "vocabulary": logits.shape[1]}
    host.launch(catalogue.argmax(), logits=logits, tokens=tokens, certain=certain, **sizes)
    return tokens.tolist(), certain.tolist()


@pytest.mark.parametrize("vocabulary", [1, 2, 96, 1024, 5000])
def test_argmax(host: HostKernels, vocabulary: int) -> None:
    logits = np.random.default_rng(vocabulary).standard_normal((5, vocabulary), dtype=np.float32)
    logits[1] = np.round(logits[1])
    logits[2] = -np.abs(logits[2])
    logits[3] = 0
    assert argmax(host, logits) == (logits.argmax(axis=1).tolist(),) * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_argmax_tells_of_what_is_not_finite(host: HostKernels, bad: float) -> None:
    logits = np.zeros((2, 3000), np.float32)
    logits[1, 2345] = bad
    assert argmax(host, logits)[1] == [0, -1]


def sample(host: HostKernels, logits: np.ndarray, counts: list[int], **params: Any) -> tuple[list[int], list[int]]:
    rows, vocabulary = logits.shape
    tokens, certain = (np.full(rows, -9, np.int32) for _ in range(2))
    host.launch(
        catalogue.sample(),
        logits=logits,
        temperatures=np.full(rows, params["temperature"], np.float32),
        top_ks=np.full(rows, params["top_k"], np.int32),
        top_ps=np.full(rows, params["top_p"], np.float32),
        min_ps=np.full(rows, params["min_p"], np.float32),
        numbers=params.get("numbers", np.array([uniform(params["seed"], count) for count in counts])),
        tokens=tokens,
        certain=certain,
        rows=rows,
        vocabulary=vocabulary,
    )
    return tokens.tolist(), certain.tolist()


def params(**changes: Any) -> dict[str, Any]:
    return {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7, **changes}


CASES = [
    params(),
    params(temperature=0.0),
    params(temperature=0.3),
    params(temperature=5.0),
    params(top_k=1),
    params(top_k=7),
    params(top_k=40, top_p=0.95, min_p=0.05, temperature=0.8),
    params(top_p=0.5003),  # half of equal tokens would be a border that rounding decides
    params(top_p=0.0),
    params(top_p=0.999),
    params(min_p=0.2, temperature=2.0),
    params(top_k=301, top_p=0.9, seed=2**63 + 5),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ",".join(map(str, case.values())))
@pytest.mark.parametrize("kind", ["normal", "peaked", "ties", "flat", "negative"])
def test_same_tokens_as_the_engine(host: HostKernels, kind: str, case: dict[str, Any]) -> None:
    vocabulary, rows = 2500, 6
    logits = np.random.default_rng(3).standard_normal((rows, vocabulary), dtype=np.float32)
    if kind == "peaked":
        logits *= 8
    elif kind == "ties":
        logits = np.round(2 * logits) / 2
    elif kind == "flat":
        logits[:] = 1.5
    elif kind == "negative":
        logits = -np.abs(4 * logits) - 3
    counts = [0, 1, 5, 100, 4095, 131072]
    sampler = Sampler(SamplingParams(**case), vocabulary=vocabulary)
    expected = [sampler.choose(row, range(count)).token for row, count in zip(logits, counts, strict=True)]
    assert_draws(sample(host, logits, counts, **case), expected, most_open=6 if kind == "flat" else 1)


def assert_draws(found: tuple[list[int], list[int]], expected: list[int], most_open: int = 1) -> None:
    """All are as expected, and few of them open: among equals, those that a share of .95 cuts."""
    tokens, certain = found
    assert tokens == expected
    assert all(token in (wanted, -1) for token, wanted in zip(certain, expected, strict=True))
    assert certain.count(-1) <= most_open


def test_what_float32_cannot_tell_is_left_open(host: HostKernels) -> None:
    """A number at the border of two tokens, and a share that ends with one."""
    logits = np.zeros((4, 2), np.float32)
    drawn = sample(host, logits, [0] * 4, **params(), numbers=np.array([0.25, 0.5, 0.5 + 1e-7, 0.75]))
    assert drawn[1] == [0, -1, -1, 1]
    logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    certain = [sample(host, logits, [0], **params(top_p=share))[1][0] for share in (0.5, 0.6)]
    assert (certain[0], certain[1] >= 0) == (-1, True)


def test_small_vocabularies(host: HostKernels) -> None:
    for vocabulary in (1, 2, 33):
        logits = np.random.default_rng(1).standard_normal((2, vocabulary), dtype=np.float32)
        case = params(top_k=5, top_p=0.9)
        sampler = Sampler(SamplingParams(**case), vocabulary=vocabulary)
        expected = [sampler.choose(row, range(3)).token for row in logits]
        assert_draws(sample(host, logits, [3, 3], **case), expected)


def test_sample_tells_of_what_is_not_finite(host: HostKernels) -> None:
    logits = np.zeros((1, 50), np.float32)
    logits[0, 3] = np.nan
    assert sample(host, logits, [1], **params())[1] == [-1]
    assert sample(host, np.full((1, 50), -np.inf, np.float32), [1], **params())[1] == [-1]


def test_forbidden_tokens_are_not_drawn(host: HostKernels) -> None:
    logits = np.full((1, 50), -np.inf, np.float32)
    logits[0, [4, 9]] = 1.0, 1.5
    drawn = {sample(host, logits, [count], **params(top_p=0.99))[0][0] for count in range(12)}
    assert drawn == {4, 9}
