"""DeepSeek-V2 and V3, and what is built alike: latent attention, and experts beside shared ones.

Keys and values of all heads are products of one latent of a position. A head's product for keys is done to its query
instead, and that for values to what attention gives (so they are called absorbed): attention has one head of keys, the
latent and beside it a part that rope turns, and values are the latent. Sources: DeepSeek-V2 (arXiv 2405.04434);
transformers' `modeling_deepseek_v2`, `modeling_deepseek_v3`, `modeling_glm4_moe_lite` and `modeling_youtu`;
llama.cpp's `conversion/deepseek.py` and `models/deepseek2.cpp` for the names in GGUF.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    embedded,
    expert_names,
    feed_forward,
    norm,
    predict,
    residual,
    shared_expert_names,
    stored,
)
from edgert_models.config import Config, decoder_sizes, expert_sizes, layer_count, mlp_layers, sparse_layers
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.nextn import AFTER_THE_LAST
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout, with_scaled_scores
from edgert_models.router import Router
from edgert_models.sources import HeadRows, Source
from edgert_models.spec import Latent, ModelSpec

_LATENT_EPS = 1e-6
"""That of the norms of latents, whatever the model's is."""
_DENSE = (("DeepseekV2", 0), ("DeepseekV3", 3))
"""How many layers are dense where a config does not say, one in other classes."""
_UNSAID = Router(normalize=False, group_best=1)
"""DeepSeek-V2's."""


def config(c: Config) -> ModelSpec:
    """ModelSpec of any of the classes; biases of networks, and rope with pairs in halves, are refused."""
    c.refuse_unless("mlp_bias", (False,), default=False)
    c.refuse_unless("rope_interleave", (True,), default=True)
    c.refuse_unless("moe_layer_freq", (1,), default=1)
    return ModelSpec(architecture="deepseek2", **latent_sizes(c), **_experts(c))


def latent_sizes(c: Config) -> dict[str, Any]:
    """The ModelSpec fields of decoders with latent attention."""
    rotated, rank = c.integer("qk_rope_head_dim"), c.integer("kv_lora_rank")
    sizes = decoder_sizes(Config({**c, "head_dim": rotated}), RopeLayout.INTERLEAVED)
    latent = Latent(
        rank=rank,
        query_rank=c.integer("q_lora_rank", default=0),
        key_size=c.integer("qk_nope_head_dim") + rotated,
        value_size=c.integer("v_head_dim"),
    )
    absorbed = {"kv_heads": 1, "head_size": rank + rotated, "value_length": rank}
    return {**sizes, **absorbed, "rope": with_scaled_scores(sizes["rope"], c), "latent": latent}


def _experts(c: Config) -> dict[str, Any]:
    """The ModelSpec fields of experts, nothing for a dense model."""
    kind = str(c["architectures"][0])
    if kind.startswith("Youtu"):
        return {"router": _UNSAID}
    if kind.startswith("Mistral4"):
        limited, router = True, Router(normalize=c.boolean("norm_topk_prob", True))
    elif kind.startswith("DeepseekV2"):
        limited = c.get("topk_method") == "group_limited_greedy"
        c.refuse_unless("topk_method", ("greedy", "group_limited_greedy"), default="greedy")
        c.refuse_unless("scoring_func", ("softmax",), default="softmax")
        router = _UNSAID
    else:
        limited = True
        c.refuse_unless("topk_method", ("noaux_tc",), default="noaux_tc")
        c.refuse_unless("scoring_func", ("sigmoid",), default="sigmoid")
        router = Router(scoring="sigmoid", normalize=c.boolean("norm_topk_prob", True), bias=True)
    groups = c.integer("n_group", default=1) if limited else 1
    router = replace(
        router,
        scale=c.number("routed_scaling_factor", default=1.0),
        groups=groups,
        groups_used=c.integer("topk_group", default=groups) if limited else 1,
    )
    width = c.integer("moe_intermediate_size")
    if "mlp_layer_types" in c:
        sparse = mlp_layers(c)
    else:
        dense = c.integer("first_k_dense_replace", default=next((n for k, n in _DENSE if kind.startswith(k)), 1))
        sparse = sparse_layers(i >= dense for i in range(layer_count(c)))
    return {
        **expert_sizes(c, "moe_intermediate_size", router),
        **sparse,
        "shared_feed_forward": width * c.integer("n_shared_experts", default=0),
    }


def settle(spec: ModelSpec) -> ModelSpec:
    """Files do not say how groups are ranked, and old ones not that experts with a bias are chosen by sigmoids."""
    scoring = "sigmoid" if spec.router.bias else spec.router.scoring
    return replace(spec, router=replace(spec.router, scoring=scoring, group_best=2 if scoring == "sigmoid" else 1))


