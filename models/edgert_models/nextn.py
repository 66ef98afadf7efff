"""Layers for multi-token prediction (MTP): kept in files, for a draft of the next tokens, and not run yet.

In GGUF they follow the model's own layers, are counted by `block_count`, and have what layers of the model have beside
`nextn.*` (gguf-py `constants.py`; llama.cpp's `models/glm4-moe.cpp`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgert_models.graph import Plan, Role, Weight
from edgert_models.sources import Source, Stored, renamed

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_IN_CHECKPOINT = re.compile(r".*?layers\.\{i\}\.")


def nextn_names(modules: Mapping[str, str], plus: float = 0.0) -> dict[str, Source]:
    """Tensors `nextn.*` by the modules that checkpoints have them in; norms with `plus` added."""
    return {
        f"nextn.{ours}.weight": Stored((f"{theirs}.weight",), plus=plus if ours.endswith("norm") else 0.0)
        for ours, theirs in modules.items()
    }


_OF_LAYERS = nextn_names(
    {
        "eh_proj": "model.layers.{i}.eh_proj",
        "enorm": "model.layers.{i}.enorm",
        "hnorm": "model.layers.{i}.hnorm",
        "embed_tokens": "model.layers.{i}.embed_tokens",
        "shared_head_norm": "model.layers.{i}.shared_head.norm",
        "shared_head_head": "model.layers.{i}.shared_head.head",
    }
)


@dataclass(frozen=True, kw_only=True)
class Nextn:
    """Where checkpoints of a family have layers for multi-token prediction; DeepSeek-V3 and GLM-4.5 have them after
    the model's own, and call them so.

    `layers` stand in place of `model.layers.{i}`; {k} counts these layers from 0. More than one: where the parts of a
    layer are. `names` are of what such a layer has of its own, or has elsewhere. `windowed`: a window holds for it, if
    for any layer. `in_llama_cpp`: llama.cpp loads files of this family that have such layers.
    """

    layers: tuple[str, ...] = ("model.layers.{i}",)
    names: Mapping[str, Source]
    windowed: bool = False
    in_llama_cpp: bool = True

    def source(self, key: str, names: Mapping[str, Source], k: int) -> Source:
        """Where the `k`-th of them has `key`, which other layers have under `names`; KeyError if none has."""
        source = self.names.get(key)
        if source is None:
            source = renamed(names[key], self._moved)
        return renamed(source, lambda each: tuple(name.replace("{k}", str(k)) for name in each))

    def _moved(self, names: tuple[str, ...]) -> tuple[str, ...]:
        found = [_IN_CHECKPOINT.sub(f"{layer}.", name) for layer in self.layers for name in names]
        return tuple(dict.fromkeys(found))


AFTER_THE_LAST = Nextn(names=_OF_LAYERS)
OWN = ("nextn.eh_proj.weight", "nextn.enorm.weight", "nextn.hnorm.weight")
"""What all of them have."""


def nextn_weights(plan: Plan, layer: int) -> Iterator[Weight]:
    """All that such a layer, counted from the model's first, may have; some of it in one of several shapes."""
    prefix, seen = f"blk.{layer}.", set()
    for weight in plan.weights.values():
        match = _LAYER.fullmatch(weight.name)
        if match and (match[2], weight.shape) not in seen:
            seen.add((match[2], weight.shape))
            yield Weight(prefix + match[2], weight.shape, weight.role)
    width, vocabulary = plan.spec.width, plan.spec.vocabulary
    yield Weight(f"{prefix}nextn.eh_proj.weight", (width, 2 * width), Role.MATRIX)
    for norm in ("nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm", "layer_output_norm", "post_attention_norm"):
        if (f"{norm}.weight", (width,)) not in seen:
            yield Weight(f"{prefix}{norm}.weight", (width,), Role.VECTOR)
    yield Weight(f"{prefix}nextn.embed_tokens.weight", (vocabulary, width), Role.EMBEDDING)
    yield Weight(f"{prefix}nextn.shared_head_head.weight", (vocabulary, width), Role.MATRIX)


def needed(plan: Plan) -> set[str]:
    """What such a layer must have, without the beginning of its name: its own, and what all layers have that attend."""
    layers: dict[str, set[str]] = {}
    for name in plan.weights:
        if match := _LAYER.fullmatch(name):
            layers.setdefault(match[1], set()).add(match[2])
    attending = [keys for keys in layers.values() if "attn_output.weight" in keys]
    return set.intersection(*attending, set().union(*attending)).union(OWN)
