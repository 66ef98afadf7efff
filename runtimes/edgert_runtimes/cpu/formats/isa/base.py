"""What an instruction set is: the few operations that the kernels of `formats` do differently on different CPUs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from edgert_quant.jit import Target
from llvmlite import ir

from edgert_runtimes.cpu.formats.vectors import Value

Operand = tuple[Value, ...]
"""Vectors in the form that an instruction set multiplies; other modules only pass them on."""


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

    @abstractmethod
    def runs_on(self, target: Target) -> bool:
        """Whether the CPU has every instruction this emits."""

    @abstractmethod
    def float_tile(self) -> Tile:
        """The tile of kernels with one float accumulator per panel and token."""

    @abstractmethod
    def code_tile(self, planes: int) -> Tile:
        """The tile of kernels with one float and `planes` integer accumulators per panel and token."""

    @abstractmethod
    def codes(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Words of four unsigned bytes, each below 2^bits, as an operand of `dot4`, made once for all tokens."""

    @abstractmethod
    def inputs(self, b: ir.IRBuilder, words: Value, bits: int) -> Operand:
        """Words of four signed bytes as an operand beside codes of `bits`, made once for all panels."""

    @abstractmethod
    def dot4(self, b: ir.IRBuilder, total: Value, codes: Operand, inputs: Operand) -> Value:
        """`total` + Σ of four products, lane by lane, exactly; the sums fit 32 bits."""
