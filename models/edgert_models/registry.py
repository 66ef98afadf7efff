"""Every architecture edgert knows: by GGUF name, by Hugging Face class, and as a plan."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from edgert_models.agreement import refuse_disagreement
from edgert_models.architecture import Architecture
from edgert_models.config import Config
from edgert_models.errors import UnsupportedError
from edgert_models.graph import NO_ADAPTERS, Adapters, Graph, Plan
from edgert_models.metadata import Metadata, Value, metadata_of, spec_from_metadata
from edgert_models.refused import NEEDS
from edgert_models.spec import ModelSpec

_MODULES = (
    "llama",
    "mellum",
    "mixtral",
    "llama4",
    "dbrx",
    "falcon_h1",
    "grok",
    "command_r",
    "cohere2",
    "cohere2moe",
    "deepseek2",
    "mistral4",
    "kimi_linear",
    "laguna",
    "bailingmoe3",
    "axk1",
    "ernie4_5",
    "exaone4",
    "flexolmo",
    "flint",
    "hunyuan_dense",
    "lfm2",
    "lfm2moe",
    "olmo2",
    "olmoe",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen2moe",
    "qwen3",
    "qwen3moe",
    "qwen3next",
    "qwen35",
    "qwen35moe",
    "seed_oss",
    "smollm3",
    "gpt_oss",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma4",
    "glm4",
    "granite",
    "granitemoe",
    "granite_swa",
    "dots1",
    "ernie4_5_moe",
    "exaone_moe",
    "glm4moe",
    "solar_open",
    "hunyuan_moe",
    "minimax_m2",
    "granitehybrid",
    "bamba",
    "afmoe",
    "aria",
    "bailingmoe",
    "bailingmoe2",
    "deepseek",
    "hy_v3",
    "jamba",
    "kolibri1",
    "lara_mini",
    "mimo2",
    "smallthinker",
    "nemotron_h",
    "nemotron_h_moe",
)
"""Files of `architectures`. Each is called as its models are in GGUF, with `_` for `-`: so a model's is found without
the others. Families that share another's name there (`bamba`, `mixtral`, `solar_open`) are called otherwise.
"""


@cache
def all_architectures() -> tuple[Architecture, ...]:
    """Every architecture; imports all of them."""
    return tuple(map(_architecture, _MODULES))


def _architecture(module: str) -> Architecture:
    found: Architecture = import_module(f"edgert_models.architectures.{module}").ARCHITECTURE
    return found


def architecture_of_config(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json, by its class name."""
    classes = config.get("architectures")
    if not isinstance(classes, list) or not classes or not isinstance(classes[0], str):
        raise UnsupportedError("config.json names no model class under 'architectures'")
    by_class = {name: architecture for architecture in all_architectures() for name in architecture.hf_classes}
    if classes[0] not in by_class:
        reason = f": it needs {NEEDS[classes[0]]}" if classes[0] in NEEDS else ""
        supported = ", ".join(sorted(by_class))
        raise UnsupportedError(f"model class {classes[0]} is not supported{reason}; supported: {supported}")
    return by_class[classes[0]]


def architecture_named(name: str) -> Architecture:
    """The architecture that GGUF files call `name` (general.architecture)."""
    module = name.replace("-", "_")
    found = _architecture(module) if module in _MODULES else None
    if found is None or found.name != name:
        supported = ", ".join(sorted({architecture.name for architecture in all_architectures()}))
        raise UnsupportedError(f"model architecture '{name}' is not supported; supported: {supported}")
    return found


def spec_from_config(config: Mapping[str, Any]) -> ModelSpec:
    """The ModelSpec of a Hugging Face config.json."""
    architecture, c = architecture_of_config(config), Config(config)
    c.refuse_other_activations(architecture.activation, architecture.also_called)
    spec = architecture.config(c)
    refuse_disagreement(config, spec)
    return spec


def spec_from_gguf(metadata: Metadata, shapes: Mapping[str, tuple[int, ...]]) -> ModelSpec:
    """The ModelSpec of a GGUF file; `shapes` are its tensors', outermost dimension first."""
    return spec_from_metadata(architecture_named(metadata.string("general.architecture")), metadata, shapes)


def metadata_from_spec(spec: ModelSpec) -> dict[str, Value]:
    """The architecture's key/values of a GGUF file."""
    return metadata_of(architecture_named(spec.architecture), spec)


def build_plan(spec: ModelSpec, context: int = 0, adapters: Adapters = NO_ADAPTERS) -> Plan:
    """Wire the model, with what `adapters` add to its matrices. Some turn positions otherwise where sequences may
    become longer than what they were first trained on (the rope scaling longrope): `context` is how long, in positions.
    """
    return architecture_named(spec.architecture).wire(Graph(spec, context, adapters))
