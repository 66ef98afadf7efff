"""llama.cpp's own quantizers through ctypes, the weights they are compared on, and their errors.

`EDGERT_LLAMA_CPP_LIB` names the folder of llama.cpp's libraries. With it set,

    python -m tests.support.ggml

prints the errors of ggml's quantizers on `samples()`: the table that `tests/quant/blocks/test_errors.py` holds.
"""

import ctypes
import os
import sys
from pathlib import Path

import numpy as np
from edgert_quant.blocks import BlockType, dequantize
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TYPES = tuple(
    BlockType[name]
    for name in (
        *("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
        *("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "MXFP4", "TQ1_0", "TQ2_0"),
    )
)
"""The block types that edgert quantizes to."""

ROWS, COLUMNS = 32, 1024


class Ggml:
    """`libggml-base`: quantizes as llama-quantize does."""

    def __init__(self, folder: Path) -> None:
        suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
        prefix = "" if sys.platform == "win32" else "lib"
        library = self._library = ctypes.CDLL(str(folder / f"{prefix}ggml-base{suffix}"))
        self._quantize = library.ggml_quantize_chunk
        self._quantize.restype = ctypes.c_size_t
        self._quantize.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]
        self._needs_importance = library.ggml_quantize_requires_imatrix
        self._needs_importance.restype = ctypes.c_bool

    def quantize(self, x: Floats, kind: BlockType, importance: Floats | None = None) -> NDArray[np.uint8]:
        """Rows [rows, n] as bytes, with importance [n] if given; ones for types that ggml refuses to make without."""
        if importance is None and self._needs_importance(int(kind)):
            importance = np.ones(x.shape[1], np.float32)
        x = np.ascontiguousarray(x, np.float32)
        out = np.empty((len(x), kind.row_bytes(x.shape[1])), np.uint8)
        weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
        address = None if weights is None else weights.ctypes.data
        size = self._quantize(int(kind), x.ctypes.data, out.ctypes.data, 0, len(x), x.shape[1], address)
        assert size == out.nbytes
        return out

    def dequantize(self, data: NDArray[np.uint8], kind: BlockType) -> Floats:
        """Rows of bytes as weights [rows, n]."""
        data = np.ascontiguousarray(data)
        out = np.empty((len(data), data.shape[1] // kind.block_bytes * kind.block_size), np.float32)
        unpack = getattr(self._library, f"dequantize_row_{kind.name.lower().replace('_k', '_K')}")
        unpack.restype, unpack.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        unpack(data.ctypes.data, out.ctypes.data, out.size)
        return out


def find() -> Ggml | None:
    """The library, or None where the variable is not set."""
    folder = os.environ.get("EDGERT_LLAMA_CPP_LIB")
    return Ggml(Path(folder)) if folder else None


def samples(rows: int = ROWS, columns: int = COLUMNS) -> dict[str, Floats]:
    """Weights of several kinds. `RandomState`, unlike `Generator`, promises the same numbers in every NumPy."""
    random = np.random.RandomState(20)
    shape = rows, columns
    normal = random.standard_normal(shape)
    made = {
        "gaussian": normal * 0.02,
        "laplace": random.laplace(size=shape) * 0.02,
        "outliers": normal * 0.02 * np.where(random.random_sample(shape) < 0.003, 20, 1),
        "columns": random.standard_normal(shape) * np.exp(random.standard_normal(columns)) * 0.02,
        "small": normal * 1e-5,
        "constant": np.repeat(random.standard_normal((rows, 1)), columns, axis=1),
        "zero": np.zeros(shape),
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


def importance(columns: int = COLUMNS) -> Floats:
    """One number to a column, spread over some four orders of magnitude."""
    return (np.random.RandomState(21).exponential(size=columns) ** 2 + 1e-3).astype(np.float32)


def error(x: Floats, data: NDArray[np.uint8], kind: BlockType, weights: Floats | None = None) -> float:
    """The rms error of the bytes, weighted by importance, as a share of the weighted rms of `x` (0 where that is 0)."""
    w = np.ones(x.shape[1]) if weights is None else weights.astype(np.float64)
    exact = x.astype(np.float64)
    norm = float((w * exact**2).sum())
    return float(np.sqrt((w * (dequantize(data, kind) - exact) ** 2).sum() / norm)) if norm else 0.0


def main() -> None:
    """Print the table."""
    ggml = find()
    if ggml is None:
        sys.exit("EDGERT_LLAMA_CPP_LIB does not name the folder of llama.cpp's libraries")
    for kind in TYPES:
        print(f'    "{kind.name}": {{')
        for name, x in samples().items():
            pair = [error(x, ggml.quantize(x, kind, w), kind, w) for w in (None, importance())]
            print(f'        "{name}": ({pair[0]:.6g}, {pair[1]:.6g}),')
        print("    },")


if __name__ == "__main__":
    main()
