"""Checkpoints that compressed-tensors (llm-compressor, Kimi) has written.

Layouts: compressed-tensors' `compressors/pack_quantized` (`weight_packed` int32 [out, in · bits / 32], the lowest bits
first, of codes to which 2^(bits - 1) was added; `weight_scale` [out, groups]; `weight_zero_point` int32
[out · bits / 32, groups], packed alike but down the columns, or int8 [out, groups] of earlier versions; `weight_shape`;
`weight_g_idx` [in] where columns are grouped by activation, all -1 where they are not), `naive_quantized` (`weight` in
int8 or an eight-bit float) and `mxfp4`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from edgert_models.errors import FileFormatError, UnsupportedError
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType
from edgert_quant.checkpoint.folder import Checkpoint
from edgert_quant.checkpoint.fp8 import FLOAT8, float8_view
from edgert_quant.checkpoint.integers import IntegerView, checked_order, unpack_words
from edgert_quant.checkpoint.mxfp4 import Mxfp4View
from edgert_quant.checkpoint.safetensors import CheckpointTensor
from edgert_quant.checkpoint.views import SCALES, Bytes, Floats, View, companion, group_size
from edgert_quant.files import quoted

METHOD = "compressed-tensors"
_BITS = (4, 8, 2)
_FORMATS = (
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "mxfp4-pack-quantized",
    "mixed-precision",
    "dense",
)


class CompressedView(IntegerView):
    """Codes packed into words, or int8; zero points packed, int8, or none."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        weight: CheckpointTensor,
        name: str,
        shape: tuple[int, int],
        bits: int,
        scale: CheckpointTensor,
        group: int,
        zero: CheckpointTensor | None,
        order: NDArray[np.int64] | None,
        others: frozenset[str],
    ) -> None:
        used = others | {weight.name, scale.name} | ({zero.name} if zero else set())
        super().__init__(name, shape, used, method=METHOD, bits=bits, group=group, order=order)
        self._checkpoint = checkpoint
        self._weight = weight
        self._scale = scale
        self._zero = zero

    def codes(self, start: int, count: int) -> Bytes:
        """See `IntegerView`."""
        stored = self._checkpoint.read_raw_rows(self._weight.name, start, count)
        if self._weight.dtype == "I8":
            return stored.view(np.uint8) ^ np.uint8(128)
        return unpack_words(stored, self.bits)[:, : self.shape[1]]

    def scales(self, start: int, count: int) -> Floats:
        """See `IntegerView`."""
        if len(self._scale.shape) < 2:
            return np.broadcast_to(self._checkpoint.read(self._scale.name).reshape(1, 1), (count, 1))
        if self._scale.shape[0] == 1:
            return np.broadcast_to(self._checkpoint.read(self._scale.name), (count, self._scale.shape[1]))
        return self._checkpoint.read_rows(self._scale.name, start, count)

    def zeros(self, start: int, count: int) -> NDArray[np.int16]:
        """See `IntegerView`."""
        middle = 1 << (self.bits - 1)
        if self._zero is None:
            return np.full((count, -(-self.shape[1] // self.group)), middle, np.int16)
        if self._zero.dtype == "I8":
            stored = self._checkpoint.read_raw_rows(self._zero.name, start, count)
            return stored.astype(np.int16) + np.int16(middle)
        each = 32 // self.bits
        first = start // each
        words = self._checkpoint.read_raw_rows(self._zero.name, first, -(-(start + count) // each) - first)
        points = unpack_words(words.T, self.bits).T[start - first * each :][:count]
        return points.astype(np.int16)


def compressed_views(checkpoint: Checkpoint, settings: Mapping[str, object]) -> Iterator[View]:
    """Every weight that is not stored as it was. UnsupportedError for formats that are not read."""
    groups = settings.get("config_groups")
    schemes = [group for group in groups.values() if isinstance(group, dict)] if isinstance(groups, dict) else []
    for stated in (settings.get("format"), *(scheme.get("format") for scheme in schemes)):
        if stated is not None and stated not in _FORMATS:
            raise UnsupportedError(
                f"{checkpoint.folder}: {METHOD} in the format {quoted(str(stated))} is not read; "
                f"edgert reads {', '.join(_FORMATS)}"
            )
    given = [weights for scheme in schemes if isinstance(weights := scheme.get("weights"), dict)]
    sizes = {size for weights in given if isinstance(size := weights.get("group_size"), int) and size > 0}
    blocks = [weights.get("block_structure") for weights in given if weights.get("strategy") == "block"]
    size, block = (sizes.pop() if len(sizes) == 1 else None), (blocks[0] if blocks else None)
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(".weight_packed"):
            packed = _mxfp4 if tensor.dtype == "U8" else _packed
            yield packed(checkpoint, name.removesuffix("_packed"), tensor, size)
        elif tensor.dtype in FLOAT8:
            yield float8_view(checkpoint, tensor, block, "_scale")
        elif tensor.dtype == "I8" and name.endswith(".weight"):
            yield _integers(checkpoint, name, tensor, tensor.shape, 8, size, frozenset())


def _packed(checkpoint: Checkpoint, name: str, packed: CheckpointTensor, size: int | None) -> View:
    """A matrix of packed codes. How many bits they have follows from the shapes."""
    if packed.dtype != "I32" or len(packed.shape) != 2:
        reason = f"{packed.name} is stored as {packed.dtype} {list(packed.shape)}, not as a matrix of I32"
        raise FileFormatError(checkpoint.folder, reason, field=f"tensor {quoted(name)}")
    stored = companion(checkpoint, name, f"{name}_shape", "shape", ((2,),), ("I64", "I32"))
    out, width = (int(size) for size in checkpoint.read_raw(stored.name))
    fitting = [bits for bits in _BITS if packed.shape == (out, -(-width * bits // 32))]
    if not fitting or width < 1:
        reason = f"{packed.name} has shape {list(packed.shape)}, which is not [{out}, {width}] in 2, 4 or 8 bits"
        raise FileFormatError(checkpoint.folder, reason, field=f"tensor {quoted(name)}")
    return _integers(checkpoint, name, packed, (out, width), fitting[0], size, frozenset((stored.name,)))


def _integers(
    checkpoint: Checkpoint,
    name: str,
    weight: CheckpointTensor,
    shape: tuple[int, ...],
    bits: int,
    size: int | None,
    others: frozenset[str],
) -> View:
    """A matrix of codes with its scales, zero points and order, each held against its shape."""
    if len(shape) != 2:
        raise FileFormatError(checkpoint.folder, f"has shape {list(shape)}", field=f"tensor {quoted(name)}")
    out, width = shape
    scale = companion(checkpoint, name, f"{name}_scale", "scale", None, SCALES)
    groups = scale.shape[1] if len(scale.shape) == 2 else 1
    fitting = ((), (1,), (out, groups), (1, groups))
    companion(checkpoint, name, scale.name, "scale", fitting, SCALES)
    group = group_size(checkpoint, name, width, groups, size)
    zero = None
    if f"{name}_zero_point" in checkpoint.tensors:
        full = len(scale.shape) == 2 and scale.shape[0] == out
        shapes = ((-(-out * bits // 32), groups),) if checkpoint.tensors[f"{name}_zero_point"].dtype == "I32" else ()
        zero = companion(
            checkpoint, name, f"{name}_zero_point", "zero point", (*shapes, (out, groups))[:1], ("I32", "I8")
        )
        if not full:
            reason = f"its scale {scale.name} has shape {list(scale.shape)}, and its zero point {list(zero.shape)}"
            raise FileFormatError(checkpoint.folder, reason, field=f"tensor {quoted(name)}")
    order = None
    if f"{name}_g_idx" in checkpoint.tensors:
        stored = companion(checkpoint, name, f"{name}_g_idx", "order of groups", ((width,),), ("I32", "I64"))
        others |= {stored.name}
        found = checkpoint.read_raw(stored.name).astype(np.int64)
        if not (found == -1).all():
            order = checked_order(checkpoint, name, found, groups)
    return CompressedView(checkpoint, weight, name, (out, width), bits, scale, group, zero, order, others)


def _mxfp4(checkpoint: Checkpoint, name: str, packed: CheckpointTensor, size: int | None) -> View:
    """A matrix in MXFP4, its exponents in bytes."""
    if len(packed.shape) != 2 or packed.shape[1] % 16:
        reason = f"{packed.name} has shape {list(packed.shape)}, not one of blocks of 16 bytes"
        raise FileFormatError(checkpoint.folder, reason, field=f"tensor {quoted(name)}")
    out, width = packed.shape[0], 2 * packed.shape[1]
    blocks = width // BlockType.MXFP4.block_size
    scale = companion(checkpoint, name, f"{name}_scale", "scale", ((out, blocks),), ("U8",))
    return Mxfp4View(checkpoint, name, packed, scale)
