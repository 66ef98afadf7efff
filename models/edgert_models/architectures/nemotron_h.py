"""Nemotron-H: layers that are each one thing, Mamba 2, attention without positions, or a network of squared ReLUs.

Sources: transformers' `modeling_nemotron_h`; llama.cpp's `conversion/nemotron.py` and `models/nemotron-h.cpp`.
"""

from __future__ import annotations

from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    ROPE_NAMES,
    Architecture,
    FileHabits,
    attention,
    embedded,
    norm,
    predict,
    residual,
)
from edgert_models.architectures.granitehybrid import mamba_layer
from edgert_models.config import Config, decoder_sizes, expert_sizes, sparse_layers
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan, Role
from edgert_models.nextn import Nextn, nextn_names
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_models.router import Router
from edgert_models.sources import Arranged, Experts, Source, Stored
from edgert_models.spec import ModelSpec, Recurrence

_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}  # of hybrid_override_pattern
_KINDS = {**_LETTERS, "linear_attention": "mamba", "full_attention": "attention"}
_FIXED = {"mlp_hidden_act": "relu2", "mamba_hidden_act": "silu", "use_conv_bias": True, "use_bias": False}


def config(c: Config) -> ModelSpec:
    """ModelSpec of NemotronHForCausalLM: with experts if a layer has any; never tied, whatever the config says. Biases,
    other activations, experts on a latent value and networks with and without experts in one model are refused.
    """
    for key, value in {**_FIXED, "mlp_bias": False, "attention_bias": False, "moe_latent_size": None}.items():
        c.refuse_unless(key, (value,), default=value)
    kinds = _kinds(c)
    mixtures = "moe" in kinds
    if mixtures and "mlp" in kinds:
        raise UnsupportedError("config.json: layers of both kinds, moe and mlp, are not supported in one model")
    recurrence = Recurrence(
        layers=tuple(kind == "mamba" for kind in kinds),
        kernel=c.integer("conv_kernel", default=4),
        inner=c.integer("mamba_num_heads", default=128) * c.integer("mamba_head_dim", default=64),
        state=c.integer("ssm_state_size", default=128),
        heads=c.integer("mamba_num_heads", default=128),
        groups=c.integer("n_groups", default=8),
        least=c.number("time_step_min", default=0.001),
        feeds=tuple(kind in ("mlp", "moe") for kind in kinds),
    )
    c = Config({**c, "num_hidden_layers": len(kinds), "rms_norm_eps": c.number("layer_norm_epsilon", default=1e-5)})
    sizes: dict[str, Any] = {**decoder_sizes(c, RopeLayout.HALVES), "recurrence": recurrence, "positions": False}
    sizes["tied"] = False
    if mixtures:
        router = Router(
            scoring="sigmoid",
            normalize=c.boolean("norm_topk_prob", True),
            epsilon=1e-20,
            scale=c.number("routed_scaling_factor", default=1.0),
            bias=True,
            groups=c.integer("n_group", default=1),
            groups_used=c.integer("topk_group", default=1),
        )
        sizes |= {**expert_sizes(c, "moe_intermediate_size", router), **sparse_layers(recurrence.feeds)}
        sizes["shared_feed_forward"] = c.integer("moe_shared_expert_intermediate_size")
    return ModelSpec(architecture="nemotron_h_moe" if mixtures else "nemotron_h", **sizes)


def _kinds(c: Config) -> list[str]:
    given = c.get("layers_block_type") or c.get("layer_types") or c.get("hybrid_override_pattern")
    if not isinstance(given, list | str) or not given:
        raise UnsupportedError("config.json: layers_block_type or hybrid_override_pattern is missing")
    kinds = [_KINDS.get(str(kind), str(kind)) for kind in given]
    if not set(kinds) <= set(_LETTERS.values()):
        raise UnsupportedError(f"config.json: layers_block_type must say mamba, attention, mlp or moe, not {given}")
    return kinds


