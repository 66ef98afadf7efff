"""The kernels that most models use, to be compiled before a model is there."""

from __future__ import annotations

from collections.abc import Iterator

from edgert_models.rope import RopeLayout
from edgert_quant.blocks import BlockType

from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.kernels.kernel import Kernel

HEAD_SIZES = (64, 128)
GROUPS = (1, 2, 4, 8)
KV_TYPES = (BlockType.F16, BlockType.Q8_0)

SEVERAL = (
    *((kind,) * 3 for kind in catalogue.BLOCKS),
    (BlockType.Q4_K, BlockType.Q4_K, BlockType.Q6_K),
    (BlockType.Q5_K, BlockType.Q5_K, BlockType.Q6_K),
)
"""Types of queries, keys and values: alike, or as the recipes of K types mix them."""


def common_kernels() -> Iterator[Kernel]:
    """Those of every type of weights, both matrices of a mixture alike, and of caches and heads as models have them."""
    for make in (
        *(catalogue.quantize, catalogue.route, catalogue.expert_counts, catalogue.expert_order, catalogue.combine),
        *(catalogue.rms_norm, catalogue.rms_norm_groups, catalogue.angles, catalogue.add),
        *(catalogue.pick_rows, catalogue.copy_blocks, catalogue.layer_norm, catalogue.scale, catalogue.soft_cap),
        *(catalogue.clamp, catalogue.scale_rows, catalogue.slice_parts, catalogue.short_conv),
    ):
        yield make()
    yield from map(catalogue.rope, RopeLayout)
    yield from map(catalogue.gate, catalogue.GATES)
    yield from map(catalogue.gate_rows, catalogue.ROW_GATES)
    yield from map(catalogue.scan, catalogue.SCANNED)
    yield from map(catalogue.delta_rule, catalogue.KEYS)
    for kind in catalogue.WEIGHTS:
        yield from (catalogue.linear(kind, columns) for columns in catalogue.COLUMNS)
        for each in (catalogue.gemm, catalogue.experts_down, catalogue.experts_gemm, catalogue.embed):
            yield each(kind)
        yield from (catalogue.experts_up(kind, kind, activation) for activation in catalogue.ACTIVATIONS)
    yield from (catalogue.linear_several(kinds, 1) for kinds in SEVERAL)
    for kind in KV_TYPES:
        yield catalogue.store(kind)
        for head_size in HEAD_SIZES:
            yield catalogue.heads(kind, head_size, head_size)
            for group in GROUPS:
                yield catalogue.attend(kind, head_size, head_size, group)
                yield catalogue.attend_tile(kind, head_size, group)
    yield from map(catalogue.attend_combine, HEAD_SIZES)
