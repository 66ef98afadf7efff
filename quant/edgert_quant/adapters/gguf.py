"""Adapters in GGUF: tensors `NAME.lora_a` [rank, in] and `NAME.lora_b` [out, rank] beside the model's `NAME`.

Keys: `general.type` "adapter", `adapter.type` "lora", `adapter.lora.alpha`. The product is scaled by alpha / rank,
where alpha is not 0. Source: llama.cpp's `convert_lora_to_gguf.py` and `llama-adapter.cpp`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan

from edgert_quant.adapters.pair import Pair
from edgert_quant.blocks import dequantize
from edgert_quant.gguf import GgufFile

_ALORA = "adapter.alora.invocation_tokens"
_A, _B = ".lora_a", ".lora_b"


def read_gguf(path: Path, plan: Plan) -> dict[str, Pair]:
    """The pairs by the name of their matrix. Errors as in `read_adapter`."""
    with GgufFile.open(path) as file:
        metadata = file.metadata
        kind = metadata.string("general.type", "model")
        if kind != "adapter":
            metadata.fail("general.type", f"is {kind!r}: this is no adapter")
        if (form := metadata.string("adapter.type", "")) != "lora":
            raise UnsupportedError(f"{path}: adapters of type {form!r} are not supported; 'lora' is")
        if (model := metadata.string("general.architecture", "")) != plan.spec.architecture:
            metadata.fail("general.architecture", f"is {model!r}, and the model's is {plan.spec.architecture!r}")
        if _ALORA in metadata:
            raise UnsupportedError(f"{path}: adapters that are invoked by tokens ({_ALORA}) are not supported")
        alpha = metadata.number("adapter.lora.alpha", 0.0)
        matrices = {}
        for name, tensor in file.tensors.items():
            stem = name.removesuffix(_A).removesuffix(_B)
            other = stem + (_B if name.endswith(_A) else _A)
            if stem == name or other not in file.tensors or len(tensor.shape) != 2:
                raise UnsupportedError(f"{path}: tensor {name} is not one of a pair of matrices {_A} and {_B}")
            matrices[name] = dequantize(file.read(name), tensor.type).reshape(tensor.shape)
    found = {}
    for name in matrices:
        if name.endswith(_A):
            stem = name.removesuffix(_A)
            a, b = matrices[name], matrices[stem + _B]
            scale = alpha / len(a) if alpha and len(a) else 1.0
            found[stem] = Pair(a, np.float32(scale) * b)
    return found
