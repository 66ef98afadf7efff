"""Temperature, fixed and dynamic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgert.engine.sampling.base import Candidates, Settings, Step
from edgert.engine.sampling.shares import entropy, softmax


@dataclass(frozen=True, slots=True)
class Temperature:
    """Divides the logits; at 0, only the largest is kept, the lowest id of equals. The largest becomes 0, which changes
    nothing but that nothing can overflow.
    """

    temperature: float

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        if np.float32(self.temperature) == 0.0:  # also what is too little to divide by
            return candidates.keep(np.array([candidates.best()]))
        logits = candidates.logits
        with np.errstate(over="ignore"):  # what is out of reach may become minus infinity
            scaled = (logits - logits.max()) / np.float32(self.temperature)
        return Candidates(candidates.ids, scaled)


@dataclass(frozen=True, slots=True)
class DynamicTemperature:
    """Temperature from `low` to `high` as the distribution's entropy is from 0 to the largest possible, that of equal
    probabilities: low + (high - low) * (entropy / log n)^exponent, as llama.cpp has it.
    """

    low: float
    high: float
    exponent: float

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        size = candidates.ids.size
        if size < 2:
            return candidates
        spread = min(entropy(softmax(candidates.logits)) / math.log(size), 1.0)
        temperature = self.low + (self.high - self.low) * float(spread**self.exponent)
        return Temperature(temperature)(candidates, tokens)


def temperature(settings: Settings) -> Step | None:
    """Temperature or DynamicTemperature, where it does something."""
    middle, reach = settings.temperature, settings.params.dynatemp_range
    if reach > 0.0:
        return DynamicTemperature(max(0.0, middle - reach), middle + reach, settings.params.dynatemp_exponent)
    return None if middle == 1.0 else Temperature(middle)
