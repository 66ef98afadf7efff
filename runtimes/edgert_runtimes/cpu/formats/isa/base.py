"""What an instruction set is: the few operations that the kernels of `formats` do differently on different CPUs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgert_quant.jit import Target, emit
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES
from edgert_runtimes.cpu.formats.vectors import I8, Value, join, split

Operand = tuple[Value, ...]
"""Vectors in the form that an instruction set multiplies; other modules only pass them on."""

Sums = Any
"""Sums on the way, in the form that an instruction set adds to; other modules only pass them on."""


@dataclass(frozen=True)
class Tile:
    """How many accumulators stay in registers: `panels` of 16 rows, for each number of tokens in `tokens`.

    `tokens` falls and ends in 1, so that tiles of these heights cover any number of tokens.
    """

    panels: int
    tokens: tuple[int, ...]


class Isa(ABC):
    """One instruction set. Instances are stateless."""

    name: str
    architecture: str = ""
    """How the triples of its CPUs start; empty: any CPU."""
    features: tuple[str, ...] = ()
    """What a CPU must have, by LLVM's names: every instruction that is asked for by name belongs to one of them."""

    def lacking(self, target: Target) -> tuple[str, ...]:
        """What the CPU would need to run this: nothing, its architecture or some features."""
        if not target.triple.startswith(self.architecture):
            return (self.architecture,)
        return tuple(feature for feature in self.features if not target.has(feature))

    def runs_on(self, target: Target) -> bool:
        """Whether the CPU has every instruction this emits."""
        return not self.lacking(target)

    @abstractmethod
    def float_tile(self) -> Tile:
        """The tile of kernels with one float accumulator per panel and token."""

    @abstractmethod
    def code_tile(self) -> Tile:
        """The tile of kernels with one float and one integer accumulator per panel and token."""

    def wide(self, bits: int) -> bool:
        """Whether it multiplies codes of `bits` with 16-bit inputs: then activations store them as such."""
        return False

    def bias(self, bits: int) -> int:
        """What `dot4` takes off each code of `bits`; the kernels add it again, times the sum of the inputs."""
        return 0

    @abstractmethod
    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Words of four unsigned bytes, each below 2^bits, as an operand of `dot4`, made once for all tokens."""

    @abstractmethod
    def inputs(self, b: ir.IRBuilder, words: Sequence[Value], bits: int) -> Operand:
        """Four inputs as an operand beside codes of `bits`, made once for all panels: a word of four signed bytes, or
        where `wide`, two of signed 16-bit numbers: inputs 0 and 2, and inputs 1 and 3.
        """

    @abstractmethod
    def look_up(self, b: ir.IRBuilder, words: Value, table: Sequence[int]) -> Value:
        """The entry of a table (up to 16 bytes) at every byte of the words; they are indices below 16."""

    def table_offset(self, table: Sequence[int]) -> int:
        """What is added to the signed entries of a table to make codes of them: a power of two, times which sums are
        shifted.
        """
        return 1 << (-min(table) - 1).bit_length()

    def table_bits(self, table: Sequence[int]) -> int:
        """Bits of those codes."""
        return (max(table) + self.table_offset(table)).bit_length()

    def entries(self, b: ir.IRBuilder, words: Value, table: Sequence[int]) -> Operand:
        """As `codes`, of the entries of a table at every byte of the words."""
        offset = self.table_offset(table)
        return self.codes(b, self.look_up(b, words, [entry + offset for entry in table]), self.table_bits(table))

    row_parts = 0
    """Where few tokens go through the rows of types with super-blocks as `rowwise` says: how many times 32 bytes
    vectors of integers have.
    """

    weighs = False
    """Whether it multiplies sums by a 16-bit number of each row for nothing: then `start` is given `weights`."""

    def weights(self, b: ir.IRBuilder, words: Value) -> Operand:
        """Words whose 16-bit numbers are alike, for `start`; nothing where it does not weigh."""
        return ()

    def start(self, b: ir.IRBuilder, total: Value, weights: Operand = ()) -> Sums:
        """Sums that are `total` so far; what is added is multiplied by the weights."""
        return total

    @abstractmethod
    def dot4(self, b: ir.IRBuilder, sums: Sums, codes: Operand, inputs: Operand, bits: int) -> Sums:
        """Add Σ of four products (code - bias) · input, lane by lane, exactly; the sums fit 32 bits."""

    def total(self, b: ir.IRBuilder, sums: Sums) -> Value:
        """The sums, as words."""
        return sums


def look_up_in_registers(
    b: ir.IRBuilder, words: Value, table: Sequence[int], instruction: str, size: int = LANES
) -> Value:
    """`Isa.look_up` by an instruction (table, indices) on registers of `size` bytes, with a table for every 16."""
    kind = ir.VectorType(I8, size)
    entries = [*table, *[0] * (LANES - len(table))] * (size // LANES)
    constant = ir.Constant(kind, [ir.Constant(I8, entry) for entry in entries])
    indices = split(b, b.bitcast(words, ir.VectorType(I8, 4 * LANES)), size)
    return b.bitcast(join(b, [emit.call(b, instruction, kind, [constant, part]) for part in indices]), words.type)
