"""The types in which a cache can keep keys and values."""

from __future__ import annotations

from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan
from edgert_quant.blocks import BlockType

KV_TYPES = {
    kind.name.lower(): kind for kind in (BlockType.F32, BlockType.F16, BlockType.BF16, BlockType.Q8_0, BlockType.Q4_0)
}
"""Names that users type, best first. A block of Q8_0 or Q4_0 is 32 elements of one head at one position."""


def check_kv_type(kv_type: str, plan: Plan) -> None:
    """UnsupportedError for a type that does not exist, or whose blocks do not divide the heads of a layer."""
    if kv_type not in KV_TYPES:
        raise UnsupportedError(f"cache type '{kv_type}' is not supported; there are: {', '.join(KV_TYPES)}")
    size = KV_TYPES[kv_type].block_size
    for layer, cache in enumerate(plan.caches):
        for head in (cache.head_size, cache.head_size if cache.shared else cache.value_size):
            if head % size:
                raise UnsupportedError(
                    f"layer {layer}: a cache of type '{kv_type}' needs a head size that is a multiple of {size}, "
                    f"this one is {head}; use f16"
                )
