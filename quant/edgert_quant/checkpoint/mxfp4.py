"""MXFP4 as checkpoints store it, and as GGUF does.

A block is 32 codes of four bits (E2M1) with a common exponent (E8M0, OCP Microscaling Formats 1.0). Checkpoints of
gpt-oss keep exponents in a tensor of their own, and codes 2i and 2i + 1 in the low and the high half of byte i
(transformers' `integrations/mxfp4.py`; compressed-tensors' `mxfp4` compressor has the same bytes in rows
[out, in / 2]); ggml's `block_mxfp4` is the exponent followed by 16 bytes, byte i of the codes i and i + 16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy as np
from edgert_models.errors import FileFormatError
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.blocks.assemble import nibbles
from edgert_quant.checkpoint.folder import Checkpoint
from edgert_quant.checkpoint.safetensors import CheckpointTensor
from edgert_quant.checkpoint.views import Bytes, Floats, View, companion
from edgert_quant.files import quoted

_CODES, _SCALES = "_blocks", "_scales"
_NOT_A_NUMBER = 255


def repack(blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows of GGUF's MXFP4, uint8 [rows, 17 · blocks], of codes [rows, blocks, 16] and exponents [rows, blocks].

    The same numbers to the bit: codes and exponents are only moved.
    """
    codes = np.stack((blocks & 0x0F, blocks >> 4), axis=-1).reshape(*blocks.shape[:-1], 32)
    packed = np.empty((*scales.shape, 17), np.uint8)
    packed[..., 0] = scales
    packed[..., 1:] = nibbles(codes)
    return packed.reshape(len(packed), -1)


class Mxfp4View:
    """Implements `View` for codes of which 16 bytes are a block, with exponents [..., out, in / 32]."""

    quantized = True
    form = "mxfp4"
    types = (BlockType.MXFP4,)
    reason = ""

    def __init__(self, checkpoint: Checkpoint, name: str, codes: CheckpointTensor, scales: CheckpointTensor) -> None:
        self.name = name
        self.shape = (*scales.shape[:-1], scales.shape[-1] * BlockType.MXFP4.block_size)
        self.used = frozenset((codes.name, scales.name))
        self._checkpoint = checkpoint
        self._codes = codes.name
        self._scales = scales.name

    def packed(self, start: int, count: int, kind: BlockType) -> Bytes | None:
        """See `View`. FileFormatError for an exponent that stands for no number."""
        return self._blocks(start, count) if kind is BlockType.MXFP4 else None

    def rows(self, start: int, count: int) -> Floats:
        """See `View`; exact."""
        return dequantize(self._blocks(start, count), BlockType.MXFP4)

    def _blocks(self, start: int, count: int) -> Bytes:
        scales = self._checkpoint.read_raw_rows(self._scales, start, count)
        if (scales == _NOT_A_NUMBER).any():
            raise FileFormatError(
                self._checkpoint.folder,
                f"an exponent is {_NOT_A_NUMBER}, which stands for no number",
                field=f"tensor {quoted(self._scales)}",
            )
        each = prod(self._checkpoint.tensor(self._codes).shape[len(self.shape) - 1 : -1])
        codes = self._checkpoint.read_raw_rows(self._codes, start * each, count * each)
        return repack(codes.reshape(*scales.shape, 16), scales)


def mxfp4_views(checkpoint: Checkpoint, settings: Mapping[str, object]) -> Iterator[View]:
    """Every X that is stored as X_blocks [..., out, in / 32, 16] and X_scales [..., out, in / 32]."""
    for name, codes in checkpoint.tensors.items():
        if name.endswith(_CODES):
            own = name.removesuffix(_CODES)
            if codes.dtype != "U8" or codes.shape[-1:] != (16,) or len(codes.shape) < 3:
                reason = f"{name} is {codes.dtype} {list(codes.shape)}, not blocks of 16 bytes (U8)"
                raise FileFormatError(checkpoint.folder, reason, field=f"tensor {quoted(own)}")
            scales = companion(checkpoint, own, own + _SCALES, "tensor of exponents", (codes.shape[:-1],), ("U8",))
            yield Mxfp4View(checkpoint, own, codes, scales)
