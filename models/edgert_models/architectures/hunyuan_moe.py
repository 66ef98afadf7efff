"""Hunyuan-A13B: Hunyuan's attention, and experts beside a shared one in every layer.

Sources: transformers' `modeling_hunyuan_v1_moe`; llama.cpp's `conversion/hunyuan.py` and `models/hunyuan-moe.cpp`.
"""

from __future__ import annotations

from edgert_models.architecture import Architecture, expert_names, shared_expert_names
from edgert_models.architectures import hunyuan_dense
from edgert_models.config import Config, decoder_sizes, expert_sizes
from edgert_models.errors import UnsupportedError
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.router import SOFTMAX
from edgert_models.spec import ModelSpec

_OF_LAYERS = ("moe_topk", "num_experts", "num_shared_expert", "moe_intermediate_size")


def config(c: Config) -> ModelSpec:
    """ModelSpec of HunYuanMoEV1ForCausalLM; layers that differ, and caches shared by layers, are refused."""
    c = Config({**c, **{key: _same(c, key) for key in _OF_LAYERS if isinstance(c.get(key), list)}})
    c.refuse_unless("use_cla", (False,), default=False)
    c.refuse_unless("use_qk_norm", (True,), default=True)
    c.refuse_unless("moe_layer_num_skipped", (0,), default=0)
    c.refuse_unless("num_shared_expert", (1,), default=1)
    width = c.integer("intermediate_size")
    c.refuse_unless("moe_intermediate_size", (width,), default=width)
    return ModelSpec(
        architecture="hunyuan-moe",
        **decoder_sizes(hunyuan_dense.with_stretched_base(c), RopeLayout.HALVES),
        **expert_sizes(c, "intermediate_size", SOFTMAX),
        shared_feed_forward=width,
        qk_norm="head",
    )


def _same(c: Config, key: str) -> object:
    """What a list says of every layer."""
    first, *others = c[key] or (None,)
    if any(other != first for other in others):
        raise UnsupportedError(f"config.json: {key} differs by layer, which is not supported")
    return first


ARCHITECTURE = Architecture(
    name="hunyuan-moe",
    title="Hunyuan-A13B",
    hf_classes=("HunYuanMoEV1ForCausalLM",),
    config=config,
    wire=hunyuan_dense.wire,
    names={
        **hunyuan_dense.ARCHITECTURE.names,
        **expert_names("mlp", router="gate.wg"),
        **shared_expert_names("mlp.shared_mlp"),
    },
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    llama_cpp=LlamaCpp(output_bias=False),
    notes="The rope that `alpha` stretches is honoured. Layers that differ and caches shared by layers (`use_cla`) are "
    "refused. llama.cpp loads no bias of the attention output.",
)
