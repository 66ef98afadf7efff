"""Packed weight formats of the CPU runtime and their matmul kernels; `base` is the contract."""

from edgert_runtimes.cpu.formats.activations import activation
from edgert_runtimes.cpu.formats.base import LANES, PANEL_ALIGNMENT, Activation, Format
from edgert_runtimes.cpu.formats.isa import Isa, available, host_isa
from edgert_runtimes.cpu.formats.registry import format_for, packed_types

__all__ = [
    "LANES",
    "PANEL_ALIGNMENT",
    "Activation",
    "Format",
    "Isa",
    "activation",
    "available",
    "format_for",
    "host_isa",
    "packed_types",
]
