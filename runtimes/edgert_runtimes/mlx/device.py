"""What MLX has to work with here: an Apple GPU through Metal, or the CPU."""

from __future__ import annotations

import os

import mlx.core as mx
from edgert_models.errors import RequestError
from edgert_quant.blocks import BlockType

from edgert_runtimes.memory import available_memory
from edgert_runtimes.mlx.metal import RAW_TYPES

VARIABLE = "EDGERT_MLX_DTYPE"
_DTYPES = {"float16": mx.float16, "float32": mx.float32}


def on_metal() -> bool:
    """Whether MLX computes on a GPU through Metal."""
    return mx.metal.is_available() and mx.default_device() == mx.Device(mx.gpu)


def compute_dtype() -> mx.Dtype:
    """The floats of matrix products and attention: float16 on a GPU, float32 on the CPU, where MLX adds up products
    of float16 in float16, slowly. EDGERT_MLX_DTYPE overrides it. What is added up across layers is always float32.

    Not bfloat16: the scales of GGUF's types are halves, of which it drops three bits.
    """
    chosen = os.environ.get(VARIABLE) or ("float16" if on_metal() else "float32")
    if chosen not in _DTYPES:
        raise RequestError(f"{VARIABLE} is '{chosen}'; it can be {' or '.join(_DTYPES)}", parameter=VARIABLE)
    return _DTYPES[chosen]


def raw_types() -> tuple[BlockType, ...]:
    """The types whose blocks kernels of ours multiply by as they are."""
    return RAW_TYPES if on_metal() else ()


def device_memory() -> int | None:
    """Bytes that can be taken now, or None where the system does not say."""
    if not on_metal():
        return available_memory()
    return int(mx.device_info()["max_recommended_working_set_size"]) - mx.get_active_memory()
