"""The bytes of one block of each type that edgert unpacks itself, as NumPy structures (little-endian, packed).

Sources: the `block_*` structures of `ggml-common.h` in ggml; for MXFP4 also the OCP Microscaling Formats specification,
version 1.0. How the fields give weights is written at the function of each type in `unpack32` and `unpack256`.
"""

from __future__ import annotations

import numpy as np

from edgert_quant.blocks.types import BlockType

LAYOUTS: dict[BlockType, np.dtype[np.void]] = {
    BlockType.Q1_0: np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    BlockType.Q2_0: np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    BlockType.Q4_0: np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    BlockType.Q4_1: np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)]),
    BlockType.Q5_0: np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)]),
    BlockType.Q5_1: np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)]),
    BlockType.Q8_0: np.dtype([("d", "<f2"), ("qs", "i1", 32)]),
    BlockType.Q8_1: np.dtype([("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)]),
    BlockType.IQ4_NL: np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    BlockType.MXFP4: np.dtype([("e", "u1"), ("qs", "u1", 16)]),
    BlockType.Q2_K: np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")]),
    BlockType.Q3_K: np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")]),
    BlockType.Q4_K: np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)]),
    BlockType.Q5_K: np.dtype(
        [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)]
    ),
    BlockType.Q6_K: np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")]),
    BlockType.Q8_K: np.dtype([("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)]),
    BlockType.IQ2_XXS: np.dtype([("d", "<f2"), ("qs", "<u2", 32)]),
    BlockType.IQ2_XS: np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)]),
    BlockType.IQ2_S: np.dtype(
        [("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)]
    ),
    BlockType.IQ3_XXS: np.dtype([("d", "<f2"), ("qs", "u1", 64), ("words", "<u4", 8)]),
    BlockType.IQ3_S: np.dtype(
        [("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)]
    ),
    BlockType.IQ4_XS: np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)]),
}
