"""How codes of two, three and four bits lie in a panel: whole words of 16 rows for every 32 weights, on their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from llvmlite import ir

from edgert_runtimes.cpu.formats.layout import STEPS, Layout, Word
from edgert_runtimes.cpu.formats.vectors import (
    ROW_WORD,
    Offset,
    Value,
    add,
    mask,
    multiply,
    shift_left,
    shift_right,
    store,
)


class Words(Layout):
    """Some words of 16 rows for 32 weights, one behind the other from `codes_at` on."""

    words: int
    """Of 16 rows, for 32 weights."""
    codes_at: int

    @abstractmethod
    def store_codes(self, b: ir.IRBuilder, place: Value, group: Offset, block: int, steps: Sequence[Value]) -> None:
        """Store the codes of 32 weights: eight words with a code a byte."""

    def block_at(self, b: ir.IRBuilder, group: Offset, block: int) -> Offset:
        """Where the words of 32 weights start."""
        size = self.words * ROW_WORD
        return add(b, multiply(b, group, self.blocks * size), self.codes_at + block * size)


class TwoBits(Words):
    """Two words: bits 2 q and 2 q + 1 of byte i of the p-th belong to code 4 (4 p + q) + i."""

    bits = 2
    words = 2

    def store_codes(self, b: ir.IRBuilder, place: Value, group: Offset, block: int, steps: Sequence[Value]) -> None:
        """The low bits of every byte."""
        start = self.block_at(b, group, block)
        for p in range(2):
            word = join_bits(b, [mask(b, step, 0x03030303) for step in steps[4 * p : 4 * p + 4]], 2)
            store(b, place, add(b, start, ROW_WORD * p), word, align=32)

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, step: int) -> Value:
        """Two bits of every byte."""
        p, q = divmod(step, 4)
        pairs = word(add(b, self.block_at(b, group, block), ROW_WORD * p))
        return mask(b, shift_right(b, pairs, 2 * q), 0x03030303)


class ThreeBits(TwoBits):
    """As TwoBits, with a third word: bit g of its byte i is the upper bit of code 4 g + i."""

    bits = 3
    words = 3

    def store_codes(self, b: ir.IRBuilder, place: Value, group: Offset, block: int, steps: Sequence[Value]) -> None:
        """The low bits, and the upper ones."""
        super().store_codes(b, place, group, block, steps)
        word = join_bits(b, [mask(b, shift_right(b, step, 2), 0x01010101) for step in steps], 1)
        store(b, place, add(b, self.block_at(b, group, block), 2 * ROW_WORD), word, align=32)

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, step: int) -> Value:
        """Two bits and one."""
        bits = word(add(b, self.block_at(b, group, block), 2 * ROW_WORD))
        return b.or_(super().codes(b, word, group, block, step), mask(b, shift_left(b, bits, 2 - step), 0x04040404))


class FourBits(Words):
    """Four words: code 4 g + i in the low half of byte i of the g-th, code 16 + 4 g + i in its high half."""

    bits = 4
    words = 4

    def store_codes(self, b: ir.IRBuilder, place: Value, group: Offset, block: int, steps: Sequence[Value]) -> None:
        """Two words as one."""
        start = self.block_at(b, group, block)
        for g in range(4):
            store(b, place, add(b, start, ROW_WORD * g), join_bits(b, [steps[g], steps[g + 4]], 4), align=32)

    def codes(self, b: ir.IRBuilder, word: Word, group: Offset, block: int, step: int) -> Value:
        """Low halves in the first four steps, high halves in the others."""
        high, index = divmod(step, STEPS // 2)
        pair = word(add(b, self.block_at(b, group, block), ROW_WORD * index))
        return mask(b, shift_right(b, pair, 4 * high), 0x0F0F0F0F)


def join_bits(b: ir.IRBuilder, words: Sequence[Value], bits: int) -> Value:
    """Words with `bits` in every byte as one, the first lowest."""
    result = words[0]
    for i, word in enumerate(words[1:], 1):
        result = b.or_(result, shift_left(b, word, bits * i))
    return result
