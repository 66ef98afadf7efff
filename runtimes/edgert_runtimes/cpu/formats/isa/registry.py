"""Which instruction sets there are, and which one is used."""

from __future__ import annotations

import os
from functools import cache

from edgert_models.errors import BackendError, RequestError
from edgert_quant.jit import Target, host

from edgert_runtimes.cpu.formats.isa.arm import NeonDot, NeonMixedDot
from edgert_runtimes.cpu.formats.isa.base import Isa
from edgert_runtimes.cpu.formats.isa.portable import Portable
from edgert_runtimes.cpu.formats.isa.x86 import Avx2, Avx512, Avx512Vnni, AvxVnni

VARIABLE = "EDGERT_CPU"

ISAS: tuple[Isa, ...] = (
    Avx512Vnni(),
    Avx512(),
    AvxVnni(),
    Avx2(),
    NeonMixedDot(),
    NeonDot(),
    Portable(),
)
"""Best first."""


def available() -> tuple[Isa, ...]:
    """The instruction sets this CPU runs, best first."""
    return tuple(isa for isa in ISAS if isa.runs_on(host()))


def host_isa() -> Isa:
    """The instruction set to use here: the best, or the one that EDGERT_CPU names."""
    return _chosen(forced_isa(), host())


def forced_isa() -> str:
    """What EDGERT_CPU says, in lower case; empty where it says nothing."""
    return os.environ.get(VARIABLE, "").strip().lower()


def why_not(isa: Isa) -> str:
    """What this CPU lacks for an instruction set; empty where it runs it."""
    target = host()
    missing = isa.lacking(target)
    if missing == (isa.architecture,):
        return f"is for {isa.architecture}"
    return f"lacks {', '.join(missing)}" if missing else ""


@cache
def _chosen(name: str, target: Target) -> Isa:
    if not name:
        return available()[0]
    for isa in ISAS:
        if isa.name == name:
            if not isa.runs_on(target):
                raise BackendError(f"{VARIABLE}={name}: this CPU ({target.cpu}) has no {name}; it runs {_names()}")
            return isa
    raise RequestError(f"{VARIABLE}={name} is unknown; this CPU runs {_names()}", parameter=VARIABLE)


def _names() -> str:
    return ", ".join(isa.name for isa in available())
