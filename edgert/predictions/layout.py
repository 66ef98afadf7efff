"""How a file of predictions is laid out."""

from __future__ import annotations

from edgert_quant.blocks import BlockType

from edgert.windows import counted

TYPE = "edgert.predictions"
TOP = 64
"""Tokens that are listed."""
SAMPLES = 16
"""Of the others: with both, the mean divergence is within 1 % of that over all tokens (docs/verify.md has figures)."""
VERSION = 1
_SHORT = 1 << 15
"""Tokens that 16 bits can name."""
DTYPES = {BlockType.I16: "<i2", BlockType.I32: "<i4", BlockType.F32: "<f4"}
"""How numbers lie in the file."""
TOP_IDS, TOP_P, REST_P = "top.ids", "top.log_probabilities", "rest.log_probabilities"
SAMPLE_IDS, SAMPLE_P, NEXT_P = "sample.ids", "sample.log_probabilities", "next.log_probabilities"
TOKENS = "tokens"


def tensors(
    windows: int, window: int, top: int, samples: int, vocabulary: int
) -> dict[str, tuple[BlockType, tuple[int, ...]]]:
    """Type and shape of every tensor of a file."""
    rows, ids = counted(window), BlockType.I16 if vocabulary <= _SHORT else BlockType.I32
    found: dict[str, tuple[BlockType, tuple[int, ...]]] = {
        TOKENS: (BlockType.I32, (windows, window)),
        TOP_IDS: (ids, (windows, rows, top)),
        TOP_P: (BlockType.F32, (windows, rows, top)),
        REST_P: (BlockType.F32, (windows, rows)),
        NEXT_P: (BlockType.F32, (windows, rows)),
    }
    if samples:
        found[SAMPLE_IDS] = (ids, (windows, rows, samples))
        found[SAMPLE_P] = (BlockType.F32, (windows, rows, samples))
    return found
