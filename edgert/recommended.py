"""The sampling that a model file recommends."""

from __future__ import annotations

from edgert_models.errors import RequestError
from edgert_quant.gguf import GgufMetadata

from edgert.engine.params import FALLBACKS, SamplingParams

# What a file may recommend (llama.cpp's keys, `llama-model.cpp`), by the SamplingParams field it is for.
_RECOMMENDED = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
    "repeat_last_n": "general.sampling.penalty_last_n",
}


def recommended(metadata: GgufMetadata) -> dict[str, float]:
    """The sampling that the file recommends, checked; llama.cpp's defaults for the rest."""
    found = dict(FALLBACKS)
    for field, key in _RECOMMENDED.items():
        if key not in metadata:
            continue
        whole = field in ("top_k", "repeat_last_n")
        value = metadata.integer(key) if whole else metadata.number(key)
        try:
            SamplingParams(**{field: value})  # type: ignore[arg-type]
        except RequestError as error:
            metadata.fail(key, str(error))
        found[field] = value
    return found
