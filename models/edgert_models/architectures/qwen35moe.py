"""Qwen3.5-MoE and Qwen3.6-MoE, text: Qwen3.5's layers with experts, of which one is shared.

Sources: transformers' `modeling_qwen3_5_moe`; llama.cpp's `conversion/qwen.py` and `models/qwen35moe.cpp`.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architectures import qwen35
from edgert_models.architectures.qwen3next import llama_cpp_refuses
from edgert_models.config import Config, expert_sizes, text_of
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.router import SOFTMAX
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of Qwen3_5MoeForCausalLM, or the text part of Qwen3_5MoeForConditionalGeneration."""
    c = text_of(c, "silu")
    sizes = {**qwen35.text_sizes(c), **expert_sizes(c, "moe_intermediate_size", SOFTMAX)}
    shared = c.integer("shared_expert_intermediate_size")
    return ModelSpec(architecture="qwen35moe", **sizes, shared_feed_forward=shared, shared_gate=True)


ARCHITECTURE = replace(
    qwen35.ARCHITECTURE,
    name="qwen35moe",
    title="Qwen3.5-MoE, Qwen3.6-MoE, text",
    hf_classes=("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    config=config,
    llama_cpp=LlamaCpp(output_bias=False, dense_layers="none", refuses=(llama_cpp_refuses,)),
)
