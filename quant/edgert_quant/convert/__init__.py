"""Conversion of checkpoints and GGUF files to GGUF files in other types."""

from edgert_quant.convert.pipeline import Progress
from edgert_quant.convert.report import ConversionReport, TypeLoss, TypeTotal
from edgert_quant.convert.run import convert

__all__ = ["ConversionReport", "Progress", "TypeLoss", "TypeTotal", "convert"]
