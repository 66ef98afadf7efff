"""Every architecture edgert knows: by GGUF name, by Hugging Face class, and as a plan."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

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
    "cohere",
    "cohere2",
    "cohere2moe",
    "deepseek2",
    "mistral4",
    "axk1",
    "ernie4_5",
    "exaone4",
    "flex_olmo",
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
    "dots1",
    "ernie4_5_moe",
    "exaone_moe",
    "glm4_moe",
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
    "mimo2",
    "smallthinker",
    "nemotron_h",
    "nemotron_h_moe",
)
"""Files of `architectures`; of those that share a GGUF name the first serves files of that name."""

ARCHITECTURES: tuple[Architecture, ...] = tuple(
    import_module(f"edgert_models.architectures.{name}").ARCHITECTURE for name in _MODULES
)
_BY_CLASS = {name: architecture for architecture in ARCHITECTURES for name in architecture.hf_classes}
_BY_NAME = {architecture.name: architecture for architecture in reversed(ARCHITECTURES)}


def architecture_of_config(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json, by its class name."""
    classes = config.get("architectures")
    if not isinstance(classes, list) or not classes or not isinstance(classes[0], str):
        raise UnsupportedError("config.json names no model class under 'architectures'")
    if classes[0] not in _BY_CLASS:
        reason = f": it needs {NEEDS[classes[0]]}" if classes[0] in NEEDS else ""
        supported = ", ".join(sorted(_BY_CLASS))
        raise UnsupportedError(f"model class {classes[0]} is not supported{reason}; supported: {supported}")
    return _BY_CLASS[classes[0]]


def architecture_named(name: str) -> Architecture:
    """The architecture that GGUF files call `name` (general.architecture)."""
    if name not in _BY_NAME:
        raise UnsupportedError(
            f"model architecture '{name}' is not supported; supported: {', '.join(sorted(_BY_NAME))}"
        )
    return _BY_NAME[name]


def spec_from_config(config: Mapping[str, Any]) -> ModelSpec:
    """The ModelSpec of a Hugging Face config.json."""
    architecture, c = architecture_of_config(config), Config(config)
    c.refuse_other_activations(architecture.activation)
    return architecture.config(c)


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
