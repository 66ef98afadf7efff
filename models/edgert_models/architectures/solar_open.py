"""Solar-Open: GLM-4.5 with whole heads rotated, and experts in every layer. In GGUF it has GLM-4.5's name.

Sources: transformers' `modeling_solar_open`; llama.cpp's `conversion/glm.py`.
"""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architectures import glm4moe
from edgert_models.config import Config
from edgert_models.spec import ModelSpec


def config(c: Config) -> ModelSpec:
    """ModelSpec of SolarOpenForCausalLM."""
    spec = glm4moe.config(Config({"partial_rotary_factor": 1.0, "first_k_dense_replace": 0, **c}))
    return replace(spec, qk_norm=None)


ARCHITECTURE = replace(glm4moe.ARCHITECTURE, title="Solar-Open", hf_classes=("SolarOpenForCausalLM",), config=config)
