"""Samplers with every step off but those asked for, and what they draw."""

from collections import Counter

import numpy as np
from hypothesis import strategies as st

from edgert.engine.params import SamplingParams
from edgert.engine.sampling import Breakers, Sampler
from edgert.engine.sampling.base import Candidates, Floats, every_id

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def sampler(
    vocabulary: int = 8,
    end_ids: tuple[int, ...] = (),
    breakers: Breakers | None = None,
    prompt: int = 0,
    **params: object,
) -> Sampler:
    made = SamplingParams(**{**OFF, **params})  # type: ignore[arg-type]
    return Sampler(made, vocabulary=vocabulary, end_ids=end_ids, breakers=breakers, prompt=prompt)


def logits_of(*probabilities: float) -> Floats:
    return np.log(np.array(probabilities, dtype=np.float64)).astype(np.float32)


def candidates(logits: Floats) -> Candidates:
    return Candidates(every_id(logits.size), logits)


def drawn(chosen: Sampler, logits: Floats, draws: int = 4000) -> dict[int, float]:
    """Shares of the tokens over many positions; position = length of the history, of tokens that logits do not have."""
    counts = Counter(chosen.choose(logits, [10**6] * position).token for position in range(draws))
    return {token: count / draws for token, count in sorted(counts.items())}


def near(shares: dict[int, float], wanted: dict[int, float]) -> bool:
    return shares.keys() == wanted.keys() and all(abs(shares[t] - wanted[t]) < 0.035 for t in wanted)


def softmax64(logits: Floats) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    return weights / weights.sum()


@st.composite
def rows(draw: st.DrawFn, most: int = 700) -> Floats:
    """Logits of a small or not so small vocabulary, flat or steep, some with equals and some with minus infinity."""
    size = draw(st.integers(1, most))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = generator.normal(0, draw(st.floats(0.05, 12)), size)
    if draw(st.booleans()):
        logits = np.round(logits, 1)
    if draw(st.booleans()):
        logits[generator.random(size) < 0.3] = -np.inf
        logits[generator.integers(size)] = 1.0
    return logits.astype(np.float32)
