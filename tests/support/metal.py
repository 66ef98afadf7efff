"""Metal kernels compiled for the host, on the shim of `shim/metal.h`, and run on NumPy arrays."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from edgert_runtimes.mlx.metal.launches import Launch
from edgert_runtimes.mlx.metal.sources import Kernel

from tests.support.builds import built

COMPILER = shutil.which("g++") if sys.platform == "linux" else None
MISSING = "Metal kernels are compiled for the host by g++ on Linux"
SHIM = Path(__file__).parent / "shim"
ORDERS = (0, 1, 2)
"""In which threads run between two waits: ascending, descending, shuffled."""

_NUMBERS = {"float32": "float", "float16": "half", "bfloat16": "bfloat", "uint8": "uchar", "uint32": "uint"}
_NUMBERS |= {"int32": "int"}
ATTRIBUTES = {
    "thread_position_in_grid": "uint3",
    "threadgroup_position_in_grid": "uint3",
    "thread_index_in_threadgroup": "uint",
    "thread_index_in_simdgroup": "uint",
    "simdgroup_index_in_threadgroup": "uint",
}
"""Where a thread is, as kernels are told: all are given to all, where MLX gives each those that it names."""


class Program:
    """Kernels of one type (which share their header) with their template arguments, compiled together."""

    def __init__(self, launches: Sequence[tuple[Launch, str]]) -> None:
        """`launches`: each with the type of x and y, float32, float16 or bfloat16."""
        self._names: dict[tuple[Kernel, tuple[tuple[str, int], ...], str], str] = {}
        pieces = ['#include "metal.h"', launches[0][0].kernel.header]
        for launch, number in launches:
            key = (launch.kernel, launch.template, number)
            if key not in self._names:
                self._names[key] = f"run_{len(self._names)}"
                pieces.append(_entry(self._names[key], launch, number))
        text = "\n".join(pieces)
        self._library = _compiled(text)

    def run(self, launch: Launch, number: str, inputs: Sequence[np.ndarray], order: int = 0) -> np.ndarray:
        """y. bfloat16 is uint16 here; what is not written stays NaN."""
        held = np.float16 if number == "float16" else np.uint16 if number == "bfloat16" else np.float32
        y = np.full(launch.shape, np.nan if number != "bfloat16" else 0x7FC0, held)
        given = [np.ascontiguousarray(each) for each in inputs]
        shapes = [np.array(each.shape, np.int32) for each in given]
        pointers = [array.ctypes.data for pair in zip(given, shapes, strict=True) for array in pair]
        function = self._library[self._names[launch.kernel, launch.template, number]]
        function.restype = ctypes.c_char_p
        sizes = (ctypes.c_uint * 6)(*launch.grid, *launch.group)
        error = function((ctypes.c_void_p * (len(pointers) + 1))(*pointers, y.ctypes.data), sizes, order)
        assert error is None, error.decode()
        return y


class FusedProgram:
    """A kernel with any arrays, compiled for one set of template arguments and types."""

    def __init__(
        self,
        source: str,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        template: Mapping[str, str | int],
        header: str = "",
    ) -> None:
        """`inputs` and `outputs`: types by name, as NumPy names them (and bfloat16)."""
        parameters, arguments = [], []
        for i, (array, number) in enumerate(inputs.items()):
            parameters += [f"const {_NUMBERS[number]}* {array}", f"const int* {array}_shape"]
            arguments += [f"(const {_NUMBERS[number]}*)arrays[{2 * i}]", f"(const int*)arrays[{2 * i + 1}]"]
        for i, (array, number) in enumerate(outputs.items()):
            parameters.append(f"{_NUMBERS[number]}* {array}")
            arguments.append(f"({_NUMBERS[number]}*)arrays[{2 * len(inputs) + i}]")
        kinds = [f"{'int' if isinstance(value, int) else 'typename'} {name}" for name, value in template.items()]
        values = [value if isinstance(value, int) else _NUMBERS[value] for value in template.values()]
        self._outputs = dict(outputs)
        # A name of its own: variables of a group are static, and libraries share those of one name.
        text = [source, *parameters, *map(str, values)]
        self._name = f"run_{hashlib.sha256(repr(text).encode()).hexdigest()[:16]}"
        function = _function(self._name, source, parameters, arguments, kinds, [str(value) for value in values])
        self._library = _compiled(f'#include "metal.h"\n{header}\n{function}', "-O0" if not header else "-O2")

    def run(
        self,
        inputs: Sequence[np.ndarray],
        shapes: Sequence[tuple[int, ...]],
        grid: Sequence[int],
        group: Sequence[int],
        order: int = 0,
    ) -> list[np.ndarray]:
        """The outputs; bfloat16 is uint16 here. What is not written is 0x7F, byte for byte."""
        held = [np.uint16 if number == "bfloat16" else np.dtype(number) for number in self._outputs.values()]
        found = [np.full(np.prod(s) * np.dtype(h).itemsize, 0x7F, np.uint8) for s, h in zip(shapes, held, strict=True)]
        given = [np.ascontiguousarray(each) for each in inputs]
        sizes = [np.array(each.shape, np.int32) for each in given]
        pointers = [array.ctypes.data for pair in zip(given, sizes, strict=True) for array in pair]
        pointers += [array.ctypes.data for array in found]
        function = self._library[self._name]
        function.restype = ctypes.c_char_p
        error = function((ctypes.c_void_p * len(pointers))(*pointers), (ctypes.c_uint * 6)(*grid, *group), order)
        assert error is None, error.decode()
        return [array.view(h).reshape(shape) for array, h, shape in zip(found, held, shapes, strict=True)]


def _compiled(text: str, level: str = "-O2") -> ctypes.CDLL:
    options = ["-std=c++17", level, "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-shared", f"-I{SHIM}"]
    strict = ["-Wall", "-Wno-unused", "-Wno-unknown-pragmas", "-Werror"]

    def make(folder: Path) -> None:
        (folder / "kernels.cpp").write_text(text)
        command = [str(COMPILER), *options, *strict, str(folder / "kernels.cpp"), "-o", str(folder / "kernels.so")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    shim = [(SHIM / name).read_text() for name in ("metal.h", "fibers.h")]
    return ctypes.CDLL(str(built([*options, *strict, *shim, text], make) / "kernels.so"))


def _entry(name: str, launch: Launch, number: str) -> str:
    """The function that MLX makes of a body, with one set of template arguments, and what calls it."""
    kernel = launch.kernel
    parameters, arguments = [], []
    for i, (array, held) in enumerate((given, _type(given)) for given in kernel.inputs):
        parameters += [f"const {held or 'T'}* {array}", f"const int* {array}_shape"]
        real = held or _NUMBERS[number]
        arguments += [f"(const {real}*)arrays[{2 * i}]", f"(const int*)arrays[{2 * i + 1}]"]
    parameters.append("T* y")
    arguments.append(f"({_NUMBERS[number]}*)arrays[{2 * len(kernel.inputs)}]")
    template = ["typename T", *(f"int {parameter}" for parameter, _ in launch.template)]
    values = [_NUMBERS[number], *(str(value) for _, value in launch.template)]
    return _function(name, kernel.source, parameters, arguments, template, values)


def _function(
    name: str, source: str, parameters: list[str], arguments: list[str], template: list[str], values: list[str]
) -> str:
    parameters = [*parameters, *(f"{held} {attribute}" for attribute, held in ATTRIBUTES.items())]
    arguments = [*arguments, *(f"at.{each}" for each in ATTRIBUTES)]
    return f"""
namespace {name}_body {{
template <{", ".join(template)}> void body({", ".join(parameters)}) {{
{source}
}}
}}
extern "C" const char* {name}(void** arrays, const uint* sizes, uint order) {{
    fibers::order = order;
    return dispatch({{sizes[0], sizes[1], sizes[2]}}, {{sizes[3], sizes[4], sizes[5]}}, [&](Place at) {{
        {name}_body::body<{", ".join(values)}>({", ".join(arguments)});
    }});
}}
"""


def _type(array: str) -> str | None:
    return {"blocks": "uchar", "ids": "uint"}.get(array)
