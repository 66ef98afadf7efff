"""Falcon-H1: attention and Mamba 2 side by side in every layer.

The factors on embeddings, projections and logits, of which files say nothing, become part of the matrices. Sources:
transformers' `modeling_falcon_h1`; llama.cpp's `conversion/falcon_h1.py` and `models/falcon-h1.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from edgert_models.architecture import (
    COMMON_NAMES,
    Architecture,
    attention,
    embedded,
    feed_forward,
    norm,
    predict,
    residual,
    stored,
)
from edgert_models.architectures import granitehybrid
from edgert_models.config import Config, decoder_sizes, layer_count
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Graph, Plan
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout
from edgert_models.sources import Scaled, Source, Stored
from edgert_models.spec import ModelSpec, Recurrence

_LAYER = "model.layers.{i}"
_MAMBA = f"{_LAYER}.mamba"
_LISTS = {"mlp_multipliers": 2, "ssm_multipliers": 5}


def config(c: Config) -> ModelSpec:
    """ModelSpec of FalconH1ForCausalLM; biases of projections, and norms before gates, are refused."""
    c.refuse_unless("projectors_bias", (False,), default=False)
    if c.boolean("mamba_rms_norm"):
        c.refuse_unless("mamba_norm_before_gate", (False,), default=True)
    for key in _LISTS:
        _multipliers(c, key)
    return ModelSpec(
        architecture="falcon-h1",
        **decoder_sizes(c, RopeLayout.HALVES),
        recurrence=replace(_mamba(c), norm=c.boolean("mamba_rms_norm"), beside=True),
        feed_forward_bias=c.boolean("mlp_bias"),
    )


def _mamba(c: Config) -> Recurrence:
    """Of every layer."""
    recurrence = granitehybrid.mamba(c, (True,) * layer_count(c))
    return replace(recurrence, inner=c.integer("mamba_d_ssm", default=recurrence.inner))


def settle(spec: ModelSpec) -> ModelSpec:
    """With a state in every layer, all of which attend."""
    assert spec.recurrence is not None
    return replace(spec, recurrence=replace(spec.recurrence, layers=(True,) * spec.layers, beside=True))


def wire(g: Graph) -> Plan:
    """Norm, attention and Mamba 2, add, norm, feed-forward, add."""
    s = g.spec
    x = embedded(g)
    for i in range(s.layers):
        block = f"blk.{i}"
        y = norm(g, x, f"{block}.attn_norm")
        attended = attention(g, y, block, window=None, rope=s.rope)
        x = residual(g, x, g.add(attended, granitehybrid.mamba_layer(g, y, block)))
        x = residual(g, x, feed_forward(g, g.rms_norm(x, f"{block}.ffn_norm"), i))
    return predict(g, x)


def _multipliers(c: Mapping[str, Any], key: str) -> list[float]:
    count = _LISTS.get(key)
    if count is None:
        return [Config(c).number(key, default=1.0)]
    found = c.get(key) or [1.0] * count
    if not isinstance(found, list) or len(found) != count or not all(isinstance(each, int | float) for each in found):
        raise UnsupportedError(f"config.json: {key} must be a list of {count} numbers, not {found!r}")
    return [float(each) for each in found]


def _scaled(tensor: str, *keys: tuple[str, int]) -> Source:
    """A tensor times the factors by these keys (and by their place in lists)."""

    def factors(config: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
        return ((0, prod(_multipliers(config, key)[place] for key, place in keys)),)

    return Scaled((tensor,), factors)


def _inward(config: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    """Factors of gates, values, b, c and time steps, of which the last are all rows that are left."""
    r = _mamba(Config(config))
    shared = r.groups * r.state
    (every,) = _multipliers(config, "ssm_in_multiplier")
    factors = [every * factor for factor in _multipliers(config, "ssm_multipliers")]
    return tuple(zip((r.inner, r.inner, shared, shared, 0), factors, strict=True))


_ATTENTION, _MLP = f"{_LAYER}.self_attn", f"{_LAYER}.feed_forward"
_IN, _OUT, _KEY = ((f"{part}_multiplier", 0) for part in ("attention_in", "attention_out", "key"))
_GATE, _DOWN = (("mlp_multipliers", place) for place in range(2))


def llama_cpp_differs(spec: ModelSpec) -> str:
    """What llama.cpp computes otherwise."""
    return "llama.cpp ignores the bias of the attention output in falcon-h1" if spec.output_bias else ""


ARCHITECTURE = Architecture(
    name="falcon-h1",
    title="Falcon-H1",
    hf_classes=("FalconH1ForCausalLM",),
    config=config,
    wire=wire,
    names={
        **COMMON_NAMES,
        **granitehybrid.mamba_names(_MAMBA),
        **stored(
            output_norm="model.final_layernorm",
            ffn_up=f"{_MLP}.up_proj",
        ),
        "ffn_norm": Stored((f"{_LAYER}.pre_ff_layernorm.weight",)),
        "token_embd.weight": _scaled("model.embed_tokens.weight", ("embedding_multiplier", 0)),
        "output.weight": _scaled("lm_head.weight", ("lm_head_multiplier", 0)),
        "attn_q.weight": _scaled(f"{_ATTENTION}.q_proj.weight", _IN),
        "attn_k.weight": _scaled(f"{_ATTENTION}.k_proj.weight", _IN, _KEY),
        "attn_k.bias": _scaled(f"{_ATTENTION}.k_proj.bias", _KEY),
        "attn_v.weight": _scaled(f"{_ATTENTION}.v_proj.weight", _IN),
        "attn_output.weight": _scaled(f"{_ATTENTION}.o_proj.weight", _OUT),
        "attn_output.bias": _scaled(f"{_ATTENTION}.o_proj.bias", _OUT),
        "ssm_in.weight": Scaled((f"{_MAMBA}.in_proj.weight",), _inward),
        "ssm_out.weight": _scaled(f"{_MAMBA}.out_proj.weight", ("ssm_out_multiplier", 0)),
        "ffn_gate.weight": _scaled(f"{_MLP}.gate_proj.weight", _GATE),
        "ffn_gate.bias": _scaled(f"{_MLP}.gate_proj.bias", _GATE),
        "ffn_down.weight": _scaled(f"{_MLP}.down_proj.weight", _DOWN),
        "ffn_down.bias": _scaled(f"{_MLP}.down_proj.bias", _DOWN),
    },
    rope_layout=RopeLayout.HALVES,
    settle=settle,
    llama_cpp=LlamaCpp(own_output=True, rope_factors=True, differs=(llama_cpp_differs,)),
    notes="Factors become part of the matrices that they are factors of. Biases of Mamba's projections, norms before "
    "its gates, and limits of its time step are refused. llama.cpp's own converter scales biases of queries, keys and "
    "values as it scales the matrices: its files of models that have them answer differently.",
)