def attention(g: Graph, x: Value, block: str, *, gate_name: str | None = None) -> Value:
    """Latent attention, with the products of heads absorbed, and rope where the model has positions. The product
    `gate_name` lets through what each head gives.
    """
    s = g.spec
    latent = s.latent
    assert latent is not None
    rotated = s.rope.dims
    plain = latent.key_size - rotated
    q, name = x, f"{block}.attn_q"
    if latent.query_rank:
        q = g.linear(x, f"{block}.attn_q_a", latent.query_rank, bias=s.attention_bias)
        q, name = g.rms_norm(q, f"{block}.attn_q_a_norm.weight", eps=_LATENT_EPS), f"{block}.attn_q_b"
    q = g.linear(q, name, s.heads * latent.key_size)
    q = g.rope(q, s.heads, s.rope, first=plain) if s.positions else q
    q = g.head_linear(q, f"{block}.attn_k_b.weight", s.heads, latent.rank, rest=rotated)
    q = g.position_scale(q, s.scales.queries or 0.0, s.scales.queries_length or 1)
    k = g.linear(x, f"{block}.attn_kv_a_mqa", s.head_size, bias=s.attention_bias)
    k = g.rms_norm(k, f"{block}.attn_kv_a_norm.weight", rest=rotated, eps=_LATENT_EPS)
    k = g.rope(k, 1, s.rope, first=latent.rank) if s.positions else k
    y = g.attend(q, k, None, scale=latent.key_size**-0.5 * s.rope.score_factor())
    y = g.head_linear(y, f"{block}.attn_v_b.weight", s.heads, latent.value_size)
    y = g.gated(g.linear(x, gate_name, s.heads), y, "sigmoid") if gate_name else y
    return g.linear(y, f"{block}.attn_output", s.width, bias=s.output_bias)


def wire(g: Graph, *, mixture_norm: str | None = None) -> Plan:
    """The wiring of `pre_norm_decoder`, with latent attention, and a norm of that name for what mixtures give."""
    s = g.spec
    x = embedded(g)
    for i in range(s.layers):
        block = f"blk.{i}"
        x = residual(g, x, attention(g, norm(g, x, f"{block}.attn_norm"), block))
        y = feed_forward(g, norm(g, x, f"{block}.ffn_norm"), i)
        x = residual(g, x, norm(g, y, f"{block}.{mixture_norm}") if mixture_norm and s.has_experts(i) else y)
    return predict(g, x)


def llama_cpp_differs(spec: ModelSpec) -> str:
    """What llama.cpp computes otherwise."""
    found = "llama.cpp scales scores of deepseek2 as yarn does, also with rope scaling linear"
    return found if spec.rope.scaling == "linear" else ""


def latent_names(module: str) -> dict[str, Source]:
    """Latent attention in the `module` of a checkpoint."""
    return {
        **stored(
            attn_q_a=f"{module}.q_a_proj",
            attn_q_a_norm=f"{module}.q_a_layernorm",
            attn_q_b=f"{module}.q_b_proj",
            attn_kv_a_mqa=f"{module}.kv_a_proj_with_mqa",
            attn_kv_a_norm=f"{module}.kv_a_layernorm",
        ),
        "attn_k_b.weight": HeadRows((f"{module}.kv_b_proj.weight",), keys=True),
        "attn_v_b.weight": HeadRows((f"{module}.kv_b_proj.weight",), keys=False),
    }


ARCHITECTURE = Architecture(
    name="deepseek2",
    title="DeepSeek-V2, V3 and R1, Kimi-K2, Moonlight, GLM-4.7-Flash, Youtu-LLM",
    hf_classes=("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "Glm4MoeLiteForCausalLM", "YoutuForCausalLM"),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **expert_names("mlp"),
        **shared_expert_names(),
        **latent_names("model.layers.{i}.self_attn"),
    },
    rope_layout=RopeLayout.INTERLEAVED,
    checkpoint_layout=RopeLayout.INTERLEAVED,
    router=_UNSAID,
    scales_scores=True,
    settle=settle,
    nextn=AFTER_THE_LAST,
    llama_cpp=LlamaCpp(output_bias=False, differs=(llama_cpp_differs,)),
    notes="The cache holds a latent a position, keys and values in one; files that have `attn_kv_b` in one tensor are "
    "read as well. Yarn's `mscale` and `mscale_all_dim` are honoured, `rope_interleave: false` is refused. Norms of "
    "latents have an epsilon of 1e-6, as in `transformers`; llama.cpp takes the model's there, ranks groups of experts "
    "by the two best of each, also in DeepSeek-V2, which ranks them by the best, and loads no biases. Its "
    "converter does not name the router of checkpoints that transformers 5 saved: llama.cpp then takes a softmax.",
)
