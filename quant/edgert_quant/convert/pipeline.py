"""From source to file, piece by piece: reading, quantizing and writing overlap, and memory stays bounded.

A piece is some rows of one tensor: of one expert, where there are experts. At most `_READ_AHEAD` pieces wait as floats
and `_WRITE_BEHIND` as packed bytes. The bytes do not depend on how a tensor is cut, nor on the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np
from edgert_models.errors import ConversionError
from edgert_models.graph import Weight
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.convert.report import tensor_bytes
from edgert_quant.convert.source import Source
from edgert_quant.gguf import GgufWriter
from edgert_quant.imatrix.magnitude import quantize_weighed

Progress = Callable[[int, int, str], None]
"""progress(done, total, name): bytes of the output that are ready, of how many, and the tensor they belong to."""

Weighting = Callable[["Piece"], NDArray[np.float32] | None]
"""weighting(piece): how much errors in its columns count, [in]; None where all count alike."""

Noting = Callable[["Piece", NDArray[np.float32], NDArray[np.uint8], BlockType], None]
"""noting(piece, rows, data, type): rows [count, in] have become data [count, row bytes]."""

_PIECE = 4 << 20  # weights
_READ_AHEAD = 2
_WRITE_BEHIND = 2
_FLOATS = (BlockType.F32, BlockType.F16, BlockType.BF16)
_LARGEST = {BlockType.F32: float(np.finfo(np.float32).max), BlockType.BF16: 3.3895e38}
_LARGEST_SCALE = 65504.0  # of F16: the weights themselves, or a block's scale


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows start … start + count of a tensor."""

    name: str
    start: int
    count: int


def pieces(weight: Weight, row_group: int = 1) -> Iterator[Piece]:
    """A tensor in pieces of about `_PIECE` weights that start at multiples of `row_group` and never cross matrices."""
    rows = prod(weight.shape[:-1])
    block = weight.shape[1] if weight.role.stacked else rows
    step = max(_PIECE // weight.shape[-1] // row_group, 1) * row_group
    for first in range(0, rows, block):
        for start in range(first, first + block, step):
            yield Piece(weight.name, start, min(step, first + block - start))


def write_tensors(
    source: Source,
    types: Mapping[str, BlockType],
    writer: GgufWriter,
    *,
    weighting: Weighting | None = None,
    noting: Noting | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> set[str]:
    """Write every tensor of `types`, in that order; the names of those that were not just copied. ConversionError names
    tensor and index of a weight that is no number, or too large for its type.
    """
    quantized: set[str] = set()
    total = sum(tensor_bytes(kind, source.weights[name].shape) for name, kind in types.items())
    done = 0
    todo = (piece for name in types for piece in pieces(source.weights[name], source.row_group(name)))
    reading: deque[tuple[Piece, Future[NDArray[np.float32] | NDArray[np.uint8]]]] = deque()
    writing: deque[Future[None]] = deque()
    with (
        ThreadPoolExecutor(1, thread_name_prefix="edgert-read") as reader,
        ThreadPoolExecutor(1, thread_name_prefix="edgert-write") as behind,
    ):

        def read_ahead() -> None:
            while len(reading) < _READ_AHEAD and (piece := next(todo, None)) is not None:
                reading.append((piece, reader.submit(_read, source, piece, types[piece.name])))

        try:
            read_ahead()
            while reading:
                piece, future = reading.popleft()
                data = future.result()
                read_ahead()
                if data.dtype != np.uint8:
                    quantized.add(piece.name)
                    rows = data.view(np.float32)
                    kind = types[piece.name]
                    importance = None if weighting is None else weighting(piece)
                    data = quantize_weighed(rows, kind, importance, threads=threads)
                    if noting is not None:
                        noting(piece, rows, data, kind)
                    del rows
                if len(writing) == _WRITE_BEHIND:
                    writing.popleft().result()
                writing.append(behind.submit(writer.write, piece.name, data))
                done += data.nbytes
                if progress:
                    progress(done, total, piece.name)
                del data, future
            while writing:
                writing.popleft().result()
        finally:
            for _, left in reading:
                left.cancel()
            for write in writing:
                write.cancel()
    return quantized


def _read(source: Source, piece: Piece, kind: BlockType) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Packed bytes where the source has this very type, else floats; numbers are checked either way."""
    data = source.read(piece.name, piece.start, piece.count, kind)
    weight = source.weights[piece.name]
    if data.dtype != np.uint8:
        check_finite(data.view(np.float32), piece, weight, kind)
    elif kind in _FLOATS:
        check_finite(dequantize(data.view(np.uint8), kind), piece, weight, kind)
    return data


def check_finite(values: NDArray[np.float32], piece: Piece, weight: Weight, kind: BlockType) -> None:
    """Raise ConversionError for the first NaN, infinity, or weight that `kind` cannot hold."""
    if not values.size:
        return
    limit = _LARGEST.get(kind, _LARGEST_SCALE)
    if -limit <= values.min() and values.max() <= limit:  # false for NaN
        return
    flat = int(np.argmin(np.abs(values) <= limit))
    row, column = divmod(flat, values.shape[1])
    index = [int(i) for i in np.unravel_index((piece.start + row) * values.shape[1] + column, weight.shape)]
    value = values[row, column]
    reason = f"is too large for {kind.name}" if np.isfinite(value) else "is not a number a model can use"
    raise ConversionError(f"tensor {weight.name}: the weight at {index} is {value:g}, which {reason}")
