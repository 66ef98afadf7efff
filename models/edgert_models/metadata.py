"""GGUF metadata ↔ ModelSpec. The keys are llama.cpp's (`llama-arch.cpp`, gguf-py `constants.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from edgert_models.architecture import Architecture, FileHabits
from edgert_models.errors import UnsupportedError
from edgert_models.rope import Rope
from edgert_models.router import SOFTMAX, Router
from edgert_models.spec import MAX_LAYERS, Latent, ModelSpec, Recurrence, Scales

_BIASED = ("attn_q", "attn_qkv", "attn_kv_a_mqa")  # where attention has biases
_NOT_YET = ("embedding_length_per_layer_input", "attention.shared_kv_layers")  # of the smallest Gemmas 4
_WINDOW = "attention.sliding_window"
_WINDOW_KEYS = "attention.key_length_swa"
_WINDOW_BASE = "rope.freq_base_swa"
_PATTERN = "attention.sliding_window_pattern"
_ROTATED = "attention.rope_pattern"
Value = int | float | str | bool | list[bool] | list[int]
_GATING = {1: "softmax", 2: "sigmoid", 3: "softmax"}
"""What expert_gating_func says of the scoring: `llama_expert_gating_func_type` in llama.cpp's `llama-hparams.h`."""
_SOFTMAX_OF_CHOSEN = 3  # a softmax that is normalised over the chosen
_SHORT_CONV = "shortconv.l_cache"
_PERIOD = "full_attention_interval"
_POSITIONS = "rope.scaling.finetuned"
_QK_NORM = "attention.qk_norm"  # ours: of norms without weights
_WITHOUT_QK_NORM = 128
_LEAST = "ssm.time_step_min"  # ours: llama.cpp knows no limit of time steps
_RECURRENT = "attention.recurrent_layers"
_SSM = {
    "kernel": "conv_kernel",
    "inner": "inner_size",
    "state": "state_size",
    "heads": "time_step_rank",
    "groups": "group_count",
}
_LOG_MULTIPLIER = "scaling.yarn_log_multiplier"  # a tenth of it, in families that scale scores


class Metadata(Protocol):
    """Typed access to a file's key/values; each getter raises a FileFormatError naming file and key."""

    def __contains__(self, key: object, /) -> bool: ...

    def string(self, key: str, default: str = ...) -> str:
        """The string under `key`."""

    def integer(self, key: str, default: int = ...) -> int:
        """The integer under `key`."""

    def number(self, key: str, default: float = ...) -> float:
        """The integer or float under `key`, as a float."""

    def integers(self, key: str, default: list[int] = ..., *, count: int) -> Iterable[int]:
        """The array of `count` integers under `key`; a single one stands for as many equal ones."""

    def boolean(self, key: str, default: bool = ...) -> bool:
        """The boolean under `key`."""

    def booleans(self, key: str, default: list[bool] = ..., *, count: int | None = None) -> list[bool]:
        """The array of (`count`) booleans under `key`."""


