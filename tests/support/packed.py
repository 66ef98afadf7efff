"""Random weights of every packed type, and matmuls through the kernels."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

import numpy as np
import pytest
from edgert_quant.blocks import BlockType, dequantize
from edgert_runtimes.cpu.formats import LANES, PANEL_ALIGNMENT, Format, available, format_for, packed_types

HALVES = {
    BlockType.Q4_1: (0, 2),
    BlockType.Q5_1: (0, 2),
    BlockType.Q2_K: (80, 82),
    BlockType.Q3_K: (108,),
    BlockType.Q4_K: (0, 2),
    BlockType.Q5_K: (0, 2),
    BlockType.Q6_K: (208,),
    BlockType.TQ1_0: (52,),
    BlockType.TQ2_0: (64,),
    BlockType.IQ1_M: (),
    BlockType.MXFP4: (),
    BlockType.NVFP4: (),
}
"""Where a block holds scales as halves, if that is not at its start; all other bytes may have any value."""


def aligned_bytes(size: int, fill: int = 0) -> np.ndarray:
    buffer = np.full(size + PANEL_ALIGNMENT, fill, np.uint8)
    start = -buffer.ctypes.data % PANEL_ALIGNMENT
    return buffer[start : start + size]


def random_rows(block_type: BlockType, rows: int, k: int, *, extreme: bool = False, seed: int = 0) -> np.ndarray:
    """uint8 [rows, row bytes]: any codes; scales near 0.01, or (`extreme`) any finite half, subnormals included."""
    rng = np.random.default_rng([seed, block_type, rows, k])
    n = rows * k // block_type.block_size
    if block_type.block_size == 1:
        values = rng.standard_normal(n).astype(np.float32)
        if extreme:
            values *= 10 ** rng.uniform(-7, 4, n).astype(np.float32)
        if block_type is BlockType.F16:
            return values.astype(np.float16).view(np.uint8).reshape(rows, -1)
        bits = values.view(np.uint32)
        return (
            (bits if block_type is BlockType.F32 else (bits >> 16).astype(np.uint16)).view(np.uint8).reshape(rows, -1)
        )
    data = rng.integers(0, 256, (n, block_type.block_bytes), dtype=np.uint8)
    if block_type is BlockType.MXFP4:  # an exponent, that of 2^-128 and 2^112 among the extremes
        data[:, 0] = rng.integers(0, 241, n) if extreme else rng.integers(117, 121, n)
        data[:2, 0] = (0, 1) if extreme else 120
    if block_type is BlockType.NVFP4 and extreme:
        data[:2, :4] = (0, 1, 0x7F, 0xFF)
    if block_type is BlockType.IQ1_M:  # the upper bits of a half: no infinity
        data[:, 55] = (data[:, 55] & 15) | 16 * (rng.integers(0, 7, n) + 8 * rng.integers(0, 2, n) if extreme else 2)
    for at in HALVES.get(block_type, (0,)):
        scales = (rng.choice([-1, 1], n) * rng.uniform(0.005, 0.01, n)).astype(np.float16)
        if extreme:
            bits = rng.integers(0, 0x7C00, n, dtype=np.uint16)
            bits[:3] = (0, 1, 0x7BFF)
            scales = (bits | rng.choice(np.array([0, 0x8000], np.uint16), n)).view(np.float16)
        data[:, at : at + 2] = scales.view(np.uint8).reshape(n, 2)
    return data.reshape(rows, -1)


@dataclass
class Packed:
    """A weight, its rows contiguous for `multiply`, and its panels."""

    format: Format
    raw: np.ndarray
    k: int

    def __post_init__(self) -> None:
        self.rows = len(self.raw)
        self.row_bytes = self.format.type.row_bytes(self.k)
        self.panel_bytes = self.format.panel_bytes(self.k)
        self.n_panels = -(-self.rows // LANES)
        self.data = aligned_bytes(self.n_panels * self.panel_bytes, fill=0xA5)
        for panel in range(self.n_panels):
            first = panel * LANES
            source = self.raw[first:].ctypes.data
            count = min(LANES, self.rows - first)
            self.format.pack(source, self.raw.strides[0], count, self.k, self.address(panel))

    @property
    def weights(self) -> np.ndarray:
        return dequantize(np.ascontiguousarray(self.raw), self.format.type)

    def address(self, panel: int) -> int:
        return int(self.data.ctypes.data) + panel * self.panel_bytes

    def unpack(self, row: int) -> np.ndarray:
        out = np.full(self.k, np.nan, np.float32)
        self.format.unpack_row(self.address(row // LANES), row % LANES, self.k, out.ctypes.data)
        return out

    def activations(self, x: np.ndarray) -> np.ndarray:
        out = np.zeros((len(x), self.format.activation.bytes(self.k)), np.uint8)
        for source, target in zip(x, out, strict=True):
            self.format.activation.quantize(source.ctypes.data, target.ctypes.data, self.k)
        return out

    def multiply(self, activations: np.ndarray, first: int = 0, count: int | None = None) -> np.ndarray:
        """float32 [tokens, count]: the product with some rows, all by default."""
        count = self.rows - first if count is None else count
        guard, padded = np.float32(12345), -(-count // LANES) * LANES
        out = np.full((len(activations), padded + LANES), guard)
        # The rows end where the memory does: a kernel that reads beyond is seen by a page that may not be touched.
        rows = GuardedBytes(np.ascontiguousarray(self.raw[first : first + count]).reshape(-1))
        room = self.format.scratch_bytes(self.k)
        scratch = aligned_bytes(room + LINE, fill=0xA5)
        xs = np.array([row.ctypes.data for row in activations], np.int64)
        ys = np.array([row.ctypes.data for row in out], np.int64)
        arguments = (xs.ctypes.data, ys.ctypes.data, len(activations), self.k, scratch.ctypes.data)
        self.format.gemm(rows.address, count, *arguments)
        assert (out[:, padded:] == guard).all(), "the kernel wrote behind its outputs"
        assert (scratch[room:] == 0xA5).all(), "the kernel wrote behind its scratch memory"
        return out[:, :count]


LINE = 64


class GuardedBytes:
    """A copy of some bytes that ends where a page begins that kills whoever touches it."""

    def __init__(self, data: np.ndarray) -> None:
        room = -(-len(data) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, room + mmap.PAGESIZE)
        whole = np.frombuffer(self._memory, np.uint8)
        self.address = int(whole.ctypes.data) + room - len(data)
        whole[room - len(data) : room] = data
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(whole.ctypes.data + room), ctypes.c_size_t(mmap.PAGESIZE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")


def decode_activations(activation: object, data: np.ndarray, k: int) -> np.ndarray:
    """What the stored activations mean, in float64: from the module's definition, not from the kernels."""
    if activation.name == "f32":
        return data.view(np.float32).astype(np.float64)
    if activation.name.startswith("q8k"):
        return decode_super_blocks(activation.name, data).reshape(len(data), k)
    size = {"q8": 32, "q8w": 64}[activation.name]
    blocks = np.ascontiguousarray(data).reshape(-1, size + 20)
    whole = decode_codes(activation.name, blocks[:, :size])
    scale = np.ascontiguousarray(blocks[:, size : size + 4]).view(np.float32).astype(np.float64)
    return (scale * whole).reshape(len(data), k)


