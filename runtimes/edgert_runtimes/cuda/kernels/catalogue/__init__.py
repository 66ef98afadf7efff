"""Every kernel: a function that makes it, by what it is compiled for. The signatures' meaning is told in the headers.

Activations come in two forms. `x` is float32 [rows, k]. `codes` int8 [rows, k] and `scales` float4 [rows, k / 32] are
the same in blocks of 32 (q8, see `activations.cuh`): matrices of block types read these, matrices of floats read `x`,
and a kernel that is given both uses what its type needs (`reads_codes`). Kernels that make activations write the blocks
too where `codes` is not null.
"""

from edgert_runtimes.cuda.kernels.catalogue.attention import (
    KV_TYPES,
    QUERIES,
    attend,
    attend_combine,
    attend_tile,
    copy_blocks,
    fits_tiles,
    heads_at_once,
    store,
    tile_rows,
)
from edgert_runtimes.cuda.kernels.catalogue.experts import (
    MOST_GROUPS,
    combine,
    expert_counts,
    expert_order,
    experts_down,
    experts_gemm,
    experts_up,
    most_tiles,
    route,
)
from edgert_runtimes.cuda.kernels.catalogue.matrices import COLUMNS, embed, gemm, head_gemm, head_linear, linear
from edgert_runtimes.cuda.kernels.catalogue.recurrent import LARGEST_KEYS, delta_rule, short_conv
from edgert_runtimes.cuda.kernels.catalogue.rows import (
    add,
    angles,
    copy_rest,
    gate,
    gate_rows,
    layer_norm,
    pick_rows,
    quantize,
    rms_norm,
    rms_norm_groups,
    rope,
    scale,
    slice_parts,
    soft_cap,
)
from edgert_runtimes.cuda.kernels.catalogue.sampling import argmax, sample
from edgert_runtimes.cuda.kernels.catalogue.types import ACTIVATIONS, BLOCKS, FLOATS, GATES, WEIGHTS, reads_codes

__all__ = [
    "ACTIVATIONS",
    "BLOCKS",
    "COLUMNS",
    "FLOATS",
    "GATES",
    "KV_TYPES",
    "LARGEST_KEYS",
    "MOST_GROUPS",
    "QUERIES",
    "WEIGHTS",
    "add",
    "angles",
    "argmax",
    "attend",
    "attend_combine",
    "attend_tile",
    "combine",
    "copy_blocks",
    "copy_rest",
    "delta_rule",
    "embed",
    "expert_counts",
    "expert_order",
    "experts_down",
    "experts_gemm",
    "experts_up",
    "fits_tiles",
    "gate",
    "gate_rows",
    "gemm",
    "head_gemm",
    "head_linear",
    "heads_at_once",
    "layer_norm",
    "linear",
    "most_tiles",
    "pick_rows",
    "quantize",
    "reads_codes",
    "rms_norm",
    "rms_norm_groups",
    "rope",
    "route",
    "sample",
    "scale",
    "short_conv",
    "slice_parts",
    "soft_cap",
    "store",
    "tile_rows",
]
