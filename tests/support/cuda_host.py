"""CUDA kernels on the host: the sources as they are, compiled by g++ behind `shim/cuda.h`, given NumPy arrays."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from edgert_runtimes.cuda.kernels.kernel import Kernel, headers, source

from tests.support.builds import built

SHIM = Path(__file__).with_name("shim")
LINKED = ("-shared", "-Wl,-Bsymbolic")  # names of kernels must not be found in the C library
FLAGS = (
    *("-std=c++17", "-O1", "-fno-strict-aliasing"),  # kernels look at memory as other types, as CUDA allows
    "-fPIC",
    *("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"),  # a GPU faults there
    "-U_FORTIFY_SOURCE",  # it forbids to jump between stacks
    *("-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Werror"),
)


class HostKernels:
    """A library of some kernels, whose headers may be `extra` ones (text by name). `change` edits a header before it is
    compiled: (name, text) → text.
    """

    order = 1
    """In what order threads run between two barriers: 0 ascending, 1 descending, more: shuffled."""

    def __init__(
        self,
        kernels: Iterable[Kernel],
        change: Callable[[str, str], str] = lambda name, text: text,
        extra: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        if shutil.which("g++") is None:
            pytest.skip("g++ is not installed: CUDA kernels cannot be run on the host")
        self._library = ctypes.CDLL(str(build_library(kernels, change, extra)))

    def launch(self, kernel: Kernel, **arguments: Any) -> None:
        """Run a kernel. Arrays stand for their addresses, None for null."""
        values = {name: _address(value) for name, value in arguments.items()}
        packed = kernel.pack(values)
        addresses = (ctypes.c_void_p * len(packed))(*[ctypes.addressof(value) for value in packed])
        self.launch_packed(kernel, kernel.grid(values), ctypes.addressof(addresses))

    def launch_packed(self, kernel: Kernel, grid: int, pointers: int) -> None:
        """Run a kernel whose arguments are at an array of addresses, as cuLaunchKernel takes it."""
        dims = (ctypes.c_uint * 6)(grid, 1, 1, kernel.threads, 1, 1)
        self._library.shim_order(self.order)
        launch = getattr(self._library, f"launch_{kernel.name}")
        launch.restype = ctypes.c_char_p
        failure = launch(dims, ctypes.c_void_p(pointers))
        if failure is not None:
            raise RuntimeError(failure.decode())


def build_library(
    kernels: Iterable[Kernel],
    change: Callable[[str, str], str] = lambda name, text: text,
    extra: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A library in which launch_NAME runs a kernel; see `shim/cuda.h`."""
    chosen = list(kernels)
    exports = "".join(f"SHIM_EXPORT({kernel.name})\n" for kernel in chosen)
    texts = {name: change(name, text) for name, text in {**headers(), **extra}.items()}
    texts["unit.cpp"] = f'#include "cuda.h"\n{source(chosen)}{exports}'

    def make(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text)
        found = [f"-I{path}" for path in (_shim(), SHIM, folder)]
        _compile(*found, *LINKED, str(folder / "unit.cpp"), "-o", str(folder / "unit.so"))

    inputs = [text for item in sorted(texts.items()) for text in item]
    return built([*FLAGS, *LINKED, *_shim_texts(), *inputs], make) / "unit.so"


def build_driver() -> Path:
    """The tests' own libcuda.so.1; see `shim/libcuda.cpp`."""
    program = SHIM / "libcuda.cpp"

    def make(folder: Path) -> None:
        _compile(*LINKED, str(program), "-o", str(folder / "libcuda.so.1"), "-ldl")

    return built([*FLAGS, *LINKED, program.read_text()], make) / "libcuda.so.1"


def _shim() -> Path:
    """A folder with the shim compiled ahead: that, and the headers it includes, is most of the work."""

    def make(folder: Path) -> None:  # -w: it warns of "#pragma once"
        _compile("-w", "-x", "c++-header", str(SHIM / "cuda.h"), "-o", str(folder / "cuda.h.gch"))

    return built([*FLAGS, *_shim_texts()], make)


@cache
def _shim_texts() -> tuple[str, ...]:
    return tuple((SHIM / name).read_text() for name in ("cuda.h", "fibers.h"))


def _compile(*arguments: str) -> None:
    done = subprocess.run(["g++", *FLAGS, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _address(value: Any) -> int | float:
    if value is None:
        return 0
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return value.ctypes.data
    return value  # type: ignore[no-any-return]
