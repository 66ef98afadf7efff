"""Instruction sets; `base` is the contract.

A kernel is written once, over vectors of 16 lanes, and asks its `Isa` for the integer dot product and for the size of
the tile that fits the registers. EDGERT_CPU chooses one by name.
"""

from edgert_runtimes.cpu.formats.isa import arm, base, portable, x86
from edgert_runtimes.cpu.formats.isa.base import Isa, Operand, Tile
from edgert_runtimes.cpu.formats.isa.registry import ISAS, VARIABLE, available, forced_isa, host_isa, why_not

SOURCES = (arm, base, portable, x86)
"""The modules that kernels are emitted by."""

__all__ = ["ISAS", "SOURCES", "VARIABLE", "Isa", "Operand", "Tile", "available", "forced_isa", "host_isa", "why_not"]
