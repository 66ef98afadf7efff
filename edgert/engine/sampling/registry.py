"""All steps by name, and the chain that a request asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from edgert.engine.sampling.base import Pick, Settings, Step
from edgert.engine.sampling.dry import dry
from edgert.engine.sampling.infill import infill
from edgert.engine.sampling.penalties import penalties
from edgert.engine.sampling.picks import Mirostat, Mirostat1, weighted
from edgert.engine.sampling.temperature import Temperature, temperature
from edgert.engine.sampling.truncation import min_p, top_k, top_n_sigma, top_p, typical_p, xtc

STEPS: Mapping[str, Callable[[Settings], Step | None]] = MappingProxyType(
    {
        "penalties": penalties,
        "dry": dry,
        "top_n_sigma": top_n_sigma,
        "top_k": top_k,
        "typical_p": typical_p,
        "top_p": top_p,
        "min_p": min_p,
        "xtc": xtc,
        "temperature": temperature,
        "infill": infill,
    }
)
"""What makes a step of a request's settings, or says with None that there is nothing to do."""

_ADJUSTMENTS = ("penalties", "dry", "infill")
"""What can make another token the likeliest, and holds whatever the rest of the chain is."""


def chain(settings: Settings) -> tuple[list[tuple[str, Step]], Pick]:
    """The steps, by name and in order, and the pick at their end.

    With temperature 0 only the adjustments matter. Mirostat takes the place of all but these and a fixed temperature.
    """
    params = settings.params
    names = list(params.samplers)
    pick: Pick = weighted
    if params.mirostat or is_greedy(settings):
        names = [name for name in names if name in _ADJUSTMENTS]
    made = [(name, step) for name in names if (step := STEPS[name](settings)) is not None]
    if is_greedy(settings):
        made.append(("temperature", Temperature(0.0)))
    elif params.mirostat:
        made.append(("temperature", Temperature(settings.temperature)))
        tau, eta = params.mirostat_tau, params.mirostat_eta
        pick = Mirostat(tau, eta) if params.mirostat == 2 else Mirostat1(tau, eta, settings.vocabulary)
    return made, pick


def is_greedy(settings: Settings) -> bool:
    """Whether the chain always takes the likeliest token after the adjustments."""
    if settings.temperature > 0.0:
        return False
    fixed = settings.params.dynatemp_range == 0.0 and "temperature" in settings.params.samplers
    return fixed or settings.params.mirostat != 0
