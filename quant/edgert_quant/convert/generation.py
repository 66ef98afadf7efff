"""generation_config.json as GGUF keys: the sampling that a checkpoint's makers recommend.

Key names: llama.cpp's `general.sampling.*`. What is no number in range is passed over: it is advice, no part of the
model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

from edgert_quant.convert.source import MetadataEntry
from edgert_quant.gguf import ValueType

_FLOATS = {
    # config name: GGUF name, least and greatest sensible value
    "temperature": ("temp", 0.0, 100.0),
    "top_p": ("top_p", 0.0, 1.0),
    "min_p": ("min_p", 0.0, 1.0),
    "repetition_penalty": ("penalty_repeat", 1e-3, 1e3),
}


def sampling_metadata(config: object) -> dict[str, MetadataEntry]:
    """The recommended sampling; `do_sample: false` means greedy, a temperature of 0."""
    if not isinstance(config, Mapping):
        return {}
    found = {}
    for key, (name, least, greatest) in _FLOATS.items():
        value = config.get(key)
        if _is_number(value) and least <= value <= greatest:
            found[f"general.sampling.{name}"] = MetadataEntry(float(value), ValueType.FLOAT32)
    top_k = config.get("top_k")
    if isinstance(top_k, int) and not isinstance(top_k, bool) and 0 <= top_k < 2**31:
        found["general.sampling.top_k"] = MetadataEntry(top_k, ValueType.INT32)
    if config.get("do_sample") is False:
        found["general.sampling.temp"] = MetadataEntry(0.0, ValueType.FLOAT32)
    return found


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
