"""Layers for multi-token prediction (MTP): kept in files, for a draft of the next tokens, and not run yet.

In GGUF they follow the model's own layers, are counted by `block_count`, and have what the last of these has beside
`nextn.*` (gguf-py `constants.py`; llama.cpp's `models/glm4-moe.cpp`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgert_models.architecture import stored
from edgert_models.graph import Plan, Role, Weight

NEXTN_NAMES = stored(
    **{
        "nextn.eh_proj": "model.layers.{i}.eh_proj",
        "nextn.enorm": "model.layers.{i}.enorm",
        "nextn.hnorm": "model.layers.{i}.hnorm",
        "nextn.embed_tokens": "model.layers.{i}.embed_tokens",
        "nextn.shared_head_norm": "model.layers.{i}.shared_head.norm",
        "nextn.shared_head_head": "model.layers.{i}.shared_head.head",
    }
)
"""Their own tensors as DeepSeek-V3 and GLM-4.5 name them: for the `names` of families that have such layers."""
OPTIONAL = (
    "nextn.embed_tokens.weight",
    "nextn.shared_head_norm.weight",
    "nextn.shared_head_head.weight",
    "layer_output_norm.weight",
)
"""What a layer may be without, and then takes from the model."""


def nextn_weights(plan: Plan, layer: int) -> Iterator[Weight]:
    """All that such a layer, counted from the model's first, may have."""
    spec, prefix = plan.spec, f"blk.{layer}."
    last = f"blk.{spec.layers - 1}."
    for weight in plan.weights.values():
        if weight.name.startswith(last):
            yield replace(weight, name=prefix + weight.name.removeprefix(last))
    width, vocabulary = spec.width, spec.vocabulary
    yield Weight(f"{prefix}nextn.eh_proj.weight", (width, 2 * width), Role.MATRIX)
    for norm in ("nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm", "layer_output_norm"):
        yield Weight(f"{prefix}{norm}.weight", (width,), Role.VECTOR)
    yield Weight(f"{prefix}nextn.embed_tokens.weight", (vocabulary, width), Role.EMBEDDING)
    yield Weight(f"{prefix}nextn.shared_head_head.weight", (vocabulary, width), Role.MATRIX)
