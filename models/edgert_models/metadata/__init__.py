"""GGUF metadata ↔ ModelSpec. The keys are llama.cpp's (`llama-arch.cpp`, gguf-py `constants.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgert_models.architecture import Architecture, FileHabits
from edgert_models.config import heads_by_window
from edgert_models.errors import UnsupportedError
from edgert_models.metadata.keys import Metadata, Value, first, has
from edgert_models.metadata.recurrences import POSITIONS, recurrence_entries, recurrence_of
from edgert_models.metadata.ropes import WINDOW_BASE, rope_entries, rope_of, window_rope_of
from edgert_models.metadata.routers import router_entries, router_of
from edgert_models.spec import MAX_LAYERS, Latent, ModelSpec, Scales

__all__ = ["Metadata", "Value", "metadata_of", "spec_from_metadata"]

_BIASED = ("attn_q", "attn_qkv", "attn_kv_a_mqa")  # where attention has biases
_OF_GEMMA = ("embedding_length_per_layer_input", "attention.shared_kv_layers")
_WINDOW = "attention.sliding_window"
_WINDOW_KEYS = "attention.key_length_swa"
_PATTERN = "attention.sliding_window_pattern"
_ROTATED = "attention.rope_pattern"
_QK_NORM = "attention.qk_norm"  # ours: of norms without weights
WITHOUT_QK_NORM = 128
"""Experts of the one model with norms without weights that has none of them, as llama.cpp knows it."""


def spec_from_metadata(
    architecture: Architecture, metadata: Metadata, shapes: Mapping[str, tuple[int, ...]]
) -> ModelSpec:
    """The ModelSpec of a GGUF file, from its metadata and the shapes (outermost first) of its tensors."""
    name, files = architecture.name, architecture.files
    width = metadata.integer(f"{name}.embedding_length")
    nextn = metadata.integer(f"{name}.nextn_predict_layers", 0)
    layers = metadata.integer(f"{name}.block_count") - nextn
    if not 0 < layers <= MAX_LAYERS:
        raise UnsupportedError(f"{name}.block_count is {layers}")
    window = metadata.integer(f"{name}.{_WINDOW}", int(architecture.unsaid.get(_WINDOW, 0)))
    windowed = _windowed(architecture, metadata, layers, nextn) if window else ()
    heads, window_heads = _heads(metadata, name, layers, nextn, windowed)
    head_size = metadata.integer(f"{name}.attention.key_length", width // heads)
    value_size = metadata.integer(f"{name}.attention.value_length", head_size)
    layer_embedding, shared_kv_layers = (metadata.integer(f"{name}.{key}", 0) for key in _OF_GEMMA)
    if "token_embd.weight" not in shapes:
        raise UnsupportedError("the file has no tensor token_embd.weight; is it a model, and not only a vocabulary?")
    experts = metadata.integer(f"{name}.expert_count", 0)
    kv_heads, window_kv_heads = _kv_heads(metadata, name, heads, layers, nextn, windowed)
    window_head_size = _window_head_size(architecture, metadata, windowed)
    widths = metadata.integers(f"{name}.feed_forward_length", [0] * layers, count=layers + nextn)
    each = [int(wide) for wide in widths][:layers]
    wide_sharers = shared_kv_layers > 0 and each[-1] == 2 * each[0] > 0
    feed_forward, feeds = each[0] if wide_sharers else max(each), tuple(wide > 0 for wide in each)
    normalised = has(shapes, layers, "ssm_norm.weight")
    recurrence = recurrence_of(metadata, name, kv_heads, () if all(feeds) else feeds, nextn, normalised)
    rms_norm = architecture.rms_norm_wins and f"{name}.{_eps(False)}" in metadata
    layer_norm = architecture.layer_norm and not rms_norm
    only_layer = files.both_epsilons and f"{name}.{_eps(False)}" not in metadata
    rope = rope_of(architecture, metadata, head_size, shapes)
    positions = recurrence is None or metadata.boolean(f"{name}.{POSITIONS}", architecture.positions)
    if not positions:  # files may say anything of rope that is not there
        rope = replace(rope, dims=min(rope.dims, head_size))
    latent = _latent(metadata, name, head_size, value_size)
    if latent:
        kv_heads, head_size, value_size = [1], latent.rank + rope.dims, latent.rank
    spec = ModelSpec(
        architecture=name,
        name=metadata.string("general.name", ""),
        vocabulary=shapes["token_embd.weight"][0],
        context=metadata.integer(f"{name}.context_length"),
        width=width,
        layers=layers,
        nextn=nextn,
        heads=heads,
        kv_heads=max(kv_heads) or heads,
        head_size=head_size,
        value_length=0 if value_size == head_size else value_size,
        rope=rope,
        norm_eps=metadata.number(f"{name}.{_eps((layer_norm and not files.rms_epsilon) or only_layer)}"),
        feed_forward=feed_forward,
        experts=experts,
        experts_used=metadata.integer(f"{name}.expert_used_count", 0),
        expert_feed_forward=metadata.integer(f"{name}.expert_feed_forward_length", feed_forward) if experts else 0,
        shared_feed_forward=first(shapes, layers, "ffn_up_shexp.weight")[0],
        shared_gate=has(shapes, layers, "ffn_gate_inp_shexp.weight"),
        sparse=_sparse(shapes, layers) if experts else (),
        dense_beside=_dense_beside(shapes, layers),
        network_norm="layer_output_norm" if has(shapes, layers, "layer_output_norm.weight") else "post_ffw_norm",
        router=router_of(architecture, metadata, shapes, layers) if experts else architecture.router,
        qk_norm=_qk_norm(architecture, metadata, shapes, layers, experts),
        window=window or None,
        windowed=windowed,
        chunked=architecture.chunked and window > 0,
        rotated=tuple(metadata.booleans(f"{name}.{_ROTATED}", [], count=layers))[:layers],
        window_heads=window_heads,
        window_kv_heads=window_kv_heads,
        window_head_size=window_head_size,
        shared_kv_layers=shared_kv_layers,
        wide_sharers=wide_sharers,
        layer_embedding=layer_embedding,
        head_gates=first(shapes, layers, "attn_gate.weight")[0] in {heads, window_heads} - {0},
        keys_as_values=window_head_size > 0 and not _full_layers_have(shapes, windowed, "attn_v.weight"),
        tied="output.weight" not in shapes,
        attention_bias=any(has(shapes, layers, f"{part}.bias") for part in _BIASED),
        output_bias=has(shapes, layers, "attn_output.bias"),
        feed_forward_bias=has(shapes, layers, "ffn_up.bias"),
        scales=_scales(architecture, metadata),
        layer_norm=layer_norm,
        norm_bias="output_norm.bias" in shapes,
        logits_bias="output.bias" in shapes,
        fused_attention=has(shapes, layers, "attn_qkv.weight") and recurrence is None,
        fused_feed_forward=first(shapes, layers, "ffn_up.weight")[0] == 2 * feed_forward > 0,
        activation=architecture.activation,
        window_rope=window_rope_of(architecture, metadata, head_size) if window else None,
        recurrence=recurrence,
        latent=latent,
        positions=positions,
    )
    return architecture.settle(spec)


def _qk_norm(
    architecture: Architecture,
    metadata: Metadata,
    shapes: Mapping[str, tuple[int, ...]],
    layers: int,
    experts: int,
) -> str | None:
    """That of the family, if the file has its weights. Of one without weights other programs' files do not say it:
    llama.cpp knows the one model that has none by its number of experts.
    """
    if architecture.qk_norm == "plain":
        normalised = metadata.boolean(f"{architecture.name}.{_QK_NORM}", experts != WITHOUT_QK_NORM)
    else:
        normalised = has(shapes, layers, "attn_q_norm.weight")
    return architecture.qk_norm if normalised else None


def _epsilons(files: FileHabits, spec: ModelSpec) -> set[bool]:
    """Of which kinds of norms a file has the epsilon: layer norms, others."""
    if files.both_epsilons:
        return {True, False}
    return {spec.layer_norm, spec.layer_norm and not files.rms_epsilon}


def _eps(layer_norm: bool) -> str:
    return "attention.layer_norm_epsilon" if layer_norm else "attention.layer_norm_rms_epsilon"


_SCALES = {
    "embedding": "embedding_scale",
    "residual": "residual_scale",
    "values": "attention.value_scale",
    "attention": "attention.scale",
    "attention_cap": "attn_logit_softcapping",
    "logits_cap": "final_logit_softcapping",
    "router_cap": "router_logit_softcapping",
    "clamp": "attention.clamp_kqv",
    "queries": "attention.temperature_scale",
}
_QUERIES_LENGTH = "attention.temperature_length"


def _scales(architecture: Architecture, metadata: Metadata) -> Scales:
    """Of what the file says; 0 stands for none, as in llama.cpp."""
    keys = {**_SCALES, "logits_divisor" if architecture.logits_divided else "logits": "logit_scale"}
    keys["attention"] = architecture.files.score_scale
    name, unsaid = architecture.name, architecture.unsaid
    found = {field: metadata.number(f"{name}.{key}", float(unsaid.get(key, 0.0))) for field, key in keys.items()}
    usual = int(unsaid.get(_QUERIES_LENGTH, 0))
    length = metadata.integer(f"{name}.{_QUERIES_LENGTH}", usual) if found["queries"] else 0
    return Scales(**{field: value for field, value in found.items() if value}, queries_length=length or None)


def _dense_beside(shapes: Mapping[str, tuple[int, ...]], layers: int) -> bool:
    """Whether a layer has a router and a dense network."""
    names = ("ffn_gate_inp.weight", "ffn_up.weight")
    return any(all(f"blk.{i}.{name}" in shapes for name in names) for i in range(min(layers, MAX_LAYERS)))


def _sparse(shapes: Mapping[str, tuple[int, ...]], layers: int) -> tuple[bool, ...]:
    """Of each layer whether it has experts: those have that have a router. Nothing where all have."""
    flags = tuple(f"blk.{i}.ffn_gate_inp.weight" in shapes for i in range(min(layers, MAX_LAYERS)))
    return () if all(flags) else flags


def _window_head_size(architecture: Architecture, metadata: Metadata, windowed: tuple[bool, ...]) -> int:
    """Of heads in layers with a window, 0 if it is that of the others or the file does not say."""
    says = architecture.files.window_heads and any(windowed)
    return metadata.integer(f"{architecture.name}.{_WINDOW_KEYS}", 0) if says else 0


def _full_layers_have(shapes: Mapping[str, tuple[int, ...]], windowed: tuple[bool, ...], name: str) -> bool:
    """Whether a layer without a window has a tensor."""
    return any(f"blk.{i}.{name}" in shapes for i, within in enumerate(windowed) if not within)


def _heads(metadata: Metadata, name: str, layers: int, nextn: int, windowed: tuple[bool, ...]) -> tuple[int, int]:
    """Heads in layers without a window, and in those with one, 0 if that is the same."""
    key, count = f"{name}.attention.head_count", layers + nextn
    return heads_by_window(key, [int(each) for each in metadata.integers(key, count=count)][:layers], windowed)


def _kv_heads(
    metadata: Metadata, name: str, heads: int, layers: int, nextn: int, windowed: tuple[bool, ...]
) -> tuple[list[int], int]:
    """Heads of keys in each layer: 0 where it does not attend, as many as in all others elsewhere; and how many there
    are in layers with a window, 0 if that is the same.
    """
    key = f"{name}.attention.head_count_kv"
    count = layers + nextn
    found = [int(each) for each in metadata.integers(key, [heads] * count, count=count)][:layers]
    within = {each for each, flag in zip(found, windowed, strict=False) if flag and each}
    others = {each for each, flag in zip(found, windowed or [False] * layers, strict=True) if not flag and each}
    if len(within | others) <= 1:
        return found, 0
    if len(within) != 1 or len(others) != 1:
        raise UnsupportedError(f"{key}: layers that attend must have equally many heads, these have {found}")
    return [*others] * layers, within.pop()


def _latent(metadata: Metadata, name: str, key_length: int, value_length: int) -> Latent | None:
    """What old files call the length of a key and a value is that before products are absorbed, as in `_mla` now."""
    prefix = f"{name}.attention"
    if f"{prefix}.kv_lora_rank" not in metadata:
        return None
    return Latent(
        rank=metadata.integer(f"{prefix}.kv_lora_rank"),
        query_rank=metadata.integer(f"{prefix}.q_lora_rank", 0),
        key_size=metadata.integer(f"{prefix}.key_length_mla", key_length),
        value_size=metadata.integer(f"{prefix}.value_length_mla", value_length),
    )


def _windowed(architecture: Architecture, metadata: Metadata, layers: int, nextn: int) -> tuple[bool, ...]:
    """Of each layer, whether the window holds for it; nothing where neither the file nor the family says so. Files that
    have layers for multi-token prediction say it of these too, or not.
    """
    usual = _usual_windows(architecture, layers)
    found = metadata.booleans(f"{architecture.name}.{_PATTERN}", usual, count=None if nextn else layers)
    return tuple(found[:layers])


def _usual_windows(architecture: Architecture, layers: int) -> list[bool]:
    """The same where the family says so."""
    period = architecture.window_period
    first = 0 if architecture.window_later else 1
    return [(i + first) % period != 0 for i in range(min(layers, MAX_LAYERS))] if period else []


def metadata_of(architecture: Architecture, spec: ModelSpec) -> dict[str, Value]:
    """The key/values of a model's GGUF file; what llama.cpp's loader needs, and what ours reads back."""
    name, rope, files = architecture.name, spec.rope, architecture.files
    entries: dict[str, Value] = {
        "vocab_size": spec.vocabulary,
        "context_length": spec.context,
        "embedding_length": spec.width,
        "block_count": spec.layers + spec.nextn,
        "feed_forward_length": spec.feed_forward or spec.expert_feed_forward,
        "attention.head_count": spec.heads,
        "attention.head_count_kv": spec.kv_heads,
        "attention.key_length": spec.head_size,
        "attention.value_length": spec.value_size,
        **{_eps(kind): spec.norm_eps for kind in _epsilons(files, spec)},
        "rope.dimension_count": rope.dims,
        "rope.freq_base": rope.base,
    }
    keys = {**_SCALES, "logits": "logit_scale", "logits_divisor": "logit_scale", "queries_length": _QUERIES_LENGTH}
    keys["attention"] = files.score_scale
    plain = Scales()
    entries |= {
        keys[field]: value for field, value in vars(spec.scales).items() if value not in (None, getattr(plain, field))
    }
    if spec.window:
        entries[_WINDOW] = spec.window
    windowed = [*spec.windowed, *[architecture.nextn is not None and architecture.nextn.windowed] * spec.nextn]
    if spec.window_heads:
        entries["attention.head_count"] = [spec.window_heads if flag else spec.heads for flag in windowed]
    if spec.window_kv_heads:
        counts = {True: spec.window_kv_heads, False: spec.kv_heads}
        entries["attention.head_count_kv"] = [counts[flag] for flag in windowed]
    if spec.window_rope:
        entries[WINDOW_BASE] = spec.window_rope.base
        entries["rope.dimension_count_swa"] = spec.window_rope.dims
    if spec.rotated:
        entries[_ROTATED] = list(spec.rotated)
    implied = files.implies_windows and list(spec.windowed) == _usual_windows(architecture, spec.layers)
    if spec.windowed and not implied:
        entries[_PATTERN] = windowed
    if spec.window_head_size and spec.window_rope:
        entries[_WINDOW_KEYS] = entries["attention.value_length_swa"] = spec.window_head_size
        # llama.cpp asks, whether there is any or not
        entries |= dict(zip(_OF_GEMMA, (spec.layer_embedding, spec.shared_kv_layers), strict=True))
    if spec.wide_sharers:
        wide = [spec.feed_forward * (1 + (spec.keys_from(i) != i)) for i in range(spec.layers)]
        entries["feed_forward_length"] = [*wide, *[spec.feed_forward] * spec.nextn]
    if spec.recurrence:
        entries |= recurrence_entries(spec, spec.recurrence)
    if spec.nextn:
        entries["nextn_predict_layers"] = spec.nextn
    if spec.latent:
        entries["attention.kv_lora_rank"] = spec.latent.rank
        entries["attention.q_lora_rank"] = spec.latent.query_rank
        entries["attention.key_length_mla"] = spec.latent.key_size
        entries["attention.value_length_mla"] = spec.latent.value_size
        # llama.cpp looks for these, also in a dense model.
        entries["expert_feed_forward_length"] = spec.feed_forward
        entries["expert_shared_count"] = 0
        entries["leading_dense_block_count"] = spec.leading_dense
    if spec.experts:
        entries["expert_count"] = spec.experts
        entries["expert_used_count"] = spec.experts_used
        entries["expert_feed_forward_length"] = spec.expert_feed_forward
        entries |= router_entries(files, spec)
    entries |= rope_entries(rope)
    if architecture.qk_norm == "plain":
        entries[_QK_NORM] = spec.qk_norm is not None
    entries = {**{key: type(value)(0) for key, value in architecture.unsaid.items()}, **entries}
    return {f"{name}.{key}": value for key, value in entries.items()}
