"""CUDA kernels on the host: the sources as they are, compiled by g++ behind `shim/cuda.h`, given NumPy arrays."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from edgert_runtimes.cuda.kernels.kernel import Kernel, headers, source

SHIM = Path(__file__).with_name("shim")
FLAGS = (
    *("-std=c++17", "-O1", "-fno-strict-aliasing"),  # kernels look at memory as other types, as CUDA allows
    *("-shared", "-fPIC", "-Wl,-Bsymbolic"),  # names of kernels must not be found in the C library
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
        chosen = list(kernels)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for header, text in {**headers(), **extra}.items():
                (folder / header).write_text(change(header, text))
            exports = "".join(f"SHIM_EXPORT({kernel.name})\n" for kernel in chosen)
            (folder / "unit.cpp").write_text(f'#include "cuda.h"\n{source(chosen)}{exports}')
            command = [
                "g++",
                *FLAGS,
                f"-I{SHIM}",
                f"-I{folder}",
                str(folder / "unit.cpp"),
                "-o",
                str(folder / "unit.so"),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            self._library = ctypes.CDLL(str(folder / "unit.so"))

    def launch(self, kernel: Kernel, **arguments: Any) -> None:
        """Run a kernel. Arrays stand for their addresses, None for null."""
        values = {name: _address(value) for name, value in arguments.items()}
        packed = kernel.pack(values)
        addresses = (ctypes.c_void_p * len(packed))(*[ctypes.addressof(value) for value in packed])
        dims = (ctypes.c_uint * 6)(kernel.grid(values), 1, 1, kernel.threads, 1, 1)
        self._library.shim_order(self.order)
        launch = getattr(self._library, f"launch_{kernel.name}")
        launch.restype = ctypes.c_char_p
        failure = launch(dims, addresses)
        if failure is not None:
            raise RuntimeError(failure.decode())


def _address(value: Any) -> int | float:
    if value is None:
        return 0
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return value.ctypes.data
    return value  # type: ignore[no-any-return]