def spec_from_metadata(
    architecture: Architecture, metadata: Metadata, shapes: Mapping[str, tuple[int, ...]]
) -> ModelSpec:
    """The ModelSpec of a GGUF file, from its metadata and the shapes (outermost first) of its tensors."""
    name, files = architecture.name, architecture.files
    width = metadata.integer(f"{name}.embedding_length")
    nextn = metadata.integer(f"{name}.nextn_predict_layers", 0)
    layers = metadata.integer(f"{name}.block_count") - nextn
    heads = metadata.integer(f"{name}.attention.head_count")
    if heads <= 0:
        raise UnsupportedError(f"{name}.attention.head_count is {heads}")
    head_size = metadata.integer(f"{name}.attention.key_length", width // heads)
    value_size = metadata.integer(f"{name}.attention.value_length", head_size)
    for key in _NOT_YET:
        if count := metadata.integer(f"{name}.{key}", 0):
            raise UnsupportedError(f"{name}.{key}={count} is not supported; supported: 0")
    if "token_embd.weight" not in shapes:
        raise UnsupportedError("the file has no tensor token_embd.weight; is it a model, and not only a vocabulary?")
    experts = metadata.integer(f"{name}.expert_count", 0)
    window = metadata.integer(f"{name}.{_WINDOW}", int(architecture.unsaid.get(_WINDOW, 0)))
    windowed = _windowed(architecture, metadata, layers, nextn) if window else ()
    kv_heads, window_kv_heads = _kv_heads(metadata, name, heads, layers, nextn, windowed)
    window_head_size = _window_head_size(architecture, metadata, windowed)
    widths = metadata.integers(f"{name}.feed_forward_length", [0] * layers, count=layers + nextn)
    each = [int(wide) for wide in widths][:layers]
    feed_forward, feeds = max(each), tuple(wide > 0 for wide in each)
    normalised = _has(shapes, layers, "ssm_norm.weight")
    recurrence = _recurrence(metadata, name, kv_heads, () if all(feeds) else feeds, nextn, normalised)
    rms_norm = architecture.rms_norm_wins and f"{name}.{_eps(False)}" in metadata
    layer_norm = architecture.layer_norm and not rms_norm
    only_layer = files.both_epsilons and f"{name}.{_eps(False)}" not in metadata
    rope = _rope(architecture, metadata, head_size, shapes)
    positions = recurrence is None or metadata.boolean(f"{name}.{_POSITIONS}", architecture.positions)
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
        shared_feed_forward=_first(shapes, layers, "ffn_up_shexp.weight")[0],
        shared_gate=_has(shapes, layers, "ffn_gate_inp_shexp.weight"),
        sparse=_sparse(shapes, layers) if experts else (),
        dense_beside=_dense_beside(shapes, layers),
        network_norm="layer_output_norm" if _has(shapes, layers, "layer_output_norm.weight") else "post_ffw_norm",
        router=_router(architecture, metadata, shapes, layers) if experts else architecture.router,
        qk_norm=_qk_norm(architecture, metadata, shapes, layers, experts),
        window=window or None,
        windowed=windowed,
        chunked=architecture.chunked and window > 0,
        rotated=tuple(metadata.booleans(f"{name}.{_ROTATED}", [], count=layers))[:layers],
        window_kv_heads=window_kv_heads,
        window_head_size=window_head_size,
        keys_as_values=window_head_size > 0 and not _full_layers_have(shapes, windowed, "attn_v.weight"),
        tied="output.weight" not in shapes,
        attention_bias=any(_has(shapes, layers, f"{part}.bias") for part in _BIASED),
        output_bias=_has(shapes, layers, "attn_output.bias"),
        feed_forward_bias=_has(shapes, layers, "ffn_up.bias"),
        scales=_scales(architecture, metadata),
        layer_norm=layer_norm,
        norm_bias="output_norm.bias" in shapes,
        logits_bias="output.bias" in shapes,
        fused_attention=_has(shapes, layers, "attn_qkv.weight") and recurrence is None,
        fused_feed_forward=_first(shapes, layers, "ffn_up.weight")[0] == 2 * feed_forward > 0,
        activation=architecture.activation,
        window_rope=_window_rope(architecture, metadata, head_size) if window else None,
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
        has = metadata.boolean(f"{architecture.name}.{_QK_NORM}", experts != _WITHOUT_QK_NORM)
    else:
        has = _has(shapes, layers, "attn_q_norm.weight")
    return architecture.qk_norm if has else None


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


def _first(shapes: Mapping[str, tuple[int, ...]], layers: int, name: str) -> tuple[int, ...]:
    """The shape of a tensor in the first layer that has it, (0,) if none has."""
    found = (shapes.get(f"blk.{i}.{name}") for i in range(min(layers, MAX_LAYERS)))
    return next((shape for shape in found if shape), (0,))


def _has(shapes: Mapping[str, tuple[int, ...]], layers: int, name: str) -> bool:
    """Whether any layer has a tensor."""
    return _first(shapes, layers, name) != (0,)


def _dense_beside(shapes: Mapping[str, tuple[int, ...]], layers: int) -> bool:
    """Whether a layer has a router and a dense network."""
    names = ("ffn_gate_inp.weight", "ffn_up.weight")
    return any(all(f"blk.{i}.{name}" in shapes for name in names) for i in range(min(layers, MAX_LAYERS)))


def _sparse(shapes: Mapping[str, tuple[int, ...]], layers: int) -> tuple[bool, ...]:
    """Of each layer whether it has experts: those have that have a router. Nothing where all have."""
    flags = tuple(f"blk.{i}.ffn_gate_inp.weight" in shapes for i in range(min(layers, MAX_LAYERS)))
    return () if all(flags) else flags


def _router(
    architecture: Architecture, metadata: Metadata, shapes: Mapping[str, tuple[int, ...]], layers: int
) -> Router:
    """The family's router, with what the file says of it."""
    name, usual = architecture.name, architecture.router
    number = metadata.integer(f"{name}.expert_gating_func", 0)
    if number and number not in _GATING:
        raise UnsupportedError(
            f"{name}.expert_gating_func is {number}; supported: 1 (softmax), 2 (sigmoid), 3 (softmax of the chosen)"
        )
    bias = any(_has(shapes, layers, tensor) for tensor in ("exp_probs_b.bias", "exp_probs_b"))
    if bias and number == _SOFTMAX_OF_CHOSEN:
        raise UnsupportedError(
            f"{name}: a softmax of the chosen (expert_gating_func 3) with exp_probs_b is not supported"
        )
    groups = metadata.integer(f"{name}.expert_group_count", 1) or 1
    return replace(
        usual,
        scoring=_GATING.get(number, usual.scoring),
        normalize=metadata.boolean(f"{name}.expert_weights_norm", usual.normalize) or number == _SOFTMAX_OF_CHOSEN,
        scale=metadata.number(f"{name}.expert_weights_scale", usual.scale) or 1.0,
        bias=bias,
        groups=groups,
        groups_used=metadata.integer(f"{name}.expert_group_used_count", groups) or groups,
    )


def _router_entries(files: FileHabits, spec: ModelSpec) -> dict[str, Value]:
    """Keys of the router, of shared experts and of dense layers, where they are more than a softmax says."""
    router = spec.router
    entries: dict[str, Value] = {"expert_weights_norm": router.normalize}
    if spec.shared_feed_forward:
        shared, rest = divmod(spec.shared_feed_forward, spec.expert_feed_forward)
        each = shared if files.width_of_one and not rest else 1
        entries["expert_shared_feed_forward_length"] = spec.shared_feed_forward // each
        if not spec.shared_gate:
            entries["expert_shared_count"] = 1 if rest else shared
    if spec.leading_dense or files.says_routing:
        entries["leading_dense_block_count"] = spec.leading_dense
    if files.says_step:
        first = spec.leading_dense
        later = (i for i in range(first + 1, spec.layers) if spec.has_experts(i))
        entries["interleave_moe_layer_step"] = next(later, 2 * first + 1) - first
    unusual = replace(router, normalize=True) != SOFTMAX or files.says_routing
    if router.scoring not in _GATING.values():
        return entries
    if unusual or "expert_shared_count" in entries:
        entries["expert_gating_func"] = next(key for key, value in _GATING.items() if value == router.scoring)
        entries["expert_weights_scale"] = router.scale
    if router.limited:
        entries["expert_group_count"] = router.groups
        entries["expert_group_used_count"] = router.groups_used
    return entries


def _window_head_size(architecture: Architecture, metadata: Metadata, windowed: tuple[bool, ...]) -> int:
    """Of heads in layers with a window, 0 if it is that of the others or the file does not say."""
    says = architecture.files.window_heads and any(windowed)
    return metadata.integer(f"{architecture.name}.{_WINDOW_KEYS}", 0) if says else 0


def _full_layers_have(shapes: Mapping[str, tuple[int, ...]], windowed: tuple[bool, ...], name: str) -> bool:
    """Whether a layer without a window has a tensor."""
    return any(f"blk.{i}.{name}" in shapes for i, within in enumerate(windowed) if not within)


def _kv_heads(
    metadata: Metadata, name: str, heads: int, layers: int, nextn: int, windowed: tuple[bool, ...]
) -> tuple[list[int], int]:
    """Heads of keys in each layer: 0 where it does not attend, as many as in all others elsewhere; and how many there
    are in layers with a window, 0 if that is the same.
    """
    key = f"{name}.attention.head_count_kv"
    if not 0 < layers <= MAX_LAYERS:
        raise UnsupportedError(f"{name}.block_count is {layers}")
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


def _recurrence(
    metadata: Metadata, name: str, kv_heads: list[int], feeds: tuple[bool, ...], nextn: int, norm: bool
) -> Recurrence | None:
    """`feeds` says which layers have a feed-forward network, if some have none: they have nothing else then. `norm`:
    whether what a recurrence gives is normalised.
    """
    attends = tuple(not count for count in kv_heads)
    if f"{name}.{_SHORT_CONV}" in metadata:
        return Recurrence(layers=attends, kernel=metadata.integer(f"{name}.{_SHORT_CONV}"))
    if f"{name}.ssm.conv_kernel" not in metadata:
        return None
    period = metadata.integer(f"{name}.{_PERIOD}", 0)
    if period:
        attends = tuple((i + 1) % period != 0 for i in range(len(kv_heads)))
    flags = metadata.booleans(f"{name}.{_RECURRENT}", list(attends), count=None if nextn else len(attends))
    flags = flags[: len(attends)]
    if feeds and any(feeds):
        flags = [flag and not feed for flag, feed in zip(flags, feeds, strict=True)]
    return Recurrence(
        layers=tuple(flags),
        period=period,
        kernel=metadata.integer(f"{name}.ssm.conv_kernel"),
        inner=metadata.integer(f"{name}.ssm.inner_size"),
        state=metadata.integer(f"{name}.ssm.state_size"),
        heads=metadata.integer(f"{name}.ssm.time_step_rank"),
        groups=metadata.integer(f"{name}.ssm.group_count", 1),
        least=metadata.number(f"{name}.{_LEAST}", 0.0),
        norm=norm,
        feeds=feeds if any(feeds) else (),
    )


def _recurrence_entries(spec: ModelSpec, recurrence: Recurrence) -> dict[str, Value]:
    entries: dict[str, Value] = {}
    if recurrence.period:
        entries = {_PERIOD: recurrence.period, _RECURRENT: [*recurrence.layers, *[False] * spec.nextn]}
    elif not recurrence.beside:
        feeds = recurrence.feeds or (False,) * spec.layers
        layers = [recurs or feed for recurs, feed in zip(recurrence.layers, feeds, strict=True)]
        kv_heads = [0 if other else spec.kv_heads for other in layers]
        entries["attention.head_count_kv"] = kv_heads + [spec.kv_heads] * spec.nextn
    if recurrence.feeds:
        width = spec.expert_feed_forward if spec.experts else spec.feed_forward
        entries["feed_forward_length"] = [width if feed else 0 for feed in (*recurrence.feeds, *[True] * spec.nextn)]
    if recurrence.least:
        entries[_LEAST] = recurrence.least
    if not spec.positions:
        entries[_POSITIONS] = False
    if not recurrence.inner:
        return entries | {_SHORT_CONV: recurrence.kernel}
    return entries | {f"ssm.{key}": getattr(recurrence, field) for field, key in _SSM.items()}


def _windowed(architecture: Architecture, metadata: Metadata, layers: int, nextn: int) -> tuple[bool, ...]:
    """Of each layer, whether the window holds for it; nothing where neither the file nor the family says so. Files that
    have layers for multi-token prediction say it of these too, or not.
    """
    period = architecture.window_period
    usual = [(i + 1) % period != 0 for i in range(min(layers, MAX_LAYERS))] if period else []
    found = metadata.booleans(f"{architecture.name}.{_PATTERN}", usual, count=None if nextn else layers)
    return tuple(found[:layers])


def _rope(
    architecture: Architecture, metadata: Metadata, head_size: int, shapes: Mapping[str, tuple[int, ...]]
) -> Rope:
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


def _window_rope(architecture: Architecture, metadata: Metadata, head_size: int) -> Rope | None:
    """That of layers with a window, if the file has a base for it; they keep within what the model was trained on."""
    key = f"{architecture.name}.{_WINDOW_BASE}"
    if key not in metadata:
        return None
    rope = _rope(architecture, metadata, head_size, {}).unscaled()
    dims = metadata.integer(f"{architecture.name}.rope.dimension_count_swa", rope.dims)
    return replace(rope, base=metadata.number(key), dims=dims)


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
    if spec.window_kv_heads:
        counts = {True: spec.window_kv_heads, False: spec.kv_heads}
        entries["attention.head_count_kv"] = [counts[flag] for flag in windowed]
    if spec.window_rope:
        entries[_WINDOW_BASE] = spec.window_rope.base
    if spec.rotated:
        entries[_ROTATED] = list(spec.rotated)
    if spec.windowed:
        entries[_PATTERN] = windowed
    if spec.window_head_size and spec.window_rope:
        entries[_WINDOW_KEYS] = entries["attention.value_length_swa"] = spec.window_head_size
        entries["rope.dimension_count_swa"] = spec.window_rope.dims
        entries |= dict.fromkeys(_NOT_YET, 0)  # llama.cpp asks
    if spec.recurrence:
        entries |= _recurrence_entries(spec, spec.recurrence)
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
        entries |= _router_entries(files, spec)
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
    if architecture.qk_norm == "plain":
        entries[_QK_NORM] = spec.qk_norm is not None
    entries = {**{key: type(value)(0) for key, value in architecture.unsaid.items()}, **entries}
    return {f"{name}.{key}": value for key, value in entries.items()}
