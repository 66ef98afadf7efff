"""Gemma 4, text: Gemma 3's decoder with larger and fewer heads in layers without a window, and maybe experts beside its
feed-forward network.

Values are normalised without a weight; layers without a window may take their keys for them. Sources: transformers'
`modeling_gemma4`; llama.cpp's `conversion/gemma.py` and `models/gemma4.cpp` for the names in GGUF.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    FileHabits,
    embedded,
    norm,
    predict,
    stored,
    with_inner,
)
from edgert_models.architectures.gemma import gemma_sizes, with_scaled_embedding
from edgert_models.config import Config, expert_sizes, text_of, windows
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan, Role
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.ops import Value
from edgert_models.rope import PROPORTIONAL, RopeLayout
from edgert_models.router import SOFTMAX
from edgert_models.sources import Experts, RopeFactors, Stored
from edgert_models.spec import ModelSpec, Scales

_PERIOD = 6  # of the layers that see everything
_LAYER = "model.layers.{i}"
_VOCABULARY = 262144  # that layers have embeddings for, where a config does not say


def settle(spec: ModelSpec) -> ModelSpec:
    """The spec with what files leave unsaid: scores are not scaled."""
    spec = with_scaled_embedding(spec)
    return replace(spec, scales=replace(spec.scales, attention=1.0))


def config(c: Config) -> ModelSpec:
    """ModelSpec of Gemma4ForCausalLM, or the text part of Gemma4ForConditionalGeneration.

    Biases, and attention to what follows, are refused.
    """
    c = text_of(c, "gelu")
    layer_embedding = c.integer("hidden_size_per_layer_input", default=256)
    if layer_embedding:
        c.refuse_unless("vocab_size_per_layer_input", (c.integer("vocab_size"),), default=_VOCABULARY)
    c.refuse_unless("attention_bias", (False,), default=False)
    c.refuse_unless("use_bidirectional_attention", (None, "vision"), default=None)
    sizes = windows(c, period=_PERIOD)
    within = c.integer("num_key_value_heads")
    full = _heads_without_window(c, sizes.get("windowed", ()))
    return settle(
        ModelSpec(
            architecture="gemma4",
            **_with_ropes(c, full),
            **sizes,
            **(expert_sizes(c, "moe_intermediate_size", SOFTMAX) if c.boolean("enable_moe_block") else {}),
            dense_beside=c.boolean("enable_moe_block"),
            window_kv_heads=0 if within == full.integer("num_key_value_heads") else within,
            window_head_size=c.integer("head_dim", default=256) if sizes else 0,
            keys_as_values=c.boolean("attention_k_eq_v"),
            shared_kv_layers=c.integer("num_kv_shared_layers", default=0),
            wide_sharers=c.boolean("use_double_wide_mlp") and c.integer("num_kv_shared_layers", default=0) > 0,
            layer_embedding=layer_embedding,
            scales=Scales(logits_cap=c.number("final_logit_softcapping", default=0.0) or None),
            qk_norm="head",
        )
    )


def _heads_without_window(c: Config, windowed: tuple[bool, ...]) -> Config:
    """The config of layers without a window, which differ in their heads."""
    own: dict[str, Any] = {"head_dim": c.integer("global_head_dim", default=512)}
    if c.boolean("attention_k_eq_v") and c.get("num_global_key_value_heads"):
        own["num_key_value_heads"] = c.integer("num_global_key_value_heads")
    by_layer = c.get("per_layer_config")
    if isinstance(by_layer, Mapping):
        found = [by_layer.get(str(i), {}) for i in range(len(windowed)) if not windowed[i]]
        others = [by_layer.get(str(i)) for i in range(len(windowed)) if windowed[i]]
        uneven = any(others) or any(each != found[0] for each in found)
        if not found or not isinstance(found[0], Mapping) or uneven:
            raise UnsupportedError("config.json: per_layer_config must be the same for all layers without a window")
        # It says only what is not as in the others.
        own = {key: value for key, value in found[0].items() if key in ("head_dim", "num_key_value_heads")}
    return Config({**c, **own})


def _with_ropes(c: Config, full: Config) -> dict[str, Any]:
    """The sizes, with heads of layers without a window, whose rope leaves pairs beyond a part where they are."""
    ropes = c.get("rope_parameters") or {}
    everywhere, within = ropes.get("full_attention"), ropes.get("sliding_attention")
    if not isinstance(everywhere, Mapping) or everywhere.get("rope_type") != PROPORTIONAL or "factor" in everywhere:
        raise UnsupportedError(f"config.json: rope of full_attention must be {PROPORTIONAL}, not {everywhere}")
    plain = {"full_attention": {"rope_theta": everywhere.get("rope_theta", 1e6)}, "sliding_attention": within}
    sizes = gemma_sizes(Config({**full, "rope_parameters": plain}))
    half = c.integer("head_dim", default=256)
    window_rope = replace(sizes["window_rope"], dims=half)
    return {**sizes, "rope": replace(sizes["rope"], factors=True), "window_rope": window_rope}


KeysAndValues = dict[int, tuple[Value, Value]]
"""Those of layers that have their own."""


def attention(g: Graph, x: Value, layer: int, stored: KeysAndValues) -> Value:
    """Attention with the heads of a layer; values are keys before their norm where a layer has none. Layers that share
    keys and values find those of others in `stored`.
    """
    s, block, window = g.spec, f"blk.{layer}", g.spec.window_of(layer)
    kv_heads = s.window_kv_heads or s.kv_heads if window else s.kv_heads
    size, rope = s.window_head_size or s.head_size if window else s.head_size, s.rope_of(layer)
    width = kv_heads * size
    q, source = g.linear(x, f"{block}.attn_q", s.heads * size), s.keys_from(layer)
    if source == layer:
        k = g.linear(x, f"{block}.attn_k", width)
        v = k if s.keys_as_values and not window else g.linear(x, f"{block}.attn_v", width)
    q = g.rope(g.rms_norm(q, f"{block}.attn_q_norm.weight", groups=s.heads), s.heads, rope)
    if source == layer:
        k = g.rope(g.rms_norm(k, f"{block}.attn_k_norm.weight", groups=kv_heads), kv_heads, rope)
        stored[layer] = k, g.rms_norm(v, None, groups=kv_heads)
    y = g.attend(q, *stored[source], window=window, cache=None if source == layer else source)
    return g.linear(y, f"{block}.attn_output", s.width)


def feed_forward(g: Graph, x: Value, layer: int) -> Value:
    """A dense network, and experts beside it, each with norms of their own."""
    s, block = g.spec, f"blk.{layer}"
    y = norm(g, x, f"{block}.ffn_norm")
    width = s.feed_forward * (2 if s.wide_sharers and s.keys_from(layer) != layer else 1)
    gate, up = (g.linear(y, f"{block}.ffn_{part}", width) for part in ("gate", "up"))
    y = g.linear(g.gated(gate, up, s.activation), f"{block}.ffn_down", s.width)
    if not s.experts:
        return y
    scored = g.scale(g.rms_norm(x, f"{block}.ffn_gate_inp.scale"), s.width**-0.5)
    logits = g.linear(scored, f"{block}.ffn_gate_inp", s.experts, role=Role.ROUTER)
    routed = g.moe(norm(g, x, f"{block}.pre_ffw_norm_2"), logits, block, scaled=True)
    return g.add(norm(g, y, f"{block}.post_ffw_norm_1"), norm(g, routed, f"{block}.post_ffw_norm_2"))


def layer_inputs(g: Graph, x: Value) -> Value:
    """What enters layers beside what the one before gives: embeddings, and a product of the model's embeddings."""
    s = g.spec
    width = s.layers * s.layer_embedding
    own = g.scale(g.embed("per_layer_token_embd.weight", width), s.layer_embedding**0.5)
    y = g.scale(g.linear(x, "per_layer_model_proj", width), s.width**-0.5)
    return g.scale(g.add(g.rms_norm(y, "per_layer_proj_norm.weight", groups=s.layers), own), 0.5**0.5)


