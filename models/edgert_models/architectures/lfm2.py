"""LFM2: short convolutions with two gates in most layers, attention with normalised queries and keys in the others.

Sources: transformers' `modeling_lfm2`; llama.cpp's `conversion/lfm2.py` and `models/lfm2.cpp` for the names in GGUF.
"""

from __future__ import annotations

from typing import Any

from edgert_models.architecture import COMMON_NAMES, Architecture, attention, hybrid_decoder, stored
from edgert_models.config import Config, decoder_sizes, recurrent_layers
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.sources import Source, Stored
from edgert_models.spec import MAX_LAYERS, ModelSpec, Recurrence

_LAYER = "model.layers.{i}"


def config(c: Config) -> ModelSpec:
    """ModelSpec of Lfm2ForCausalLM."""
    return ModelSpec(architecture="lfm2", **{**hybrid_sizes(c), "feed_forward": _feed_forward(c)})


def hybrid_sizes(c: Config) -> dict[str, Any]:
    """The ModelSpec fields of all models with such layers; biases of convolutions are refused."""
    c.refuse_unless("conv_bias", (False,), default=False)
    layers = range(min(c.integer("num_hidden_layers"), MAX_LAYERS))
    attends = c.get("full_attn_idxs") or layers
    if not isinstance(attends, list | range):
        raise UnsupportedError(f"config.json: full_attn_idxs must be a list, not {attends!r}")
    c = Config(
        {
            "rope_theta": 1000000.0,
            "layer_types": ["full_attention" if i in attends else "conv" for i in layers],
            "tie_word_embeddings": c.boolean("tie_embedding", True),
            **{key: value for key, value in c.items() if value is not None},
            "rms_norm_eps": c.number("norm_eps", default=1e-5),
        }
    )
    return {
        **decoder_sizes(c, RopeLayout.HALVES),
        "attention_bias": False,
        "output_bias": False,
        "qk_norm": "head",
        "recurrence": Recurrence(layers=recurrent_layers(c, "conv"), kernel=c.integer("conv_L_cache", default=3)),
    }


def _feed_forward(c: Config) -> int:
    """The width of the feed-forward network, as `Lfm2MLP` adjusts what the config says."""
    width = c.integer("block_ff_dim", "intermediate_size")
    if not c.boolean("block_auto_adjust_ff_dim", True):
        return width
    multiple = max(c.integer("block_multiple_of", default=256), 1)
    return multiple * -(-int(c.number("block_ffn_dim_multiplier", default=1.0) * int(2 * width / 3)) // multiple)


def mix(g: Graph, x: Value, layer: int) -> Value:
    """Attention, or a convolution of what one gate lets in, and what another gate lets out."""
    s, r, block = g.spec, g.spec.recurrence, f"blk.{layer}"
    assert r is not None
    if not s.recurs(layer):
        return attention(g, x, block, window=None, rope=s.rope)
    projected = g.linear(x, f"{block}.shortconv.in_proj", 3 * s.width)
    inward, outward, y = (g.slice(projected, part * s.width, s.width) for part in range(3))
    y = g.short_conv(g.gated(inward, y, "bilinear"), f"{block}.shortconv.conv", r.kernel)
    return g.linear(g.gated(outward, y, "bilinear"), f"{block}.shortconv.out_proj", s.width)


def wire(g: Graph) -> Plan:
    """The wiring of `hybrid_decoder` with convolutions."""
    return hybrid_decoder(g, mix, last_norm="token_embd_norm")


NAMES: dict[str, Source] = {
    **COMMON_NAMES,
    **stored(
        token_embd_norm="model.embedding_norm",
        attn_norm=f"{_LAYER}.operator_norm",
        attn_output=f"{_LAYER}.self_attn.out_proj",
        attn_q_norm=f"{_LAYER}.self_attn.q_layernorm",
        attn_k_norm=f"{_LAYER}.self_attn.k_layernorm",
        ffn_norm=f"{_LAYER}.ffn_norm",
        ffn_gate=f"{_LAYER}.feed_forward.w1",
        ffn_up=f"{_LAYER}.feed_forward.w3",
        ffn_down=f"{_LAYER}.feed_forward.w2",
    ),
    **{
        f"shortconv.{part}.weight": Stored((f"{_LAYER}.conv.{part}.weight",))
        for part in ("in_proj", "conv", "out_proj")
    },
}
ARCHITECTURE = Architecture(
    name="lfm2",
    title="LFM2",
    hf_classes=("Lfm2ForCausalLM",),
    config=config,
    wire=wire,
    names=NAMES,
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    llama_cpp=LlamaCpp(output_bias=False),
    notes="Short convolutions, whose state is kept beside the cache. `conv_bias` is refused.",
)
