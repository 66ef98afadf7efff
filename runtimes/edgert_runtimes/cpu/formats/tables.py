"""Layouts of the types whose codes of four bits are indices of a table of values: IQ4_NL, IQ4_XS, MXFP4 and NVFP4.

Blocks of the file: `block_*` of ggml's `ggml-common.h`.
"""

from __future__ import annotations

from edgert_quant.blocks import BlockType
from edgert_quant.blocks.unpack32 import E2M1_VALUES, IQ4_VALUES
from edgert_quant.jit import emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.blocks32 import Nibbles
from edgert_runtimes.cpu.formats.blocks256 import BYTES, byte_of, bytes_as_words, half_and_part, twice
from edgert_runtimes.cpu.formats.layout import STEPS, Layout, Scales, Word, store_words
from edgert_runtimes.cpu.formats.rows import RawRows
from edgert_runtimes.cpu.formats.storage import FourBits, join_bits
from edgert_runtimes.cpu.formats.vectors import (
    F32,
    FLOATS,
    HALVES,
    I8,
    ROW_WORD,
    SHORTS,
    WORDS,
    Offset,
    Value,
    add,
    load,
    mask,
    multiply,
    same,
    shift_left,
    shift_right,
    step,
    store,
)

E2M1_TABLE = tuple(int(value) for value in E2M1_VALUES)
IQ4_TABLE = tuple(int(value) for value in IQ4_VALUES)


class IQ4_NL(Nibbles):  # noqa: N801
    """w = d table[q]."""

    type = BlockType.IQ4_NL
    codes_at = 32
    bytes = codes_at + STEPS // 2 * ROW_WORD
    table = IQ4_TABLE


class IQ4_XS(FourBits):  # noqa: N801
    """w = d (sc - 32) table[q], with 6-bit sc for every 32 weights.

    Packed: d; two words of four scales; codes.
    """

    type = BlockType.IQ4_XS
    scales_at, codes_at = ROW_WORD, 3 * ROW_WORD
    bytes = codes_at + 8 * STEPS // 2 * ROW_WORD
    table = IQ4_TABLE
    leveled = True
    groups = 4
    blocks = 2

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """Half d, uint16 scales_h, uint8 scales_l[4], uint8 qs[128]. The low bits of scale g are in half g % 2 of
        scales_l[g // 2], the upper ones in bits 2 g and 2 g + 1 of scales_h.
        """
        first, low = raw.columns(0, 2)
        store(b, place, 0, emit.half_to_float(b, b.trunc(first, HALVES)), align=32)
        scales = []
        for g in range(8):
            upper = shift_left(b, mask(b, shift_right(b, first, 16 + 2 * g), 3), 4)
            scales.append(b.or_(mask(b, shift_right(b, low, 4 * g), 15), upper))
        for i in range(2):
            store(b, place, self.scales_at + ROW_WORD * i, join_bits(b, scales[4 * i : 4 * i + 4], 8), align=32)

    def pack_round(self, b: ir.IRBuilder, raw: RawRows, place: Value, group: Offset) -> None:
        """Eight words of codes."""
        target = step(b, place, add(b, multiply(b, group, 8 * ROW_WORD), self.codes_at))
        store_words(b, target, raw.columns(add(b, multiply(b, group, 32), 8), 8))

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """d (sc - 32)."""
        number, part = half_and_part(b, group)
        word = load(b, place, add(b, multiply(b, number, ROW_WORD), self.scales_at), WORDS, align=32)
        level = byte_of(b, word, add(b, multiply(b, part, 2), block))
        numbers = b.bitcast(twice(b, level), SHORTS)
        levels = b.bitcast(b.sub(numbers, same(numbers, 32)), WORDS)
        return Scales([load(b, place, 0, FLOATS, align=32)], levels=levels)


class MXFP4(Nibbles):
    """w = 2^(e - 128) table[q]; the table is twice the values of E2M1.

    Packed: 16 bytes e; codes.
    """

    type = BlockType.MXFP4
    alignment = 16
    codes_at = LANES
    bytes = codes_at + STEPS // 2 * ROW_WORD
    table = E2M1_TABLE

    def header(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> int:
        """uint8 e."""
        store(b, place, 0, raw.column(0, I8), align=16)
        return 1

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """2^(e - 128)."""
        return Scales([power_of_two(b, bytes_as_words(b, place, 0))])


def power_of_two(b: ir.IRBuilder, level: Value) -> Value:
    """Words e → 2^(e - 128): an exponent of float, and for e < 2 a number below the normal ones."""
    power = shift_left(b, b.sub(level, same(level, 1)), 23)
    small = shift_left(b, b.add(level, same(level, 1)), 21)  # the greater one for 0 and 1 only
    bits = emit.call(b, f"llvm.smax.v{level.type.count}i32", level.type, [power, small])
    return b.bitcast(bits, ir.VectorType(F32, level.type.count))


class NVFP4(Layout):
    """w = s / 2 table[q], 64 weights, with s for every 16: a float with four bits of exponent and three of fraction.

    Packed: four planes of 16 bytes s; codes as in the file, where the low halves of the eight bytes of 16 weights come
    first, then the high ones.
    """

    type = BlockType.NVFP4
    codes_at = 4 * LANES
    bits = 4
    bytes = codes_at + 8 * ROW_WORD
    table = E2M1_TABLE
    blocks = 2
    halves = 2

    def pack(self, b: ir.IRBuilder, raw: RawRows, place: Value) -> None:
        """uint8 s[4], uint8 qs[32]. Signs of s are ignored, and 0x7F, no number, reads as zero: as in gguf-py."""
        scales = raw.column(0)
        for i in range(4):
            level = mask(b, shift_right(b, scales, 8 * i), 0xFF)
            level = b.select(b.icmp_unsigned("==", level, same(level, 0x7F)), same(level, 0), level)
            store(b, place, LANES * i, b.trunc(mask(b, level, 0x7F), BYTES), align=16)
        store_words(b, step(b, place, self.codes_at), raw.columns(4, 8))

    def scales(self, b: ir.IRBuilder, place: Value, group: Offset, block: int) -> Scales:
        """s / 2. As a half, s has a bias of 15 for one of 7."""
        planes = [load(b, place, LANES * (2 * block + i), BYTES, align=16) for i in range(2)]
        halves = [emit.half_to_float(b, shift_left(b, b.zext(plane, HALVES), 7)) for plane in planes]
        return Scales([b.fmul(half, emit.real(2.0 ** (15 - 7 - 1), FLOATS)) for half in halves])

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, number: int) -> Value:
        """Of four steps, two low and two high halves."""
        half, part = divmod(number, 4)
        pair = word(self.codes_at + ROW_WORD * (4 * block + 2 * half + part % 2))
        return mask(b, shift_right(b, pair, 4 * (part // 2)), 0x0F0F0F0F)


LAYOUTS: tuple[Layout, ...] = (IQ4_NL(), IQ4_XS(), MXFP4(), NVFP4())
