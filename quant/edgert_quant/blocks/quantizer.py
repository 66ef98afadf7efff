"""Weights to bytes: `quantize` for the types that edgert writes, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from edgert_models.errors import ConversionError, RequestError, UnsupportedError
from numpy.typing import NDArray

from edgert_quant.blocks.types import BlockType

if TYPE_CHECKING:
    from edgert_quant.jit import Kernel

PIECE_WEIGHTS = 1 << 17
"""Weights that a thread takes at a time, in whole rows."""

LEAST_IMPORTANCE = 1e-6
"""Of a row's mean: no weight counts for nothing, so that every group of weights has a best scale."""

Numbers = NDArray[np.floating[Any]]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Encoder = Callable[[Floats, int, Bytes], bool]
"""(contiguous rows of weights, index of the first row, where their bytes go) → whether every weight could be stored."""


def quantize(
    x: Numbers,
    type: BlockType,  # noqa: A002
    *,
    importance: Numbers | None = None,
    threads: int | None = None,
) -> Bytes:
    """The weights `x`, float [..., n], in the bytes of a type: uint8 [..., row bytes].

    The squared error of what `dequantize` gives back is made as small as the type allows within a fixed effort. With
    `importance`, of shape [n] or that of `x`, every squared error counts so many times; its
    scale does not matter. F32, F16 and BF16 round to nearest, ties to even, and ignore it.

    The bytes depend on nothing but `x` and `importance`: not on `threads` (default: one per core), and not on the CPU.

    Raises `ConversionError` with the flat index of a weight that is not finite or too large for the type, or if an
    importance is negative or not finite; `UnsupportedError` for types that are only read; `RequestError` for rows that
    are no whole number of blocks, or an importance of another shape.
    """
    if x.ndim == 0:
        raise RequestError("quantize takes rows of weights, not a single number", parameter="x")
    n = x.shape[-1]
    rows = x.reshape(-1, max(n, 1))
    out = np.empty((len(rows), type.row_bytes(n)), np.uint8)
    encode = _encoder(type, n, None if importance is None else _checked(importance, x.shape))

    def work(piece: tuple[int, int]) -> bool:
        first, end = piece
        return encode(np.ascontiguousarray(rows[first:end], np.float32), first, out[first:end])

    pieces = list(_pieces(len(rows), n))
    workers = min(threads or os.cpu_count() or 1, len(pieces))
    if workers <= 1:
        good = [work(piece) for piece in pieces]
    else:
        with ThreadPoolExecutor(workers, "quantize") as pool:
            good = list(pool.map(work, pieces))
    for (first, end), fine in zip(pieces, good, strict=True):
        if not fine:
            raise _fault(np.asarray(rows[first:end], np.float32), first * n, type)
    return out.reshape(*x.shape[:-1], out.shape[-1])


def kernels(types: Iterable[BlockType], *, weighted: bool = False) -> list[Kernel]:
    """The compiled code that `quantize` needs for these types: for `jit.prepare`, ahead of a long job."""
    from edgert_quant.blocks.kernels import KERNELS

    return [KERNELS[kind, weighted] for kind in types if (kind, weighted) in KERNELS]


def writable_types() -> tuple[BlockType, ...]:
    """What `quantize` writes."""
    from edgert_quant.blocks.kernels import KERNELS

    return tuple(dict.fromkeys((*_PLAIN, *(kind for kind, _ in KERNELS))))


def _pieces(rows: int, n: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows; fixed by the shape alone."""
    step = max(1, PIECE_WEIGHTS // max(n, 1))
    return ((first, min(first + step, rows)) for first in range(0, rows, step))


def _checked(importance: Numbers, shape: tuple[int, ...]) -> Floats:
    """Importance as float32 [n] or [rows, n], every row of mean 1 and nowhere below `LEAST_IMPORTANCE`."""
    if importance.shape not in (shape, shape[-1:]):
        raise RequestError(
            f"importance has the shape {list(importance.shape)}; weights of shape {list(shape)} take that shape or "
            f"{list(shape[-1:])}",
            parameter="importance",
        )
    bad = np.flatnonzero(~np.isfinite(importance) | (importance < 0))
    if len(bad):
        value = importance.reshape(-1)[bad[0]]
        raise ConversionError(f"importance {int(bad[0])} is {value}; it must be finite and not negative")
    if not importance.size:
        return np.ones(shape[-1:], np.float32)
    mean = importance.mean(axis=-1, dtype=np.float64, keepdims=True)
    shares = np.divide(importance, mean, out=np.ones(importance.shape), where=mean > 0).astype(np.float32)
    return np.ascontiguousarray(np.maximum(shares, np.float32(LEAST_IMPORTANCE)).reshape(-1, shape[-1]).squeeze())


def _encoder(kind: BlockType, n: int, importance: Floats | None) -> Encoder:
    """How rows of `n` weights become bytes."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    from edgert_quant.blocks.kernels import KERNELS

    kernel = KERNELS.get((kind, importance is not None))
    if kernel is None:
        known = ", ".join(item.name for item in writable_types())
        raise UnsupportedError(f"edgert reads {kind.name} but does not quantize to it; it does to {known}")
    kernel.load()
    blocks = n // kind.block_size

    def encode(x: Floats, first: int, out: Bytes) -> bool:
        if importance is None:
            return kernel(x.ctypes.data, 0, 1, x.size // kind.block_size, out.ctypes.data) == 0
        each = importance.ndim == 2
        w = importance[first:] if each else importance
        period = len(x) * blocks if each else blocks
        return kernel(x.ctypes.data, w.ctypes.data, period, len(x) * blocks, out.ctypes.data) == 0

    return encode


def _f32(x: Floats, first: int, out: Bytes) -> bool:
    out[:] = x.astype("<f4", copy=False).view(np.uint8)
    return bool(np.isfinite(x).all())


def _f16(x: Floats, first: int, out: Bytes) -> bool:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        half = x.astype("<f2")
    out[:] = half.view(np.uint8)
    return bool(np.isfinite(half).all())


def _bf16(x: Floats, first: int, out: Bytes) -> bool:
    bits = x.view(np.uint32)
    rounded = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    out[:] = (rounded >> 16).astype("<u2").view(np.uint8)
    return not (((rounded & 0x7F800000) == 0x7F800000).any() or not np.isfinite(x).all())


_PLAIN: dict[BlockType, Encoder] = {BlockType.F32: _f32, BlockType.F16: _f16, BlockType.BF16: _bf16}


def _fault(x: Floats, offset: int, kind: BlockType) -> ConversionError:
    """What is wrong with weights of which the first has the flat index `offset`."""
    flat = x.reshape(-1)
    bad = np.flatnonzero(~np.isfinite(flat))
    if len(bad):
        return ConversionError(f"weight {offset + int(bad[0])} is {flat[bad[0]]}")
    largest = int(np.abs(flat).argmax())
    return ConversionError(f"weight {offset + largest} is {flat[largest]:g}, which is too large for {kind.name}")