def wire(g: Graph) -> Plan:
    """Norm, what the layer is, add; at the end norm and output."""
    s, r = g.spec, g.spec.recurrence
    assert r is not None
    x = embedded(g)
    for i in range(s.layers):
        block = f"blk.{i}"
        y = norm(g, x, f"{block}.attn_norm")
        if s.recurs(i):
            y = mamba_layer(g, y, block)
        elif not r.feeds[i]:
            y = attention(g, y, block, window=None, rope=None)
        elif s.experts:
            logits = g.linear(y, f"{block}.ffn_gate_inp", s.experts, role=Role.ROUTER)
            routed = g.moe(y, logits, block, kind="relu", gated=False)
            y = g.add(routed, _network(g, y, f"{block}.ffn_{{}}_shexp", s.shared_feed_forward))
        else:
            y = _network(g, y, f"{block}.ffn_{{}}", s.feed_forward)
        x = residual(g, x, y)
    return predict(g, x)


def _network(g: Graph, x: Value, name: str, width: int) -> Value:
    up = g.linear(x, name.format("up"), width)
    return g.linear(g.gated(up, up, "relu"), name.format("down"), g.spec.width)


def _names() -> dict[str, Source]:
    """A layer is `mixer` under the model, which is called `model` or `backbone`."""
    parts: dict[str, tuple[str, ...]] = {
        "attn_norm.weight": ("layers.{i}.norm.weight",),
        "output_norm.weight": ("norm_f.weight", "norm.weight"),
        "token_embd.weight": ("embeddings.weight", "embed_tokens.weight", "embedding.weight"),
    }
    mixer = {
        **{f"attn_{part}.weight": f"{part}_proj.weight" for part in "qkv"},
        "attn_output.weight": "o_proj.weight",
        "ffn_up.weight": "up_proj.weight",
        "ffn_down.weight": "down_proj.weight",
        "ffn_gate_inp.weight": "gate.weight",
        "exp_probs_b.bias": "gate.e_score_correction_bias",
        "ffn_up_shexp.weight": "shared_experts.up_proj.weight",
        "ffn_down_shexp.weight": "shared_experts.down_proj.weight",
        "ssm_in.weight": "in_proj.weight",
        "ssm_conv1d.weight": "conv1d.weight",
        "ssm_conv1d.bias": "conv1d.bias",
        "ssm_dt.bias": "dt_bias",
        "ssm_out.weight": "out_proj.weight",
    }
    parts |= {name: (f"layers.{{i}}.mixer.{theirs}",) for name, theirs in mixer.items()}

    def everywhere(*names: str) -> tuple[str, ...]:
        return tuple(f"{model}.{name}" for model in ("model", "backbone") for name in names)

    found: dict[str, Source] = {name: Stored(everywhere(*names)) for name, names in parts.items()}
    for name, theirs in (("ssm_d", "D"), ("ssm_norm.weight", "norm.weight")):
        found[name] = Arranged(everywhere(f"layers.{{i}}.mixer.{theirs}"))
    found["ssm_a"] = Arranged(everywhere("layers.{i}.mixer.A_log"), exponential=-1)
    for part in ("up", "down"):
        experts = everywhere(f"layers.{{i}}.mixer.experts.{{e}}.{part}_proj.weight")
        found[f"ffn_{part}_exps.weight"] = Experts(experts, everywhere(f"layers.{{i}}.mixer.experts.{part}_proj"))
    return found | {"output.weight": COMMON_NAMES["output.weight"], **ROPE_NAMES}


_NEXTN = Nextn(  # attention and experts of one layer
    layers=("mtp.layers.0", "mtp.layers.1"),
    names={
        **nextn_names({name: f"mtp.layers.0.{name}" for name in ("eh_proj", "enorm", "hnorm")}),
        **nextn_names({"shared_head_norm": "mtp.layers.1.final_layernorm"}),
        "attn_norm.weight": Stored(("mtp.layers.0.norm.weight",)),
        "post_attention_norm.weight": Stored(("mtp.layers.1.norm.weight",)),
    },
)
ARCHITECTURE = Architecture(
    name="nemotron_h",
    title="Nemotron-H",
    hf_classes=("NemotronHForCausalLM",),
    config=config,
    wire=wire,
    names=_names(),
    rope_layout=RopeLayout.HALVES,
    files=FileHabits(both_epsilons=True),
    positions=False,
    nextn=_NEXTN,
    left_out=("mtp.",),
    notes="With experts it is `nemotron_h_moe` in GGUF. Experts on a latent value, and networks with and without "
    "experts in one model, are refused. llama.cpp knows no least time step (`time_step_min`).",
)
