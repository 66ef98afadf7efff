"""`quantize`: rows of float32 to the bytes of a block type."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from edgert_models.errors import ConversionError, UnsupportedError
from numpy.typing import NDArray

from edgert_quant.blocks.types import BlockType

_PIECE = 1 << 17  # weights that a thread takes at a time
_FLOATS = (BlockType.F32, BlockType.F16, BlockType.BF16)


def quantize(
    x: NDArray[np.float32],
    type: BlockType,  # noqa: A002
    *,
    importance: NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Rows x [rows, n] as uint8 [rows, row_bytes]. The bytes do not depend on `threads` (None: all cores).

    With `importance` [n], all above 0, squared errors count so much. Raises ConversionError naming the flat index of the
    first weight that is infinite, NaN or too large for the type, UnsupportedError for types without a quantizer or rows
    that are no multiple of the type's block.
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    if x.ndim != 2:
        raise ValueError(f"x must have two dimensions, not {x.ndim}")
    out = np.empty((len(x), type.row_bytes(x.shape[1])), dtype=np.uint8)
    if type in _FLOATS:
        out[:] = _floats(x, type).view(np.uint8).reshape(out.shape)
        return out
    from edgert_quant.blocks.kernels import KERNELS

    kernel = KERNELS.get((type, importance is not None))
    if kernel is None:
        known = ", ".join(dict.fromkeys(kind.name for kind, _ in KERNELS))
        raise UnsupportedError(f"cannot quantize to {type.name}; supported: F32, F16, BF16, {known}")
    weights = _checked(importance, x.shape[1])
    period = x.shape[1] // type.block_size
    kernel.load()

    def piece(span: tuple[int, int]) -> bool:
        first, end = span
        source, target = x.ctypes.data + first * x.strides[0], out.ctypes.data + first * out.strides[0]
        return kernel(source, weights.ctypes.data, 0, period, (end - first) * period, target) == 0

    spans = list(_spans(len(x), x.shape[1]))
    count = min(threads or os.cpu_count() or 1, len(spans))
    if count <= 1:
        good = [piece(span) for span in spans]
    else:
        with ThreadPoolExecutor(count) as pool:
            good = list(pool.map(piece, spans))
    if not all(good):
        _fail(x, type)
    return out


def _spans(rows: int, n: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows for one call each."""
    step = max(1, _PIECE // max(n, 1))
    return ((first, min(first + step, rows)) for first in range(0, rows, step))


def _checked(importance: NDArray[np.float32] | None, n: int) -> NDArray[np.float32]:
    if importance is None:
        return np.ones(1, dtype=np.float32)
    importance = np.ascontiguousarray(importance, dtype=np.float32)
    if importance.shape != (n,):
        raise ValueError(f"importance has shape {importance.shape}, not {(n,)}")
    if not (np.isfinite(importance).all() and (importance > 0).all()):
        raise ConversionError("importance must be finite and above 0")
    return importance


def _floats(x: NDArray[np.float32], type: BlockType) -> NDArray[np.generic]:  # noqa: A002
    """Rounded to nearest, ties to even."""
    if not np.isfinite(x).all():
        _fail(x, type)
    if type is BlockType.F32:
        return x
    if type is BlockType.F16:
        with np.errstate(over="ignore"):
            half = x.astype(np.float16)
        if np.isinf(half).any():
            _fail(x, type)
        return half
    bits = x.view(np.uint32)
    rounded = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    if ((rounded & 0x7F800000) == 0x7F800000).any():
        _fail(x, type)
    return (rounded >> 16).astype(np.uint16)


def _fail(x: NDArray[np.float32], type: BlockType) -> None:  # noqa: A002
    """Name the weight at fault."""
    flat = x.reshape(-1)
    wrong = np.flatnonzero(~np.isfinite(flat))
    if len(wrong):
        raise ConversionError(f"weight {int(wrong[0])} is {flat[wrong[0]]}")
    largest = int(np.abs(flat).argmax())
    raise ConversionError(f"weight {largest} is {flat[largest]}, too large for {type.name}")
