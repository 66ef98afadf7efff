"""What is needed to compile and launch a kernel: its source, its parameters, its number of blocks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files

from edgert_runtimes.cuda.kernels.tables import tables

Arguments = Mapping[str, int | float]
"""Arguments by name; pointers are addresses, 0 for those that may be null and are."""

SOURCES = files("edgert_runtimes.cuda.kernels")
MAX_BLOCKS = (1 << 31) - 1
_KINDS: dict[str, type[ctypes.c_void_p | ctypes.c_int32 | ctypes.c_int64 | ctypes.c_float]] = {
    "int": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "float": ctypes.c_float,
}


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One entry point: `name` is its symbol (extern "C"), `call` the function in `header` that does the work.

    `signature` are its parameters in C++; comments in the header say what they are. `threads` is the size of a block,
    blocks and grids have one dimension, and shared memory is static. `blocks` is the size of the grid, by arguments.
    """

    name: str
    header: str
    call: str
    signature: str
    threads: int
    blocks: Callable[[Mapping[str, int]], int] = field(compare=False)

    @cached_property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """(name, type) in order; the type is "pointer", "int" (32 bits), "i64" or "float"."""
        found = []
        for part in self.signature.split(","):
            kind, name = part.rsplit(maxsplit=1)
            found.append((name.lstrip("*"), "pointer" if name.startswith("*") else kind.strip()))
        return tuple(found)

    def entry(self) -> str:
        """The entry point as source."""
        names = ", ".join(name for name, _ in self.parameters)
        return (
            f'extern "C" __global__ void __launch_bounds__({self.threads})\n'
            f"{self.name}({self.signature}) {{\n    kernels::{self.call}({names});\n}}\n"
        )

    def grid(self, arguments: Arguments) -> int:
        """Blocks of a launch with these arguments, 0 if there is nothing to launch.

        Elements are counted in 64 bits on the device, and 2^31 - 1 blocks, the most a grid may have, do more of them
        than any memory holds: launches need not be split. OverflowError tells where one would have to be.
        """
        count = self.blocks({name: value for name, value in arguments.items() if isinstance(value, int)})
        if count > MAX_BLOCKS:
            raise OverflowError(f"kernel {self.name} would need {count} blocks; a grid has {MAX_BLOCKS} at most")
        return count

    def pack(self, arguments: Arguments) -> list[ctypes.c_void_p | ctypes.c_int32 | ctypes.c_int64 | ctypes.c_float]:
        """The arguments in the order and with the sizes of the parameters; TypeError where names differ, OverflowError
        for a number that 32 bits do not hold where the kernel takes no more.
        """
        names = {name for name, _ in self.parameters}
        if names != arguments.keys():
            raise TypeError(f"kernel {self.name}: arguments {sorted(names ^ arguments.keys())} are missing or unknown")
        packed = []
        for name, kind in self.parameters:
            if kind == "int" and not -(1 << 31) <= arguments[name] < 1 << 31:
                raise OverflowError(f"kernel {self.name}: {name} is {arguments[name]}, which 32 bits do not hold")
            packed.append(_KINDS.get(kind, ctypes.c_void_p)(arguments[name]))  # type: ignore[arg-type]
        return packed


def source(kernels: Iterable[Kernel]) -> str:
    """One translation unit of some kernels; it includes only what `headers` has."""
    chosen = list(kernels)
    includes = dict.fromkeys(kernel.header for kernel in chosen)
    lines = [f'#include "{header}"\n' for header in includes]
    return "".join(lines) + "\n" + "\n".join(kernel.entry() for kernel in chosen)


def headers() -> dict[str, str]:
    """Every header by name: the package's files, and the tables that edgert_quant owns."""
    found = {path.name: path.read_text() for path in SOURCES.iterdir() if path.name.endswith(".cuh")}
    return {**found, "tables.cuh": tables()}


def ceil_div(a: int, b: int) -> int:
    """⌈a / b⌉."""
    return -(-a // b)
