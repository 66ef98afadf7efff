"""gpt-oss: attention with sinks, every second layer within a window, and experts with biases and a clamped SwiGLU.

Checkpoints have the experts' gates and ups in turns, in BF16 and transposed, or in MXFP4. Sources: transformers'
`modeling_gpt_oss`; llama.cpp's `conversion/gpt_oss.py` and `models/openai-moe.cpp` for the names in GGUF.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, attention, predict, stored
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan, Role
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import SOFTMAX
from edgert_models.sources import ExpertVectors, Stored, TransposedExperts
from edgert_models.spec import ModelSpec

_LAYER = "model.layers.{i}"


def has_window(layer: int) -> bool:
    """Whether a layer sees only the window: the first does, the second does not, and so on."""
    return layer % 2 == 0


def config(c: Config) -> ModelSpec:
    """ModelSpec of GptOssForCausalLM; another order of windows, another activation, and no biases are refused."""
    c.refuse_unless("attention_bias", (True,), default=True)
    c.refuse_unless("swiglu_limit", (7.0,), default=7.0)
    c.refuse_unless("swiglu_alpha", (1.702,), default=1.702)
    spec = ModelSpec(
        architecture="gpt-oss",
        **{**decoder_sizes(c, RopeLayout.HALVES, yarn_truncate=False), "attention_bias": True, "output_bias": True},
        **expert_sizes(c, "intermediate_size", SOFTMAX),
        window=c.integer("sliding_window"),
    )
    kinds = ["sliding_attention" if has_window(i) else "full_attention" for i in range(spec.layers)]
    if c.get("layer_types") not in (None, kinds):
        raise UnsupportedError("config.json: layer_types must be sliding_attention and full_attention in turns")
    return spec


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder` with sinks, and biases for the router and the experts."""
    s = g.spec
    x = g.embed()
    for i in range(s.layers):
        block = f"blk.{i}"
        window = s.window if has_window(i) else None
        y = g.rms_norm(x, f"{block}.attn_norm.weight")
        x = g.add(x, attention(g, y, block, window=window, rope=s.rope, sinks=f"{block}.attn_sinks.weight"))
        y = g.rms_norm(x, f"{block}.post_attention_norm.weight")
        logits = g.linear(y, f"{block}.ffn_gate_inp", s.experts, bias=True, role=Role.ROUTER)
        x = g.add(x, g.moe(y, logits, block, kind="swiglu_oai", bias=True))
    return predict(g, x)


ARCHITECTURE = Architecture(
    name="gpt-oss",
    title="gpt-oss",
    hf_classes=("GptOssForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **stored(
            post_attention_norm=f"{_LAYER}.post_attention_layernorm",
            ffn_gate_inp=f"{_LAYER}.mlp.router",
        ),
        "attn_sinks.weight": Stored((f"{_LAYER}.self_attn.sinks",)),
        "ffn_gate_exps.weight": TransposedExperts((f"{_LAYER}.mlp.experts.gate_up_proj",), 0, 2),
        "ffn_up_exps.weight": TransposedExperts((f"{_LAYER}.mlp.experts.gate_up_proj",), 1, 2),
        "ffn_down_exps.weight": TransposedExperts((f"{_LAYER}.mlp.experts.down_proj",)),
        "ffn_gate_exps.bias": ExpertVectors((f"{_LAYER}.mlp.experts.gate_up_proj_bias",), 0, 2),
        "ffn_up_exps.bias": ExpertVectors((f"{_LAYER}.mlp.experts.gate_up_proj_bias",), 1, 2),
        "ffn_down_exps.bias": ExpertVectors((f"{_LAYER}.mlp.experts.down_proj_bias",)),
    },
    rope_layout=RopeLayout.HALVES,
    yarn_truncate=False,
    quantized=("mxfp4",),
    llama_cpp=LlamaCpp(own_output=True, windows=True),
    notes="Sinks, windows in every second layer, biases of all projections and experts, the clamped SwiGLU, and "
    "experts in BF16 or MXFP4: these go into the file to the bit, whatever the mix, unless `--tensor` says "
    "otherwise. Other `layer_types`, `swiglu_limit` or `swiglu_alpha`, and no biases, are refused.",
)
