"""The tensor types of GGUF: how many weights a block holds, and how many bytes.

Ids, block sizes and byte counts are those of `enum ggml_type` (`ggml.h`) and the block structures of `ggml-common.h`
in ggml. Ids 4, 5, 31-33 and 36-38 belonged to types that ggml has removed.
"""

from __future__ import annotations

from enum import IntEnum

from edgert_models.errors import RequestError, UnsupportedError

REMOVED_IDS = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}


class UnknownBlockTypeError(UnsupportedError, ValueError):
    """A number or a name that is no tensor type of GGUF (a `ValueError` too, as `Enum` expects)."""


class BlockType(IntEnum):
    """A tensor type of GGUF; the value is its id in files. Plain number types are blocks of one weight.

    `BlockType(id)` raises `UnknownBlockTypeError` for an id that GGUF does not have.
    """

    block_size: int
    """Weights per block."""
    block_bytes: int
    """Bytes per block."""

    def __new__(cls, value: int, block_size: int, block_bytes: int) -> BlockType:
        """A member from its id, weights per block and bytes per block."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.block_size = block_size
        member.block_bytes = block_bytes
        return member

    F32 = 0, 1, 4
    F16 = 1, 1, 2
    Q4_0 = 2, 32, 18
    Q4_1 = 3, 32, 20
    Q5_0 = 6, 32, 22
    Q5_1 = 7, 32, 24
    Q8_0 = 8, 32, 34
    Q8_1 = 9, 32, 36
    Q2_K = 10, 256, 84
    Q3_K = 11, 256, 110
    Q4_K = 12, 256, 144
    Q5_K = 13, 256, 176
    Q6_K = 14, 256, 210
    Q8_K = 15, 256, 292
    IQ2_XXS = 16, 256, 66
    IQ2_XS = 17, 256, 74
    IQ3_XXS = 18, 256, 98
    IQ1_S = 19, 256, 50
    IQ4_NL = 20, 32, 18
    IQ3_S = 21, 256, 110
    IQ2_S = 22, 256, 82
    IQ4_XS = 23, 256, 136
    I8 = 24, 1, 1
    I16 = 25, 1, 2
    I32 = 26, 1, 4
    I64 = 27, 1, 8
    F64 = 28, 1, 8
    IQ1_M = 29, 256, 56
    BF16 = 30, 1, 2
    TQ1_0 = 34, 256, 54
    TQ2_0 = 35, 256, 66
    MXFP4 = 39, 32, 17
    NVFP4 = 40, 64, 36
    Q1_0 = 41, 128, 18
    Q2_0 = 42, 64, 18

    @classmethod
    def _missing_(cls, value: object) -> BlockType:
        if isinstance(value, int) and value in REMOVED_IDS:
            reason = f"tensor type {value} ({REMOVED_IDS[value]}) was removed from GGUF; convert the model again"
        else:
            reason = f"tensor type {value!r} is unknown; GGUF has {', '.join(f'{t.value} ({t.name})' for t in cls)}"
        raise UnknownBlockTypeError(reason)

    @classmethod
    def parse(cls, name: str) -> BlockType:
        """The type called `name` (`"q4_k"`, in upper or lower case); `UnknownBlockTypeError` lists what exists."""
        try:
            return cls[name.strip().upper()]
        except KeyError:
            known = ", ".join(t.name.lower() for t in cls)
            raise UnknownBlockTypeError(f"no tensor type is called {name!r}; there are {known}") from None

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight, scales included."""
        return 8 * self.block_bytes / self.block_size

    def row_bytes(self, n: int) -> int:
        """Bytes of a row of `n` weights; `RequestError` if `n` is not a whole number of blocks."""
        if n < 0 or n % self.block_size:
            raise RequestError(
                f"a row of {n} weights cannot be stored as {self.name}: its blocks hold {self.block_size} weights"
            )
        return n // self.block_size * self.block_bytes
