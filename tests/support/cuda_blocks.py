"""Rows of weights of any block type, and activations in the blocks that CUDA kernels read."""

import numpy as np
from edgert_models.errors import UnsupportedError
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_runtimes.cuda.kernels import catalogue


def random_rows(kind: BlockType, rows: int, k: int, seed: int = 0) -> np.ndarray:
    """Weights near 1/√k as bytes [rows, row bytes]; random bytes, but for the scales, where edgert cannot quantize."""
    rng = np.random.default_rng(seed)
    try:
        return quantize(rng.standard_normal((rows, k), dtype=np.float32) * np.float32(k**-0.5), kind)
    except UnsupportedError:
        raw = rng.integers(0, 256, (rows, kind.row_bytes(k)), dtype=np.uint8)
        blocks = raw.reshape(-1, kind.block_bytes)
        if kind is BlockType.NVFP4:
            blocks[:, :4] = rng.integers(8, 48, (len(blocks), 4))
        else:
            blocks[:, :2] = rng.uniform(0.01, 0.1, (len(blocks), 1)).astype(np.float16).view(np.uint8)
        return raw


def weights(raw: np.ndarray, kind: BlockType) -> np.ndarray:
    """What the bytes stand for, float64."""
    return dequantize(raw, kind).astype(np.float64)


class Activations:
    """x [rows, k] as a matrix of some type reads it: in floats, or in blocks; `seen` is what is multiplied then."""

    def __init__(self, rows: int, k: int, kind: BlockType, seed: int = 1) -> None:
        self.x = np.random.default_rng(seed).standard_normal((rows, k), dtype=np.float32)
        self.codes, self.scales = q8(self.x) if catalogue.reads_codes(kind) else (None, None)
        self.seen = self.x.astype(np.float64) if self.codes is None else unpacked(self.codes, self.scales)

    @property
    def arguments(self) -> dict[str, np.ndarray | None]:
        """As kernels take them; floats are left out where codes are read."""
        return {"x": self.x if self.codes is None else None, "codes": self.codes, "scales": self.scales}


def q8(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 [rows, k] and scales float32 [rows, k / 32, 4], as `activations.cuh` defines them."""
    blocks = x.reshape(len(x), -1, 32)
    d = np.abs(blocks).max(axis=-1) / np.float32(127)
    codes = np.rint(blocks * np.where(d > 0, 1 / np.where(d > 0, d, 1), 0).astype(np.float32)[..., None]).astype(
        np.int8
    )
    sums = codes.reshape(*d.shape, 2, 16).sum(axis=-1, dtype=np.float32) * d[..., None]
    scales = np.concatenate([d[..., None], sums, np.zeros_like(d)[..., None]], axis=-1)
    return codes.reshape(x.shape), np.ascontiguousarray(scales, np.float32)


def unpacked(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The numbers that blocks stand for, float64 [rows, k]."""
    blocks = codes.reshape(*scales.shape[:2], 32).astype(np.float64) * scales[..., :1]
    return blocks.reshape(codes.shape)
