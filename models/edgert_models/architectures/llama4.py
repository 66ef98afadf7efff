"""Llama 4, text: rope and attention within chunks in most layers; everything and no rope in the others, whose queries
are scaled by their position; experts whose inputs are weighed, beside a shared one.

Sources: transformers' `modeling_llama4`; llama.cpp's `conversion/llama.py` and `models/llama4.cpp`, which knows chunks,
scales and norms of queries and keys from the architecture alone.
"""

from __future__ import annotations

from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    FileHabits,
    embedded,
    feed_forward,
    norm,
    predict,
    residual,
    shared_expert_names,
    stored,
    with_inner,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, layer_count, sparse_layers, text_of
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp, sees_the_same
from edgert_models.metadata import WITHOUT_QK_NORM
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.sources import TransposedExperts
from edgert_models.spec import ModelSpec, Scales

ROUTER = Router(scoring="sigmoid", normalize=False, weighs_inputs=True)
_PERIOD = 4  # of the layers without rope
_CHUNK = _FLOOR = 8192
_STRENGTH = 0.1
_MLP = "model.layers.{i}.feed_forward"


def config(c: Config) -> ModelSpec:
    """ModelSpec of Llama4ForCausalLM, or of the text model of Llama4ForConditionalGeneration."""
    c = text_of(c, "silu")
    tuned = c.boolean("attn_temperature_tuning", True)
    c = Config({"rope_theta": 500000.0, "rms_norm_eps": 1e-5, "head_dim": 128, **c})
    sizes: dict[str, Any] = {
        **decoder_sizes(c, RopeLayout.INTERLEAVED),
        **_chunks(c),
        "feed_forward": c.integer("intermediate_size_mlp", default=16384),
    }
    experts = Config({"num_local_experts": 16, "num_experts_per_tok": 1, **c})
    return ModelSpec(
        architecture="llama4",
        **sizes,
        **expert_sizes(experts, "intermediate_size", ROUTER),
        **_sparse(c),
        shared_feed_forward=c.integer("intermediate_size"),
        qk_norm="plain" if c.boolean("use_qk_norm", True) else None,
        scales=Scales(
            queries=c.number("attn_scale", default=_STRENGTH) if tuned else None,
            queries_length=c.integer("floor_scale", default=_FLOOR) if tuned else None,
        ),
    )


def _chunks(c: Config) -> dict[str, Any]:
    """Which layers have rope, and attend within chunks: as large as the context where the config says of none."""
    layers = layer_count(c)
    period = c.integer("no_rope_layer_interval", default=_PERIOD)
    rotated = c.get("no_rope_layers") or [int((i + 1) % max(period, 1) != 0) for i in range(layers)]
    chunk = c.get("attention_chunk_size", _CHUNK)
    kinds = c.get("layer_types") or ["chunked_attention" if each and chunk else "full_attention" for each in rotated]
    fitting = [["chunked_attention", "full_attention"][not each] for each in rotated]
    if list(kinds) == ["full_attention"] * layers:
        chunk = None
    elif list(kinds) != fitting:
        raise UnsupportedError(
            "config.json: layer_types must say chunked_attention of the layers that no_rope_layers says 1 of, and "
            f"full_attention of the others, not {kinds}"
        )
    size = c.integer("max_position_embeddings") if chunk is None else c.integer("attention_chunk_size", default=_CHUNK)
    return {"window": size, "windowed": tuple(map(bool, rotated)), "chunked": True}


def _sparse(c: Config) -> dict[str, Any]:
    """Which layers have experts: those that `moe_layers` names, or every so-manieth."""
    layers, step = layer_count(c), c.integer("interleave_moe_layer_step", default=1)
    named = c.get("moe_layers")
    if step < 1 or not isinstance(named, list | None):
        raise UnsupportedError(f"config.json: interleave_moe_layer_step={step}, moe_layers={named} is not supported")
    return sparse_layers((i + 1) % step == 0 if named is None else i in named for i in range(layers))


