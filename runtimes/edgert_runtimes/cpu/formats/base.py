"""What a weight format of the CPU runtime is: the contract between the executor and the matmul kernels.

A linear weight (out, in) of one block type stays as it is in the file, row after row of `type.row_bytes(k)` bytes, and
is only read. Kernels turn 16 rows at a time into a *panel* in the calling thread's scratch memory: lane i of a panel is
row i, the inputs k run sequentially. Panels are what arithmetic is done on, one vector lane to a row.

All kernels take 64-bit integers only (addresses in bytes, counts) and return nothing. They are pure functions of their
arguments, so they may run on any number of threads at once:

    format.gemm(rows, n_rows, xs, ys, n_tokens, k, scratch) xs: int64[n_tokens] addresses of activations,
                                                            ys: int64[n_tokens] addresses of float32[n_rows], with
                                                            room for a multiple of 16; scratch: scratch_bytes(k)
    format.pack(src, row_stride, rows, k, dst)              1..16 raw GGUF rows, `row_stride` bytes apart → one panel;
                                                            lanes beyond `rows` are the first row again
    format.unpack_row(panel, lane, k, dst)                  one row back to float32[k], exactly as its type defines it
    format.activation.quantize(x, dst, k)                   float32[k] → `activation.bytes(k)` bytes

Rows may start anywhere. Panels take `panel_bytes(k)`, a multiple of 64; their addresses, and that of the scratch
memory, must be multiples of 64. Every output element is bit-identical whatever `n_tokens` and `n_rows` it was computed
with: each is one sequential sum over the blocks of k, in the same order and with the same operations in every tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from edgert_quant.blocks import BlockType
from edgert_quant.jit import Kernel

LANES = 16
"""Rows of a panel."""

PANEL_ALIGNMENT = 64
"""Bytes; `Format.panel_bytes` is a multiple of it, and scratch memory must start at one."""


class Activation(ABC):
    """How the inputs of a matmul are stored. Formats that name the same activation share one quantized copy."""

    name: str
    """`f32`, `q8` (int8 codes and one float scale per 32) or `q8k` (int8 codes, one float scale per 256 and an integer
    of it per 32); `q8w` and `q8kw` are these with codes of 16 bits.
    """

    block: int
    """Inputs that are quantized together; `k` of quantized rows is a multiple of it."""

    direct: bool
    """True when the float32 row itself is the activation: its address can go into `xs` and `quantize` is a copy."""

    quantize: Kernel
    """(x, dst, k): float32[k] → bytes(k). A block that holds a NaN or an infinity makes the outputs NaN."""

    @abstractmethod
    def bytes(self, k: int) -> int:
        """Size of one activation row of k inputs; a multiple of 4, which is also its required alignment."""


class Format(ABC):
    """How weights of one block type are multiplied with one instruction set."""

    type: BlockType
    activation: Activation
    pack: Kernel
    gemm: Kernel
    unpack_row: Kernel

    @abstractmethod
    def panel_bytes(self, k: int) -> int:
        """Size of one panel of 16 rows of k inputs, a multiple of 64."""

    @abstractmethod
    def scratch_bytes(self, k: int) -> int:
        """Size of the scratch memory of `gemm`, a multiple of 64."""

    def kernels(self) -> tuple[Kernel, ...]:
        """Every kernel of the format, to be compiled ahead."""
        return (self.pack, self.gemm, self.unpack_row, self.activation.quantize)
