"""Block types: how weights are packed into bytes, and how to unpack and quantize them."""

from edgert_quant.blocks.quantizer import quantize
from edgert_quant.blocks.types import BlockType, UnknownBlockTypeError
from edgert_quant.blocks.unpack import dequantize

__all__ = ["BlockType", "UnknownBlockTypeError", "dequantize", "quantize"]