def wire(g: Graph) -> Plan:
    """The wiring of `sandwich_decoder`, and what embeddings of a layer add; its result is scaled by a weight."""
    s = g.spec
    x = embedded(g)
    inputs = layer_inputs(g, x) if s.layer_embedding else x
    stored: KeysAndValues = {}
    for i in range(s.layers):
        block = f"blk.{i}"
        y = attention(g, norm(g, x, f"{block}.attn_norm"), i, stored)
        x = g.add(x, norm(g, y, f"{block}.post_attention_norm"))
        x = g.add(x, norm(g, feed_forward(g, x, i), f"{block}.post_ffw_norm"))
        if s.layer_embedding:
            own = g.slice(inputs, i * s.layer_embedding, s.layer_embedding)
            y = g.gated(g.linear(x, f"{block}.inp_gate", s.layer_embedding), own, s.activation)
            x = g.add(x, norm(g, g.linear(y, f"{block}.proj", s.width), f"{block}.post_norm"))
        x = g.scale_by(x, f"{block}.layer_output_scale.weight")
    return predict(g, x)


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    own = spec.layers - spec.shared_kv_layers
    usual = all(spec.keys_from(i) == own - (2 if spec.window_of(i) else 1) for i in range(own, spec.layers))
    return "" if usual else "it wants shared keys in the last two layers before, first those within a window"


