"""Weights in eight-bit floats: w = s f, where a tensor, a row, or a rectangle of it shares the scale s.

Layouts: transformers' `integrations/finegrained_fp8.py` (`weight_scale_inv`, which despite its name is multiplied by:
rectangles of `weight_block_size`, the last ones cut off; fused experts have `gate_up_proj_scale_inv` [experts, …]), and
compressed-tensors' `naive_quantized` compressor (`weight_scale`: one number, [out, 1], [out, groups], or blocks).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from edgert_models.errors import FileFormatError

from edgert_quant.blocks import BlockType
from edgert_quant.checkpoint.folder import Checkpoint
from edgert_quant.checkpoint.safetensors import CheckpointTensor
from edgert_quant.checkpoint.views import SCALES, Bytes, Floats, View, companion
from edgert_quant.files import quoted

FLOAT8 = ("F8_E4M3", "F8_E5M2")
_SUFFIXES = ("_scale_inv", "_scale")


class Float8View:
    """Implements `View` for a tensor [..., out, in] with scales [..., ⌈out / height⌉, ⌈in / width⌉]."""

    quantized = True
    form = "fp8"
    types: tuple[BlockType, ...] = ()
    reason = "GGUF has no eight-bit floats"

    def __init__(
        self, checkpoint: Checkpoint, tensor: CheckpointTensor, scale: CheckpointTensor, block: tuple[int, int]
    ) -> None:
        self.name = tensor.name
        self.shape = tensor.shape
        self.used = frozenset((tensor.name, scale.name))
        self._checkpoint = checkpoint
        self._scale = scale.name
        self._block = block

    def rows(self, start: int, count: int) -> Floats:
        """See `View`; rounded once, to float32."""
        out, width = self.shape[-2:]
        height, across = self._block
        bands = -(-out // height)
        numbers = np.arange(start, start + count)
        at = numbers // out * bands + numbers % out // height
        first = int(at[0])
        scales = self._scales(first, int(at[-1]) - first + 1, -(-width // across))
        values: Floats = self._checkpoint.read_rows(self.name, start, count)
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number is found by whoever uses it
            return values * np.repeat(scales, across, axis=1)[at - first, :width]

    def _scales(self, first: int, count: int, columns: int) -> Floats:
        """Bands of scales [count, columns]."""
        if len(self._checkpoint.tensor(self._scale).shape) < 2:  # [], [1] or [out]
            scales: Floats = self._checkpoint.read(self._scale).reshape(-1, columns)
            return scales[first : first + count]
        return self._checkpoint.read_rows(self._scale, first, count)

    def packed(self, start: int, count: int, kind: BlockType) -> Bytes | None:
        """See `View`."""
        return None


def fp8_views(checkpoint: Checkpoint, settings: Mapping[str, object]) -> Iterator[View]:
    """Every tensor in eight-bit floats: with `weight_block_size` of `settings`, if its scales are those of blocks."""
    block = settings.get("weight_block_size")
    for tensor in checkpoint.tensors.values():
        if tensor.dtype in FLOAT8:
            yield float8_view(checkpoint, tensor, block, "_scale_inv")


def float8_view(checkpoint: Checkpoint, tensor: CheckpointTensor, block: object, suffix: str) -> Float8View:
    """One of them, whose scale is called like itself with `suffix`, or with that of the other tools.

    FileFormatError names it where the scale is missing or does not fit.
    """
    if len(tensor.shape) < 2 or 0 in tensor.shape:
        reason = f"is {tensor.dtype} {list(tensor.shape)}, and no matrix"
        raise FileFormatError(checkpoint.folder, reason, field=f"tensor {quoted(tensor.name)}")
    *outer, out, width = tensor.shape
    one = tuple(1 for _ in outer)
    sizes = [(out, width), (1, width)]
    if isinstance(block, list) and len(block) == 2 and all(type(item) is int and item > 0 for item in block):
        sizes.append((block[0], block[1]))
    shapes = {(*outer, -(-out // high), -(-width // wide)): (high, wide) for high, wide in reversed(sizes)}
    if not outer or outer == list(one):
        shapes |= {(): (out, width), (1,): (out, width)}
    if not outer:
        shapes.setdefault((out,), (1, width))
    names = [tensor.name + end for end in (suffix, *_SUFFIXES)]
    name = next((name for name in names if name in checkpoint.tensors), names[0])
    found = checkpoint.tensors.get(name)
    if found is not None and not outer and len(found.shape) == 2 and found.shape not in shapes:
        groups = found.shape[1]
        if found.shape[0] == out and groups and width % groups == 0:
            shapes[found.shape] = (1, width // groups)
    scale = companion(checkpoint, tensor.name, name, "scale", tuple(shapes), (*SCALES, "F8_E8M0"))
    return Float8View(checkpoint, tensor, scale, shapes[scale.shape])
