"""Ling 3: Kimi Delta Attention with bounded decays, and in the last layer of each group latent attention whose heads
have gates; experts in groups.

Sources: transformers' `modeling_bailing_hybrid`; llama.cpp's `conversion/bailingmoe3.py` and `models/bailingmoe3.cpp`
for the names in GGUF, where `ssm_a` is positive.
"""

from __future__ import annotations

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    expert_names,
    hybrid_decoder,
    shared_expert_names,
    stored,
)
from edgert_models.architectures.deepseek2 import attention, latent_names
from edgert_models.architectures.kimi_linear import (
    as_deepseek,
    biased_experts,
    delta_attention,
    delta_names,
    untied_sizes,
)
from edgert_models.config import Config, layer_count, recurrent_layers
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.nextn import AFTER_THE_LAST
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.sources import Arranged
from edgert_models.spec import ModelSpec, Recurrence

_ATTENTION = "model.layers.{i}.attention"
_OFFICIAL = "BailingMoeV3ForCausalLM"


def config(c: Config) -> ModelSpec:
    """ModelSpec of BailingHybridForCausalLM and BailingMoeV3ForCausalLM; decays without a bound, decays and gates of
    low rank, and limits of SwiGLU are refused.
    """
    c.refuse_unless("kda_safe_gate", (True,), default=True)
    c.refuse_unless("no_kda_lora", (True,), default=True)
    c.refuse_unless("gated_attention_proj_granularity_type", ("head_wise",), default="head_wise")
    c.refuse_unless("score_function", ("sigmoid",), default="sigmoid")
    for key in ("expert_swiglu_limit_list", "share_expert_swiglu_limit_list"):
        if any(c.get(key) or ()):
            c.refuse_unless(key, (None,), default=None)
    c = as_deepseek(c)
    heads, size = c.integer("num_attention_heads"), c.integer("linear_head_dim", "head_dim", default=128)
    recurrence = Recurrence(
        layers=_layers(c),
        kernel=c.integer("short_conv_kernel_size", default=4),
        inner=heads * size,
        state=size,
        heads=heads,
        groups=heads,
        channels=True,
        floor=c.number("kda_lower_bound", default=-5.0),
    )
    return ModelSpec(architecture="bailingmoe3", **untied_sizes(c), **biased_experts(c), recurrence=recurrence)


def _layers(c: Config) -> tuple[bool, ...]:
    """Of every layer, whether it is a delta net: all but the last of each group, and in the models' own code those of a
    group that is not whole.
    """
    period, layers = max(c.integer("layer_group_size", default=6), 1), layer_count(c)
    whole = layers // period * period if c.get("architectures") == [_OFFICIAL] else layers
    usual = ["linear_attention" if (i + 1) % period and i < whole else "full_attention" for i in range(layers)]
    return recurrent_layers(Config({**c, "layer_types": c.get("layer_types") or usual}), "linear_attention")


def wire(g: Graph) -> Plan:
    """The wiring of `hybrid_decoder` with delta nets and gated latent attention."""

    def mix(g: Graph, x: Value, layer: int) -> Value:
        block = f"blk.{layer}"
        if g.spec.recurs(layer):
            return delta_attention(g, x, block, low_rank=False)
        return attention(g, x, block, gate_name=f"{block}.attn_gate")

    return hybrid_decoder(g, mix)


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    if spec.attention_bias:
        return "it knows no biases in bailingmoe3"
    return "" if spec.shared_feed_forward else "it wants shared experts in bailingmoe3"


def llama_cpp_differs(spec: ModelSpec) -> str:
    """What llama.cpp computes otherwise."""
    return "llama.cpp does not scale scores of bailingmoe3 as yarn does" if spec.rope.scaling == "yarn" else ""


ARCHITECTURE = Architecture(
    name="bailingmoe3",
    title="Ling 3",
    hf_classes=("BailingHybridForCausalLM", _OFFICIAL),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **expert_names("mlp", bias="gate.expert_bias"),
        **shared_expert_names(),
        **latent_names(_ATTENTION),
        **delta_names(_ATTENTION),
        **stored(
            token_embd="model.word_embeddings",
            attn_q=f"{_ATTENTION}.q_proj",
            attn_k=f"{_ATTENTION}.k_proj",
            attn_v=f"{_ATTENTION}.v_proj",
            attn_output=f"{_ATTENTION}.dense",
            attn_gate=f"{_ATTENTION}.g_proj",
            ssm_f_a=f"{_ATTENTION}.f_proj",
            ssm_g_a=f"{_ATTENTION}.g_proj",
            layer_output_norm="model.layers.{i}.final_layernorm",
        ),
        "ssm_a": Arranged((f"{_ATTENTION}.A_log",), exponential=1),
    },
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    router=BIASED_SIGMOID,
    scales_scores=True,
    nextn=AFTER_THE_LAST,
    llama_cpp=LlamaCpp(own_output=True, refuses=(llama_cpp_refuses,), differs=(llama_cpp_differs,)),
    notes="Decays without a bound, low ranks of decays and gates, and limits of SwiGLU are refused. Norms of latents "
    "have an epsilon of 1e-6, as in `transformers`; llama.cpp takes the model's there.",
)
