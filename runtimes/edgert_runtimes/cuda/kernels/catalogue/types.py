"""What kernels are made for: types of weights and caches, activations, sizes of tiles."""

from __future__ import annotations

from edgert_quant.blocks import BlockType

FLOATS = (BlockType.F32, BlockType.F16, BlockType.BF16)
BLOCKS = tuple(
    BlockType[name]
    for name in (
        *("Q1_0", "Q2_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "NVFP4"),
        *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "TQ1_0", "TQ2_0"),
        *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
    )
)
WEIGHTS = FLOATS + BLOCKS
"""Types that matrices, experts and embeddings may have."""
ACTIVATIONS = {"silu": "Silu", "gelu": "Gelu", "swiglu_oai": "SwigluOai", "relu": "Relu"}
"""Gated activations of experts, and their names in `base.cuh`."""
ROW_GATES = {"sigmoid": "Sigmoid", "softplus": "Softplus"}
"""Those of which one gate may hold for several elements."""
GATES = ACTIVATIONS | ROW_GATES | {"bilinear": "Bilinear"}
"""All gated activations."""
OUTPUTS = 8
"""Outputs of a block of `linear` and `experts_down`: two a warp."""
TILE_OUT, TILE_ROWS = 128, 64
"""Outputs and rows of a tile of `gemm` and `experts_gemm`."""
INPUTS = "const float *x, const s8 *codes, const float4 *scales"
"""Activations, in both their forms."""


def reads_codes(kind: BlockType) -> bool:
    """Whether matrices of this type are multiplied with quantized activations."""
    return kind not in FLOATS
