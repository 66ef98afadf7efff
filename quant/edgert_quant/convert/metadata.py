"""The `general.*` and provenance metadata of converted files. Key names: the GGUF specification and gguf-py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from edgert_models.graph import Role, Weight

from edgert_quant.convert.rules import Rule
from edgert_quant.convert.source import MetadataEntry
from edgert_quant.gguf import ValueType
from edgert_quant.recipes import Recipe

CONVERTER = 3
"""Raised whenever the same checkpoint and recipe give other bytes than before."""
_QUANTIZATION_VERSION = 2  # ggml's GGML_QNT_VERSION
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def recipe_metadata(recipe: Recipe, rules: Sequence[Rule]) -> dict[str, MetadataEntry]:
    """What the recipe decides, and the exceptions from it."""
    exceptions = {"edgert.convert.tensors": MetadataEntry([str(rule) for rule in rules])} if rules else {}
    return exceptions | {
        "general.file_type": MetadataEntry(recipe.file_type, ValueType.UINT32),
        "general.quantization_version": MetadataEntry(_QUANTIZATION_VERSION, ValueType.UINT32),
        "edgert.convert.version": MetadataEntry(CONVERTER, ValueType.UINT32),
        "edgert.convert.recipe": MetadataEntry(recipe.name),
    }


def config_hash(config: Mapping[str, object]) -> str:
    """SHA-256 of a config.json, whatever its spacing and order: says from which checkpoint a file was made."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def size_label(weights: Iterable[Weight], experts: int) -> str:
    """`7.6B`, or `8x7B` for a mixture: the number of experts, and the weights of a model with only one of them."""
    shared = each = 0
    for weight in weights:
        if weight.role is Role.EXPERTS:
            each += prod(weight.shape[1:])
        else:
            shared += prod(weight.shape)
    rounded = _rounded(shared + each)
    return f"{experts}x{rounded}" if experts else rounded


def _rounded(count: int) -> str:
    """A count in two digits at least, with its unit."""
    scale, unit = next(((scale, unit) for scale, unit in _UNITS if count > scale), (1e3, "K"))
    scaled = count / scale
    return f"{scaled:.0f}{unit}" if scaled >= 9.5 else f"{scaled:.1f}{unit}"
