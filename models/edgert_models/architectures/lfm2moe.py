"""LFM2-MoE: LFM2's layers with experts in all but the first ones, chosen by sigmoids and a bias.

Sources: transformers' `modeling_lfm2_moe`; llama.cpp's `conversion/lfm2.py` and `models/lfm2moe.cpp`.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architecture import expert_names
from edgert_models.architectures import lfm2
from edgert_models.config import Config, expert_sizes, layer_count, sparse_layers
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.router import Router
from edgert_models.sources import Stored
from edgert_models.spec import ModelSpec

_ROUTER = Router(scoring="sigmoid", epsilon=1e-6, bias=True)


def config(c: Config) -> ModelSpec:
    """ModelSpec of Lfm2MoeForCausalLM."""
    router = replace(
        _ROUTER,
        normalize=c.boolean("norm_topk_prob", True),
        scale=c.number("routed_scaling_factor", default=1.0),
        bias=c.boolean("use_expert_bias", True),
    )
    dense = c.integer("num_dense_layers", default=2)
    return ModelSpec(
        architecture="lfm2moe",
        **lfm2.hybrid_sizes(c),
        **expert_sizes(c, "moe_intermediate_size", router),
        **sparse_layers(i >= dense for i in range(layer_count(c))),
    )


def llama_cpp_refuses(spec: ModelSpec) -> str:
    """Why llama.cpp would not load a model."""
    return "" if spec.router.bias else "it wants a bias of the router in lfm2moe"


ARCHITECTURE = replace(
    lfm2.ARCHITECTURE,
    name="lfm2moe",
    title="LFM2-MoE",
    hf_classes=("Lfm2MoeForCausalLM",),
    config=config,
    names={
        **lfm2.NAMES,
        **expert_names("feed_forward", "w1", "w3", "w2"),
        "exp_probs_b.bias": Stored(("model.layers.{i}.feed_forward.expert_bias",)),
    },
    router=_ROUTER,
    llama_cpp=LlamaCpp(output_bias=False, normalizes=True, refuses=(llama_cpp_refuses,)),
    notes=f"{lfm2.ARCHITECTURE.notes} llama.cpp loads no router without a bias, and always normalises the weights of "
    "experts.",
)
