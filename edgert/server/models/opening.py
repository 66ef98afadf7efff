"""Opening models side by side in one budget of memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgert_models.errors import MemoryBudgetError
from edgert_quant.files import human_bytes
from edgert_runtimes.memory import available_memory

from edgert import LLM
from edgert.server.models.catalogue import Entry
from edgert.server.models.fleet import OpenModel

SHARE = 3 << 29
"""Bytes of cache and workspace that a model takes where it can do with them: others need some too."""

MAPPING = ("cpu", "reference")
"""Backends whose weights stay in the file; what they call memory is without them."""


def opener(options: Mapping[str, Any], backend: str) -> OpenModel:
    """Opens models with these options of LLM, on that backend."""

    def open_model(entry: Entry, memory: int | None) -> LLM:
        if memory is None or backend not in MAPPING:
            return LLM(entry.path, memory=None if memory is None else max(1, memory), **options)
        size = entry.description().size
        room = memory - size
        if room <= 0:
            reason = f"{entry.name!r} has {human_bytes(size)} of weights, and {human_bytes(max(0, memory))} are left"
            raise MemoryBudgetError(f"{reason} for models (--memory)", needed=size, available=memory)
        try:
            return LLM(entry.path, memory=min(room, SHARE), **options)
        except MemoryBudgetError:
            if room <= SHARE:
                raise
            return LLM(entry.path, memory=room, **options)

    return open_model


def default_memory(backend: str) -> int | None:
    """What models may take together where nothing is said: four fifths of the memory that is free. On a GPU as much as
    there is.
    """
    free = available_memory() if backend in MAPPING else None
    return None if free is None else free * 4 // 5
