"""Qwen3.5 and 3.6, dense, text: Qwen3-Next's layers, with projections of their own for each part.

Sources: transformers' `modeling_qwen3_5` and `modeling_qwen3_5_moe`; llama.cpp's `conversion/qwen.py` and
`models/qwen35.cpp` for the names in GGUF, where heads of values are in another order than in checkpoints: the first
that goes with each head of keys, then the second, … Positions in three dimensions are one for text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgert_models.architecture import Architecture, with_inner
from edgert_models.architectures.qwen3next import (
    DELTA_NAMES,
    EXPERT_NAMES,
    LAYER,
    NORM_NAMES,
    hybrid_sizes,
    llama_cpp_refuses,
    nextn,
    wire,
)
from edgert_models.config import Config, text_of
from edgert_models.errors import UnsupportedError
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.rope import RopeLayout, rope_parameters
from edgert_models.sources import Arranged, Groups
from edgert_models.spec import ModelSpec

_SECTIONS = (11, 11, 10)


def config(c: Config) -> ModelSpec:
    """ModelSpec of Qwen3_5ForCausalLM, or the text part of Qwen3_5ForConditionalGeneration."""
    return ModelSpec(architecture="qwen35", **text_sizes(text_of(c, "silu")))


def text_sizes(c: Config) -> dict[str, Any]:
    """The ModelSpec fields of all models with such layers."""
    sizes = hybrid_sizes(c)
    sections = rope_parameters(c).get("mrope_section", _SECTIONS)
    if not isinstance(sections, list | tuple) or not all(isinstance(each, int) for each in sections):
        raise UnsupportedError(f"config.json: mrope_section must be a list of integers, not {sections!r}")
    return {**sizes, "rope": replace(sizes["rope"], sections=(*sections, 0))}


def _heads(elements: Callable[[ModelSpec], int], keys: bool = False) -> Callable[[ModelSpec], Groups]:
    """Heads of values, each of so many elements, from those of each head of keys to the order of GGUF; after queries
    and keys where `keys`.
    """

    def groups(s: ModelSpec) -> Groups:
        r = s.recurrence
        assert r is not None
        each = r.heads // r.groups
        skip = 2 * r.groups * r.state if keys else 0
        return Groups(r.groups, (elements(s),) * each, tuple(range(each)), skip)

    return groups


def _one(s: ModelSpec) -> int:
    return 1


def _size(s: ModelSpec) -> int:
    assert s.recurrence is not None
    return s.recurrence.inner // s.recurrence.heads


_DELTA = f"{LAYER}.linear_attn"
NAMES = with_inner(
    {
        **NORM_NAMES,
        **EXPERT_NAMES,
        **DELTA_NAMES,
        "attn_qkv.weight": Arranged((f"{_DELTA}.in_proj_qkv.weight",), _heads(_size, keys=True)),
        "attn_gate.weight": Arranged((f"{_DELTA}.in_proj_z.weight",), _heads(_size)),
        "ssm_beta.weight": Arranged((f"{_DELTA}.in_proj_b.weight",), _heads(_one)),
        "ssm_alpha.weight": Arranged((f"{_DELTA}.in_proj_a.weight",), _heads(_one)),
        "ssm_conv1d.weight": Arranged((f"{_DELTA}.conv1d.weight",), _heads(_size, keys=True)),
        "ssm_a": Arranged((f"{_DELTA}.A_log",), _heads(_one), exponential=-1),
        "ssm_dt.bias": Arranged((f"{_DELTA}.dt_bias",), _heads(_one)),
        "ssm_out.weight": Arranged((f"{_DELTA}.out_proj.weight",), _heads(_size), columns=True),
    }
)
ARCHITECTURE = Architecture(
    name="qwen35",
    title="Qwen3.5, Qwen3.6, dense, text",
    hf_classes=("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    config=config,
    wire=wire,
    names=NAMES,
    rope_layout=RopeLayout.HALVES,
    qk_norm="head",
    nextn=nextn(plus=1.0),
    left_out=("mtp.", "model.visual."),
    llama_cpp=LlamaCpp(output_bias=False, refuses=(llama_cpp_refuses,)),
    notes="The text model, also of checkpoints with a vision tower; that is left out, with a "
    "warning. llama.cpp does not load keys and values of different size in delta nets.",
)