def attention(g: Graph, x: Value, layer: int) -> Value:
    """Within chunks, with rope and then norms without weights; or of all, with queries that are scaled."""
    s, block, window = g.spec, f"blk.{layer}", g.spec.window_of(layer)
    widths = {"q": s.query_width, "k": s.kv_width, "v": s.value_width}
    q, k, v = (g.linear(x, f"{block}.attn_{part}", n, bias=s.attention_bias) for part, n in widths.items())
    if window or not s.window:
        q, k = g.rope(q, s.heads, s.rope), g.rope(k, s.kv_heads, s.rope)
        if s.qk_norm:
            q, k = g.rms_norm(q, None, groups=s.heads), g.rms_norm(k, None, groups=s.kv_heads)
    else:
        q = g.position_scale(q, s.scales.queries or 0.0, s.scales.queries_length or 1, ahead=1)
    y = g.attend(q, k, v, window=window, chunked=s.chunked)
    return g.linear(y, f"{block}.attn_output", s.width, bias=s.output_bias)


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder`, with its own attention."""
    x = embedded(g)
    for i in range(g.spec.layers):
        block = f"blk.{i}"
        x = residual(g, x, attention(g, norm(g, x, f"{block}.attn_norm"), i))
        x = residual(g, x, feed_forward(g, norm(g, x, f"{block}.ffn_norm"), i))
    return predict(g, x)


def llama_cpp_rope(spec: ModelSpec) -> str:
    """Which layers llama.cpp rotates."""
    every = tuple((i + 1) % _PERIOD != 0 for i in range(spec.layers))
    if not spec.windowed or spec.windowed == every:
        return ""
    return f"llama.cpp takes every {_PERIOD}th layer of llama4 as one without rope; here it is others"


def llama_cpp_chunks(spec: ModelSpec) -> str:
    """How long chunks are in llama.cpp."""
    if sees_the_same(spec, _CHUNK):
        return ""
    return f"llama.cpp takes chunks of llama4 as {_CHUNK} positions; this model's are of {spec.window}"


def llama_cpp_queries(spec: ModelSpec) -> str:
    """How llama.cpp scales queries."""
    length = min(spec.scales.queries_length or _CHUNK, _CHUNK)
    same = (spec.scales.queries, spec.scales.queries_length) == (_STRENGTH, _CHUNK) or spec.context < length
    return "" if same else "llama.cpp scales queries of llama4 by 0.1 for every 8192 positions, whatever the model says"


def llama_cpp_norms(spec: ModelSpec) -> str:
    """Whether llama.cpp normalises queries and keys."""
    if (spec.qk_norm is None) == (spec.experts == WITHOUT_QK_NORM):
        return ""
    return (
        f"llama.cpp normalises queries and keys of llama4 unless there are {WITHOUT_QK_NORM} experts, "
        "whatever the model says"
    )


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    few = spec.layers < _PERIOD
    return f"it wants {_PERIOD} layers or more in llama4" if few else ""


ARCHITECTURE = Architecture(
    name="llama4",
    title="Llama 4, text",
    hf_classes=("Llama4ForCausalLM", "Llama4ForConditionalGeneration"),
    config=config,
    wire=wire,
    names=with_inner(
        {
            **COMMON_NAMES,
            **stored(
                ffn_gate=f"{_MLP}.gate_proj",
                ffn_up=f"{_MLP}.up_proj",
                ffn_down=f"{_MLP}.down_proj",
                ffn_gate_inp=f"{_MLP}.router",
            ),
            **shared_expert_names("feed_forward.shared_expert"),
            "ffn_gate_exps.weight": TransposedExperts((f"{_MLP}.experts.gate_up_proj",), 0, 2, in_turns=False),
            "ffn_up_exps.weight": TransposedExperts((f"{_MLP}.experts.gate_up_proj",), 1, 2, in_turns=False),
            "ffn_down_exps.weight": TransposedExperts((f"{_MLP}.experts.down_proj",)),
        }
    ),
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    qk_norm="plain",
    router=ROUTER,
    window_period=_PERIOD,
    chunked=True,
    unsaid={
        "attention.sliding_window": _CHUNK,
        "attention.temperature_scale": _STRENGTH,
        "attention.temperature_length": _FLOOR,
    },
    files=FileHabits(says_step=True),
    left_out=("vision_model.", "multi_modal_projector."),
    llama_cpp=LlamaCpp(
        output_bias=False,
        rope_factors=True,
        dense_layers="any",
        windows=True,
        refuses=(llama_cpp_refuses,),
        differs=(llama_cpp_rope, llama_cpp_chunks, llama_cpp_queries, llama_cpp_norms),
    ),
    notes="The text model, also of checkpoints with a vision tower, which is left out with a warning. Attention within "
    "chunks, queries that are scaled by their position, and experts whose inputs are weighed, are honoured. llama.cpp "
    "takes chunks as 8192 positions, every fourth layer as one without rope and the scales as those of Scout and "
    "Maverick, and normalises queries and keys unless there are 128 experts.",
)
