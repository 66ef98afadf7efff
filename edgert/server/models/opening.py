"""Opening models, alone or side by side in one budget of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgert_models.errors import MemoryBudgetError, RequestError
from edgert_quant.files import human_bytes
from edgert_runtimes.base import Progress
from edgert_runtimes.memory import available_memory
from edgert_runtimes.registry import get_backend

from edgert import LLM
from edgert.server.models.catalogue import Catalogue, Entry, named
from edgert.server.models.fleet import Fleet, OpenModel

SHARE = 3 << 29
"""Bytes of cache and workspace that a model takes where it can do with them: others need some too."""

MAPPING = ("cpu", "reference")
"""Backends whose weights stay in the file; what LLM calls memory is without them."""


def open_fleet(
    models: Sequence[str],
    folder: Path | None,
    options: Mapping[str, Any],
    *,
    memory: int | None = None,
    keep: float | None = None,
    progress: Progress | None = None,
    cache: bool = False,
) -> Fleet:
    """The fleet of these models, those of `folder`, and with `cache` those of the Hugging Face cache; without any the
    demo and that cache.

    The first of `models` (see `named`) is loaded. `options` are those of LLM. `memory` is what LLM calls so where there
    is one model, and else what all may take together, weights included. For `keep` see Fleet.
    """
    everything = not models and folder is None
    wanted = named(models or ([None] if everything else []), progress)
    backend = get_backend(options["backend"]).name
    cache = cache or everything
    if several := len(wanted) != 1 or folder is not None or cache:
        for option, name in (("chat_template", "chat-template"), ("adapters", "adapter"), ("draft", "draft")):
            if options.get(option):
                raise RequestError(f"--{name} is for one model; several are served here", parameter=option)
        memory = _default_memory(backend) if memory is None else memory

    def opener(**more: Any) -> OpenModel:
        own = {**options, **more}
        return _beside(own, backend) if several else lambda entry, _: LLM(entry.path, memory=memory, **own)

    wanted = [replace(entry, adapters=tuple(options.get("adapters") or ())) for entry in wanted]
    catalogue = Catalogue(tuple(wanted), folder=folder, cache=cache)
    if not catalogue.entries():
        raise RequestError(f"--models-dir {folder} has no model that runs", parameter="models_dir")
    limit = options["queue_limit"]
    fleet = Fleet(catalogue, opener(), memory=memory if several else None, keep=keep, queue_limit=limit)
    if wanted:
        fleet.preload(wanted[0], opener(progress=progress))
    return fleet


def _beside(options: Mapping[str, Any], backend: str) -> OpenModel:
    """Opens models with these options of LLM, on that backend, each in what the others leave."""

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


def _default_memory(backend: str) -> int | None:
    """What models may take together where nothing is said: four fifths of the memory that is free. On a GPU as much as
    there is.
    """
    free = available_memory() if backend in MAPPING else None
    return None if free is None else free * 4 // 5
