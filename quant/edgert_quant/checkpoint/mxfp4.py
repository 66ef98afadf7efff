"""MXFP4 as checkpoints store it, and as GGUF does.

A block is 32 codes of four bits (E2M1) with a common exponent (E8M0, OCP Microscaling Formats 1.0). Checkpoints of
gpt-oss keep exponents in a tensor of their own, and codes 2i and 2i + 1 in the low and the high half of byte i
(transformers' `integrations/mxfp4.py`); ggml's `block_mxfp4` is the exponent followed by 16 bytes, byte i of the codes
i and i + 16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def repack(blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows of GGUF's MXFP4, uint8 [rows, 17 · blocks], of codes [rows, blocks, 16] and exponents [rows, blocks].

    The same numbers to the bit: codes and exponents are only moved.
    """
    codes = np.stack((blocks & 0x0F, blocks >> 4), axis=-1).reshape(*blocks.shape[:-1], 32)
    packed = np.empty((*scales.shape, 17), np.uint8)
    packed[..., 0] = scales
    packed[..., 1:] = codes[..., :16] | codes[..., 16:] << 4
    return packed.reshape(len(packed), -1)
