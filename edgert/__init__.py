"""Distilled Mixture-of-Experts models, quantized, on the machine at hand.

>>> import edgert
>>> edgert.convert("checkpoint/", "model.gguf", type="q4_k_m")
>>> with edgert.LLM("model.gguf") as llm:
...     print(llm.chat([{"role": "user", "content": "What is 12 plus 30?"}]).text)

Names are imported when they are first used, so `import edgert` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgert_models.errors import (
        BackendError,
        CancelledError,
        ContextLengthError,
        ConversionError,
        DeadlineError,
        EdgertError,
        EngineError,
        FileFormatError,
        HubError,
        MemoryBudgetError,
        QueueFullError,
        RequestError,
        TemplateError,
        UnsupportedError,
        VerificationError,
    )
    from edgert_quant.convert import convert

    from edgert.calibration import calibrate
    from edgert.completion import Chunk, Completion, Timings, ToolCall, ToolCallDelta, Usage
    from edgert.engine.params import SamplingParams
    from edgert.engine.structured import StructuredOutputs
    from edgert.llm import LLM

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "BackendError",
    "CancelledError",
    "Chunk",
    "Completion",
    "ContextLengthError",
    "ConversionError",
    "DeadlineError",
    "EdgertError",
    "EngineError",
    "FileFormatError",
    "HubError",
    "MemoryBudgetError",
    "QueueFullError",
    "RequestError",
    "SamplingParams",
    "StructuredOutputs",
    "TemplateError",
    "Timings",
    "ToolCall",
    "ToolCallDelta",
    "UnsupportedError",
    "Usage",
    "VerificationError",
    "calibrate",
    "convert",
]

_HOMES = {
    "LLM": "edgert.llm",
    "SamplingParams": "edgert.engine.params",
    "StructuredOutputs": "edgert.engine.structured",
    "calibrate": "edgert.calibration",
    "convert": "edgert_quant.convert",
    **dict.fromkeys(("Chunk", "Completion", "Timings", "ToolCall", "ToolCallDelta", "Usage"), "edgert.completion"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgert' has no attribute '{name}'")
    value = getattr(import_module(_HOMES.get(name, "edgert_models.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
