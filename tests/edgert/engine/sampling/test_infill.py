"""The sampler for text between two others, against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from edgert.engine.params import SamplingParams
from edgert.engine.sampling import Sampler
from edgert.engine.sampling.base import Candidates
from edgert.engine.sampling.infill import Infill

PIECES = [b"", b"re", b"return", b"x", b"xy", b"ab", b"r", b"<end>", b"if", b"for"]
END = 7


def left(shares: dict[int, float], ends: tuple[int, ...] = (END,)) -> list[int]:
    """What stays of tokens with such probabilities, each with its own logit."""
    ids = np.array(sorted(shares))
    logits = np.log(np.array([shares[token] for token in sorted(shares)], dtype=np.float32))
    found = Infill(PIECES, np.array(ends, dtype=np.int64))(Candidates(ids, logits), [1])
    own = dict(zip(ids.tolist(), logits.tolist(), strict=True))
    assert found.logits.tolist() == [own.get(token, 0.0) for token in found.ids.tolist()]
    return [int(token) for token in found.ids]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({3: 0.5, 5: 0.3, END: 0.2}, [END]),  # 0.2 of ends, times three times three, is more than 0.8
        ({3: 0.9, 5: 0.09, END: 0.01}, [3, END]),
        ({1: 0.3, 2: 0.4, 3: 0.29, END: 0.01}, [2, END]),  # "re" is counted as "return", and 0.29 is no third
        ({3: 0.5, 5: 0.499, END: 0.001}, [3, 5, END]),  # both reach a third
        ({6: 0.1, 1: 0.15, 3: 0.35, 5: 0.4}, [1, 3, 5]),  # "r" and "re" reach a quarter together
        ({0: 0.6, 5: 0.4}, [0, 5]),  # what has no text begins nothing
        ({2: 0.19, 4: 0.19, 5: 0.19, 8: 0.19, 9: 0.19, 0: 0.04, END: 0.001}, [END]),  # in doubt
        ({2: 0.19, 4: 0.19, 5: 0.19, 8: 0.19, 9: 0.19, 0: 0.05}, [END]),  # even where it was cut away
    ],
)
def test_what_stays(shares: dict[int, float], expected: list[int]) -> None:
    assert left(shares) == expected


def test_a_model_without_ends() -> None:
    assert left({2: 0.19, 4: 0.19, 5: 0.19, 8: 0.19, 9: 0.19, 0: 0.05}, ends=()) == [0, 2, 4, 5, 8, 9]


def test_it_is_one_of_the_chain() -> None:
    logits = np.full(len(PIECES), -20.0, np.float32)
    logits[[1, 2, 3]] = np.log([0.3, 0.4, 0.3])
    for seed in range(5):
        params = SamplingParams(samplers=["top_k", "infill"], top_k=40, seed=seed)
        sampler = Sampler(params, vocabulary=len(PIECES), end_ids={END}, pieces=PIECES)
        assert sampler.choose(logits, [1]).token == 2
        assert sampler.draw(1) is None
    greedy = SamplingParams(samplers=["infill", "temperature"], temperature=0.0)
    assert Sampler(greedy, vocabulary=len(PIECES), end_ids={END}, pieces=PIECES).choose(logits, [1]).token == 2