ARCHITECTURE = Architecture(
    name="gemma4",
    title="Gemma 4, text",
    hf_classes=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
    config=config,
    settle=settle,
    wire=wire,
    names=with_inner(
        {
            **COMMON_NAMES,
            **stored(
                post_attention_norm=f"{_LAYER}.post_attention_layernorm",
                ffn_norm=f"{_LAYER}.pre_feedforward_layernorm",
                post_ffw_norm=f"{_LAYER}.post_feedforward_layernorm",
                pre_ffw_norm_2=f"{_LAYER}.pre_feedforward_layernorm_2",
                post_ffw_norm_1=f"{_LAYER}.post_feedforward_layernorm_1",
                post_ffw_norm_2=f"{_LAYER}.post_feedforward_layernorm_2",
                ffn_gate_inp=f"{_LAYER}.router.proj",
                per_layer_token_embd="model.embed_tokens_per_layer",
                per_layer_model_proj="model.per_layer_model_projection",
                per_layer_proj_norm="model.per_layer_projection_norm",
                inp_gate=f"{_LAYER}.per_layer_input_gate",
                proj=f"{_LAYER}.per_layer_projection",
                post_norm=f"{_LAYER}.post_per_layer_input_norm",
            ),
            "layer_output_scale.weight": Stored((f"{_LAYER}.layer_scalar",)),
            "ffn_gate_inp.scale": Stored((f"{_LAYER}.router.scale",)),
            "ffn_down_exps.scale": Stored((f"{_LAYER}.router.per_expert_scale",)),
            "ffn_gate_exps.weight": Experts((), (f"{_LAYER}.experts.gate_up_proj",), 0, 2),
            "ffn_up_exps.weight": Experts((), (f"{_LAYER}.experts.gate_up_proj",), 1, 2),
            "ffn_down_exps.weight": Experts((), (f"{_LAYER}.experts.down_proj",), 0, 1),
            "rope_freqs.weight": RopeFactors(PROPORTIONAL),
        }
    ),
    rope_layout=RopeLayout.HALVES,
    files=FileHabits(window_heads=True),
    qk_norm="head",
    activation="gelu",
    window_period=_PERIOD,
    left_out=("model.vision_tower.", "model.audio_tower.", "model.embed_vision.", "model.embed_audio."),
    llama_cpp=LlamaCpp(output_bias=False, rope_factors=True, windows=True, refuses=(llama_cpp_refuses,)),
    notes="The text model, also of checkpoints with towers for pictures and sound, which are left out with a warning:"
    " E2B and E4B, with embeddings for each layer and layers that share keys and values, 26B-A4B and 31B.",
)
