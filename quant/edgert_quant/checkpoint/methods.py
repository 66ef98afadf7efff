"""Which methods of quantization are read, and the views of a whole checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from edgert_models.errors import UnsupportedError

from edgert_quant.checkpoint.compressed import METHOD, compressed_views
from edgert_quant.checkpoint.folder import Checkpoint
from edgert_quant.checkpoint.fp8 import fp8_views
from edgert_quant.checkpoint.gptq import awq_views, gptq_views
from edgert_quant.checkpoint.mxfp4 import mxfp4_views
from edgert_quant.checkpoint.views import PlainView, View
from edgert_quant.files import quoted

_METHODS: dict[str, Callable[[Checkpoint, Mapping[str, object]], Iterator[View]]] = {
    "fp8": fp8_views,
    METHOD: compressed_views,
    "gptq": gptq_views,
    "awq": awq_views,
    "mxfp4": mxfp4_views,
}
_STATED: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "gptq": ("bits", (2, 4, 8)),
    "awq": ("bits", (4,)),
    "fp8": ("fmt", ("e4m3", "e5m2")),
}
"""What settings may say, where they say it: the tensors would tell later."""
_OF_ACTIVATIONS = (
    *("input_scale", "input_zero_point", "input_global_scale", "activation_scale", "output_scale"),
    *(".q_scale", ".k_scale", ".v_scale"),
)
"""How names of tensors end that say how a program may quantize inputs, or its cache; no weight needs them."""


def method_of(config: Mapping[str, object]) -> tuple[str, Mapping[str, object]] | None:
    """The method that a checkpoint is quantized by, with its settings; UnsupportedError names one that is not read."""
    stated = config.get("quantization_config") or config.get("compression_config")
    if not stated:
        return None
    settings = stated if isinstance(stated, dict) else {}
    method = settings.get("quant_method", "unknown")
    if not isinstance(method, str) or method not in _METHODS:
        raise UnsupportedError(
            f"config.json: the checkpoint is quantized already ({quoted(str(method))}); give the original, "
            f"or one in {', '.join(_METHODS)}"
        )
    key, known = _STATED.get(method, ("", ()))
    if key in settings and settings[key] not in known:
        readable = ", ".join(map(str, known))
        raise UnsupportedError(
            f"config.json: {method} with {key}={quoted(str(settings[key]))} is not read; edgert reads {readable}"
        )
    return method, settings


def open_views(checkpoint: Checkpoint) -> dict[str, View]:
    """Every tensor of a checkpoint by the name that it has in the model.

    UnsupportedError names a method of quantization that is not read; FileFormatError a tensor that does not fit its
    companions, or lacks one.
    """
    found = method_of(checkpoint.config)
    views = _METHODS[found[0]](checkpoint, found[1]) if found else iter(())
    quantized: dict[str, View] = {view.name: view for view in views}
    used = frozenset[str]().union(*(view.used for view in quantized.values()))
    plain = {
        name: PlainView(checkpoint, tensor)
        for name, tensor in checkpoint.tensors.items()
        if name not in used and not (quantized and name.endswith(_OF_ACTIVATIONS))
    }
    return {**plain, **quantized}
