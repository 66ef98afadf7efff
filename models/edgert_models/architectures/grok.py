"""Grok: factors on embeddings, scores and logits, caps of scores, norms before and after, and experts with GELU gates
in every layer, beside which Grok-2 has a dense network.

Sources: xAI's `model.py` of Grok-1; llama.cpp's `conversion/grok.py`, `models/grok.cpp` and `llama-graph.cpp`, by which
scores are scaled before they are capped, and the weights of the chosen experts sum to one.
"""

from __future__ import annotations

from edgert_models.architecture import Architecture, FileHabits, attention, embedded, norm, predict, residual
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.graph import Graph, Plan, Role
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.router import SOFTMAX
from edgert_models.sources import Experts, Source, Stored
from edgert_models.spec import ModelSpec, Scales

_FIRST, _SECOND = "transformer.decoder_layer.{i}", "model.layers.{i}"  # as checkpoints of Grok-1 and Grok-2 have layers
_FIRST_CLASS = "GrokForCausalLM"
_HALF = 0.5**0.5


def config(c: Config) -> ModelSpec:
    """ModelSpec of GrokForCausalLM and Grok1ForCausalLM; scaled rope and temperatures by position are refused."""
    for key in ("rope_type", "attn_temperature_len"):
        c.refuse_unless(key, (None,), default=None)
    beside = c.boolean("residual_moe")
    width = "moe_intermediate_size" if c.get("moe_intermediate_size") is not None else "intermediate_size"
    sizes = decoder_sizes(c, RopeLayout.HALVES)
    return ModelSpec(
        architecture="grok",
        **{**sizes, "feed_forward": sizes["feed_forward"] if beside else 0},
        **expert_sizes(c, width, SOFTMAX),
        dense_beside=beside,
        activation="gelu",
        network_norm="layer_output_norm" if c.get("architectures") == [_FIRST_CLASS] else "post_ffw_norm",
        scales=Scales(
            embedding=c.number("embedding_multiplier_scale"),
            attention=c.number("attn_output_multiplier", default=sizes["head_size"] ** -0.5),
            attention_cap=c.number("attn_logit_softcapping", default=30.0),
            logits=c.number("output_multiplier_scale"),
            logits_cap=c.number("final_logit_softcapping", default=0.0) or None,
        ),
    )


def network(g: Graph, x: Value, layer: int) -> Value:
    """Experts, and maybe a dense network: of both half the square."""
    s, block = g.spec, f"blk.{layer}"
    routed = g.moe(x, g.linear(x, f"{block}.ffn_gate_inp", s.experts, role=Role.ROUTER), block)
    if not s.dense_beside:
        return routed
    gate, up = (g.linear(x, f"{block}.ffn_{part}", s.feed_forward) for part in ("gate", "up"))
    dense = g.linear(g.gated(gate, up, s.activation), f"{block}.ffn_down", s.width)
    return g.scale(g.add(routed, dense), _HALF)


def wire(g: Graph) -> Plan:
    """Norm, attention, norm, add, norm, experts, norm, add."""
    x = embedded(g)
    for i in range(g.spec.layers):
        block = f"blk.{i}"
        y = attention(g, norm(g, x, f"{block}.attn_norm"), block, window=None, rope=g.spec.rope)
        x = residual(g, x, norm(g, y, f"{block}.attn_output_norm"))
        y = network(g, norm(g, x, f"{block}.ffn_norm"), i)
        x = residual(g, x, norm(g, y, f"{block}.{g.spec.network_norm}"))
    return predict(g, x)


def _either(**names: tuple[str, ...]) -> dict[str, Source]:
    return {f"{ours}.weight": Stored(tuple(f"{each}.weight" for each in theirs)) for ours, theirs in names.items()}


def _experts(first: str, second: str) -> Experts:
    names = (f"{_FIRST}.moe.{{e}}.{first}", f"{_SECOND}.block_sparse_moe.experts.{{e}}.{second}")
    return Experts(tuple(f"{name}.weight" for name in names), ())


ARCHITECTURE = Architecture(
    name="grok",
    title="Grok-1, Grok-2",
    hf_classes=(_FIRST_CLASS, "Grok1ForCausalLM"),
    config=config,
    wire=wire,
    names={
        **_either(
            token_embd=("transformer.in_out_embed", "model.embed_tokens"),
            output_norm=("transformer.rms_norm", "model.norm"),
            output=("lm_head",),
            attn_norm=(f"{_FIRST}.rms_norm", f"{_SECOND}.pre_attn_norm"),
            attn_q=(f"{_FIRST}.multi_head_attention.query", f"{_SECOND}.self_attn.q_proj"),
            attn_k=(f"{_FIRST}.multi_head_attention.key", f"{_SECOND}.self_attn.k_proj"),
            attn_v=(f"{_FIRST}.multi_head_attention.value", f"{_SECOND}.self_attn.v_proj"),
            attn_output=(f"{_FIRST}.multi_head_attention.linear", f"{_SECOND}.self_attn.o_proj"),
            attn_output_norm=(f"{_FIRST}.rms_norm_1", f"{_SECOND}.post_attn_norm"),
            ffn_norm=(f"{_FIRST}.rms_norm_2", f"{_SECOND}.pre_moe_norm"),
            ffn_gate=(f"{_SECOND}.mlp.gate_proj",),
            ffn_up=(f"{_SECOND}.mlp.up_proj",),
            ffn_down=(f"{_SECOND}.mlp.down_proj",),
            ffn_gate_inp=(f"{_FIRST}.router", f"{_SECOND}.block_sparse_moe.gate"),
            layer_output_norm=(f"{_FIRST}.rms_norm_3",),
            post_ffw_norm=(f"{_SECOND}.post_moe_norm",),
        ),
        "ffn_gate_exps.weight": _experts("linear", "w1"),
        "ffn_up_exps.weight": _experts("linear_v", "w3"),
        "ffn_down_exps.weight": _experts("linear_1", "w2"),
    },
    rope_layout=RopeLayout.HALVES,
    activation="gelu",
    also_called=("gelu",),
    unsaid={
        "embedding_scale": 78.38367176906169,
        "logit_scale": 0.5773502691896257,
        "attention.output_scale": 0.08838834764831845,
        "attn_logit_softcapping": 30.0,
    },
    files=FileHabits(score_scale="attention.output_scale"),
    llama_cpp=LlamaCpp(as_wide=True, score_scale=True, normalizes=True),
    notes="`transformers` has no such model: what is tested is a model of ours in torch, and llama.cpp's logits of the "
    "same file. Files of Grok-2 are read; its checkpoint, with scaled rope (`rope_type`), temperatures by position "
    "(`attn_temperature_len`) and tensors that are divided among files, is refused. As in llama.cpp, logits of routers "
    "have no cap, and temperatures of files are ignored.",
)
