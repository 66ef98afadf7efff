"""Adapters of PEFT: a folder with `adapter_config.json` and `adapter_model.safetensors`.

Tensors are `base_model.model.MODULE.lora_A.weight` [rank, in] and `….lora_B.weight` [out, rank], MODULE being the
checkpoint's; the product is scaled by lora_alpha / rank, or / √rank with `use_rslora`. Source: PEFT's `LoraConfig`, and
`get_peft_model_state_dict`. Rows are put in the order that the GGUF tensor of the same module has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models.errors import FileFormatError, UnsupportedError
from edgert_models.graph import Plan, Role
from edgert_models.registry import architecture_named
from edgert_models.sources import RotaryRows, Stored
from numpy.typing import NDArray

from edgert_quant.adapters.pair import Pair
from edgert_quant.checkpoint.documents import read_json
from edgert_quant.checkpoint.dtypes import storage_dtype, to_float32
from edgert_quant.checkpoint.safetensors import read_header, refuse_pickle
from edgert_quant.files import InputFile

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "alora_invocation_tokens": (None,),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "velora_config": (None,),
    "lora_ga_config": (None,),
    # Others change the model's own weights too.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}
"""Options that change what an adapter means, and the values that are served."""


def read_peft(folder: Path, plan: Plan) -> dict[str, Pair]:
    """The pairs by the GGUF name of their matrix. Errors as in `read_adapter`."""
    config = _config(folder)
    tensors = _tensors(folder)
    places = _places(plan)
    found: dict[str, Pair] = {}
    for module in dict.fromkeys(module for module, _ in tensors):
        if (module, "A") not in tensors or (module, "B") not in tensors:
            raise FileFormatError(folder / WEIGHTS, "is one without the other", field=f"lora_A or lora_B of {module}")
        if module not in places:
            raise UnsupportedError(f"{folder}: adapters on {module} are not supported for {plan.spec.architecture}")
        a, b = tensors[module, "A"], tensors[module, "B"]
        scaled = np.float32(_scale(folder, config, module, len(a))) * b
        for name, source in places[module]:
            found[name] = Pair(a, _rows(scaled, source))
    return found


def _config(folder: Path) -> Mapping[str, Any]:
    """The configuration, of which nothing that is not served is left unsaid."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileFormatError(folder, f"has no {CONFIG}: it is no folder of PEFT")
    config: Any = read_json(path, max_bytes=1 << 20, max_values=100_000)
    if not isinstance(config, dict):
        raise FileFormatError(path, "is not a JSON object")
    for key, served in _ONLY.items():
        if key in config and config[key] not in served:
            raise UnsupportedError(f"{path}: {key} {config[key]!r} is not supported; {served[0]!r} is")
    return config


def _tensors(folder: Path) -> dict[tuple[str, str], NDArray[np.float32]]:
    """By module, and "A" or "B"."""
    path = folder / WEIGHTS
    if not path.is_file():
        if (pickled := folder / "adapter_model.bin").is_file():
            refuse_pickle(pickled)
        raise FileFormatError(folder, f"has no {WEIGHTS}")
    file = InputFile(path)
    try:
        found = {}
        for name, tensor in read_header(file).items():
            match = _TENSOR.fullmatch(name)
            if match is None or len(tensor.shape) != 2:
                raise UnsupportedError(f"{path}: tensor {name} is not supported; matrices lora_A and lora_B are")
            kind = storage_dtype(tensor.dtype, f"{path}, tensor {name}")
            bits = np.frombuffer(file.read(tensor.offset, tensor.nbytes, f"tensor {name}"), kind)
            found[match["module"], match["part"]] = to_float32(bits, tensor.dtype).reshape(tensor.shape)
        return found
    finally:
        file.close()


def _places(plan: Plan) -> dict[str, list[tuple[str, Stored | RotaryRows]]]:
    """The modules of a checkpoint whose matrices the plan has, each with the GGUF tensors that come from it."""
    architecture = architecture_named(plan.spec.architecture)
    found: dict[str, list[tuple[str, Stored | RotaryRows]]] = {}
    for weight in plan.weights.values():
        if weight.role not in (Role.MATRIX, Role.ROUTER):
            continue
        try:
            source = architecture.source(plan.spec, weight.name)
        except KeyError:
            continue
        if isinstance(source, RotaryRows) or (isinstance(source, Stored) and not source.plus):
            for name in source.names:
                found.setdefault(name.removesuffix(".weight"), []).append((weight.name, source))
    return found


def _rows(b: NDArray[np.float32], source: Stored | RotaryRows) -> NDArray[np.float32]:
    """The rows that a GGUF tensor has of what is added to its module, in its order."""
    if isinstance(source, Stored):
        size = len(b) // source.parts
        return b[source.part * size : (source.part + 1) * size] if len(b) % source.parts == 0 else b
    if len(b) % (2 * source.heads):
        return b  # of no such module: its shape will be refused
    return b.reshape(source.heads, 2, -1, b.shape[1]).swapaxes(1, 2).reshape(b.shape)


def _scale(folder: Path, config: Mapping[str, Any], module: str, rank: int) -> float:
    """What the product is multiplied with."""
    alpha = config.get("lora_alpha", 8)
    patterns = config.get("alpha_pattern") or {}
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if not re.fullmatch(r"[\w.]+", pattern):
            raise UnsupportedError(f"{folder / CONFIG}: alpha_pattern {pattern!r} is not supported; plain names are")
        if f".{module}".endswith(f".{pattern}"):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise FileFormatError(folder / CONFIG, f"is {alpha!r}, not a number", field="lora_alpha")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank) if rank else 0.0
