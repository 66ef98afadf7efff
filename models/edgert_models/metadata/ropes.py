"""Keys of rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgert_models.architecture import Architecture
from edgert_models.errors import UnsupportedError
from edgert_models.metadata.keys import Metadata, Value
from edgert_models.rope import Rope

_LOG_MULTIPLIER = "scaling.yarn_log_multiplier"  # a tenth of it, in families that scale scores
WINDOW_BASE = "rope.freq_base_swa"


def rope_of(
    architecture: Architecture, metadata: Metadata, head_size: int, shapes: Mapping[str, tuple[int, ...]]
) -> Rope:
    """That of layers without a window."""
    prefix = f"{architecture.name}.rope"
    scaling = metadata.string(f"{prefix}.scaling.type", "none")
    if "rope_factors_long.weight" in shapes:  # which files of Phi-3 have without saying so
        scaling = "longrope"
    if scaling not in ("none", "linear", "yarn", "longrope"):
        known = "none, linear, yarn, longrope, llama3"
        raise UnsupportedError(f"rope scaling '{scaling}' is not supported; supported: {known}")
    sections = list(metadata.integers(f"{prefix}.dimension_sections", [0] * 4, count=4))
    return Rope(
        base=metadata.number(f"{prefix}.freq_base", 10000.0),
        dims=metadata.integer(f"{prefix}.dimension_count", head_size),
        layout=architecture.rope_layout,
        scaling=scaling,
        factor=metadata.number(f"{prefix}.scaling.factor", 1.0),
        original_context=metadata.integer(
            f"{prefix}.scaling.original_context_length", metadata.integer(f"{architecture.name}.context_length")
        ),
        attention_factor=metadata.number(f"{prefix}.scaling.attn_factor", 1.0),
        beta_fast=metadata.number(f"{prefix}.scaling.yarn_beta_fast", 32.0),
        beta_slow=metadata.number(f"{prefix}.scaling.yarn_beta_slow", 1.0),
        truncate=architecture.yarn_truncate,
        log_multiplier=metadata.number(f"{prefix}.{_LOG_MULTIPLIER}", 0.0) / 0.1 if architecture.scales_scores else 0.0,
        factors="rope_freqs.weight" in shapes,
        sections=tuple(int(each) for each in sections) if any(sections) else (),
    )


def window_rope_of(architecture: Architecture, metadata: Metadata, head_size: int) -> Rope | None:
    """That of layers with a window, if the file has a base for it; they keep within what the model was trained on."""
    key = f"{architecture.name}.{WINDOW_BASE}"
    if key not in metadata:
        return None
    rope = rope_of(architecture, metadata, head_size, {}).unscaled()
    dims = metadata.integer(f"{architecture.name}.rope.dimension_count_swa", rope.dims)
    return replace(rope, base=metadata.number(key), dims=dims)


def rope_entries(rope: Rope) -> dict[str, Value]:
    """Keys of sections and of scaling."""
    entries: dict[str, Value] = {}
    if rope.sections:
        entries["rope.dimension_sections"] = list(rope.sections)
    if rope.scaling != "none":
        entries["rope.scaling.type"] = rope.scaling
        entries["rope.scaling.factor"] = rope.factor
    if rope.scaling in ("yarn", "longrope"):
        entries["rope.scaling.original_context_length"] = rope.original_context
        entries["rope.scaling.attn_factor"] = rope.attention_factor
    if rope.scaling == "yarn":
        entries["rope.scaling.yarn_beta_fast"] = rope.beta_fast
        entries["rope.scaling.yarn_beta_slow"] = rope.beta_slow
    if rope.log_multiplier:
        entries[f"rope.{_LOG_MULTIPLIER}"] = 0.1 * rope.log_multiplier
    return entries
