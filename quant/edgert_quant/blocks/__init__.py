"""Block types: how weights are packed into bytes, and how to unpack and quantize them."""

from edgert_quant.blocks.types import BlockType, UnknownBlockTypeError

__all__ = ["BlockType", "UnknownBlockTypeError"]