def decode_super_blocks(name: str, data: np.ndarray) -> np.ndarray:
    """Blocks of 256 with steps of 32: float64 [blocks, 256]."""
    codes, tail, scale = split_super_blocks(name, data)
    steps = tail[:, :16:2].astype(np.float64)
    return scale[:, None] * (steps[:, :, None] * codes.reshape(-1, 8, 32)).reshape(-1, 256)


def split_super_blocks(name: str, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes int64 [blocks, 256], the 16-bit numbers behind them [blocks, 56], and scales float64 [blocks]."""
    size = 512 if name.endswith("w") else 256
    blocks = np.ascontiguousarray(data).reshape(-1, size + 128)
    codes = decode_codes(name, np.ascontiguousarray(blocks[:, :size]).reshape(-1, size // 8)).reshape(-1, 256)
    tail = np.ascontiguousarray(blocks[:, size : size + 112]).view(np.int16)
    scale = np.ascontiguousarray(blocks[:, size + 112 : size + 116]).view(np.float32).astype(np.float64)
    return codes, tail, scale[:, 0]


def decode_codes(name: str, stored: np.ndarray) -> np.ndarray:
    """The codes of blocks, int64 [blocks, 32]."""
    if name.endswith("w"):
        codes = np.ascontiguousarray(stored).view(np.int16).reshape(-1, 8, 4)[:, :, [0, 2, 1, 3]]
        return codes.reshape(-1, 32).astype(np.int64)
    return stored.view(np.int8).astype(np.int64)


REPRESENTATIVE = (BlockType.F16, BlockType.Q8_0, BlockType.Q2_K, BlockType.Q5_K, BlockType.Q6_K, BlockType.IQ4_XS)
"""Together they use everything that instruction sets do differently."""


def every_format() -> list[object]:
    """Each packed type with each instruction set that runs here, as pytest parameters. Sets that are neither the best
    here nor the portable one run all but the representative types as slow tests.
    """
    best, *others = available()
    parameters = []
    for isa in (best, *others):
        for block_type in packed_types():
            quick = isa is best or isa.name == "portable" or block_type in REPRESENTATIVE
            marks = () if quick else (pytest.mark.slow,)
            name = f"{block_type.name.lower()}-{isa.name}"
            parameters.append(pytest.param(format_for(block_type, isa), id=name, marks=marks))
    return parameters
