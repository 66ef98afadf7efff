"""What Ollama's protocol tells of models: /api/tags, /api/ps, /api/show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from edgert_models.errors import EdgertError, RequestError
from edgert_quant.gguf import GgufFile

from edgert.chat import Chat
from edgert.description import Description
from edgert.server.errors import Json
from edgert.server.models.catalogue import Entry
from edgert.server.models.fleet import Loaded
from edgert.text import Tokenizer
from edgert.text.template import TEMPLATE_KEY


def tag(entry: Entry, name: str) -> Json:
    """A model, as a file, by one of its names."""
    said = entry.description()
    return {**_named(name), "modified_at": _moment(said.modified), "size": said.size, "details": _details(said)}


def running(model: Loaded) -> Json:
    """A model, as what is loaded; where nothing tells when it expires, it stays."""
    assert model.llm is not None
    report = model.llm.report
    on_device = 0 if report.backend in ("cpu", "reference") else report.weight_bytes
    return {
        **_named(model.entry.name),
        "size": report.weight_bytes + report.cache_bytes,
        "size_vram": on_device,
        "details": _details(model.entry.description()),
        "context_length": model.llm.context,
        **({} if model.until is None else {"expires_at": _moment(model.until)}),
    }


def show(entry: Entry, *, verbose: bool) -> Json:
    """Everything that a model's file says of itself; lists are null unless `verbose`."""
    said = entry.description()
    if said.problem:
        raise RequestError(said.problem, parameter="model")
    with GgufFile.open(entry.path) as file:
        metadata = file.metadata
        info = {key: _plain(metadata[key]) for key in metadata if verbose or metadata.count(key) == 1}
        info |= {key: None for key in metadata if key not in info}
        return {
            "modified_at": _moment(said.modified),
            "details": _details(said),
            "model_info": {**info, "general.parameter_count": said.parameters},
            "template": metadata.string(TEMPLATE_KEY, ""),
            "capabilities": _capabilities(file),
        }


def _capabilities(file: GgufFile) -> list[str]:
    """What the model can be asked for."""
    found = ["completion", "embedding"]
    try:
        chat = Chat.from_gguf(file.metadata, Tokenizer.from_gguf(file.metadata), None)
    except EdgertError:  # no tokenizer, or one that is not supported: to be heard when it is used
        return found
    if chat is not None:
        found += ["tools"] * (chat.dialect.calls is not None) + ["thinking"] * chat.reasons
        chat.template.close()
    return found


def _details(said: Description) -> Json:
    """Family, size and type; the type is that of most bytes."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": said.architecture,
        "families": [said.architecture],
        "parameter_size": _short(said.parameters),
        "quantization_level": said.type,
    }


def _named(name: str) -> Json:
    return {"name": name, "model": name}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _plain(value: object) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _short(count: int) -> str:
    """7241732096 is 7.2B."""
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.1f}{letter}"
    return str(count)
