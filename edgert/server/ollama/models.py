"""What Ollama's protocol tells of a model: /api/tags, /api/ps, /api/show."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np

from edgert import LLM
from edgert.server.errors import Json, UnknownModelError
from edgert.text.template import TEMPLATE_KEY


def check_model(llm: LLM, name: str) -> None:
    """UnknownModelError unless it is the one that is served; Ollama's clients may add `:latest`."""
    if name.removesuffix(":latest") != llm.name and name != llm.name:
        raise UnknownModelError(name, llm.name)


def tags(llm: LLM) -> Json:
    """The model, as a file."""
    return {"models": [{**_named(llm), "modified_at": _modified(llm), "size": _size(llm), "details": details(llm)}]}


def running(llm: LLM) -> Json:
    """The model, as what is loaded. It stays until the server ends, so nothing tells when it expires."""
    on_device = 0 if llm.report.backend in ("cpu", "reference") else llm.report.weight_bytes
    loaded = {"size": llm.report.weight_bytes + llm.report.cache_bytes, "size_vram": on_device}
    return {"models": [{**_named(llm), **loaded, "details": details(llm), "context_length": llm.context}]}


def show(llm: LLM, *, verbose: bool) -> Json:
    """Everything that the file says of itself; lists are null unless `verbose`."""
    info = {key: _plain(llm.metadata[key]) for key in llm.metadata if verbose or llm.metadata.count(key) == 1}
    info |= {key: None for key in llm.metadata if key not in info}
    template = llm.metadata.string(TEMPLATE_KEY, "")
    return {
        "modified_at": _modified(llm),
        "details": details(llm),
        "model_info": {**info, "general.parameter_count": llm.parameters},
        "template": template,
        "capabilities": capabilities(llm),
    }


def details(llm: LLM) -> Json:
    """Family, size and type; the type is that of most bytes."""
    architecture = llm.spec.architecture
    bytes_of: Counter[str] = Counter()
    for weight in llm.report.weights:
        bytes_of[weight.type.name] += weight.bytes
    return {
        "parent_model": "",
        "format": "gguf",
        "family": architecture,
        "families": [architecture],
        "parameter_size": _short(llm.parameters),
        "quantization_level": max(bytes_of, key=bytes_of.__getitem__, default=""),
    }


def capabilities(llm: LLM) -> list[str]:
    """What the model can be asked for."""
    found = ["completion", "embedding"]
    if llm.calls_tools:
        found.append("tools")
    if llm.reasons:
        found.append("thinking")
    return found


def _named(llm: LLM) -> Json:
    return {"name": llm.name, "model": llm.name}


def _size(llm: LLM) -> int:
    return llm.path.stat().st_size


def _modified(llm: LLM) -> str:
    return datetime.fromtimestamp(llm.path.stat().st_mtime, UTC).isoformat().replace("+00:00", "Z")


def _plain(value: object) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _short(count: int) -> str:
    """7241732096 is 7.2B."""
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.1f}{letter}"
    return str(count)
