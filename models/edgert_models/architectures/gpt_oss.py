"""gpt-oss: attention with sinks, every second layer within a window, and experts with biases and a clamped SwiGLU.

Checkpoints have the experts' gates and ups in turns, in BF16 and transposed, or in MXFP4. Sources: transformers'
`modeling_gpt_oss`; llama.cpp's `conversion/gpt_oss.py` and `models/openai-moe.cpp` for the names in GGUF.
"""

from __future__ import annotations

from edgert_models.architecture import COMMON_NAMES, Architecture, FileHabits, attention, predict, stored
from edgert_models.config import Config, decoder_sizes, expert_sizes, windows
from edgert_models.graph import Graph, Plan, Role
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import SOFTMAX
from edgert_models.sources import ExpertVectors, Stored, TransposedExperts
from edgert_models.spec import ModelSpec

_LAYER = "model.layers.{i}"
_PERIOD = 2  # of the layers that see everything


def config(c: Config) -> ModelSpec:
    """ModelSpec of GptOssForCausalLM; another activation is refused."""
    c.refuse_unless("swiglu_limit", (7.0,), default=7.0)
    c.refuse_unless("swiglu_alpha", (1.702,), default=1.702)
    biased = c.boolean("attention_bias", True)
    sizes = decoder_sizes(c, RopeLayout.HALVES, yarn_truncate=False)
    return ModelSpec(
        architecture="gpt-oss",
        **{**sizes, "attention_bias": biased, "output_bias": biased, **windows(c, period=_PERIOD)},
        **expert_sizes(c, "intermediate_size", SOFTMAX),
    )


def wire(g: Graph) -> Plan:
    """The wiring of `pre_norm_decoder` with sinks, and biases for the router and the experts."""
    s = g.spec
    x = g.embed()
    for i in range(s.layers):
        block = f"blk.{i}"
        y, sinks = g.rms_norm(x, f"{block}.attn_norm.weight"), f"{block}.attn_sinks.weight"
        x = g.add(x, attention(g, y, block, window=s.window_of(i), rope=s.rope, sinks=sinks))
        y = g.rms_norm(x, f"{block}.post_attention_norm.weight")
        logits = g.linear(y, f"{block}.ffn_gate_inp", s.experts, bias=True, role=Role.ROUTER)
        x = g.add(x, g.moe(y, logits, block, kind="swiglu_oai", bias=True))
    return predict(g, x)


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    if not spec.window:
        return "it wants windows in gpt-oss"
    return "" if spec.attention_bias else "it wants biases of attention in gpt-oss"


def llama_cpp_differs(spec: ModelSpec) -> str:
    """What llama.cpp computes otherwise."""
    usual = tuple((i + 1) % _PERIOD != 0 for i in range(spec.layers))
    if not spec.windowed or spec.windowed == usual:
        return ""
    return f"llama.cpp takes every {_PERIOD}nd layer of gpt-oss as one without a window; here it is others"


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
    window_period=_PERIOD,
    files=FileHabits(implies_windows=True),
    llama_cpp=LlamaCpp(own_output=True, windows=True, refuses=(llama_cpp_refuses,), differs=(llama_cpp_differs,)),
    notes="Sinks, windows in the layers that `layer_types` names, biases of all projections and experts, the clamped "
    "SwiGLU, and experts in BF16 or MXFP4: these go into the file to the bit, whatever the mix, unless `--tensor` says "
    "otherwise. Another `swiglu_limit` or `swiglu_alpha` is refused. llama.cpp takes every second layer from the first "
    "as one with a window, and loads no model without windows or biases of attention.",
)
