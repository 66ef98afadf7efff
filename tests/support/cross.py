"""Kernels compiled for another CPU, linked into a program of their own and run: by an emulator, if this CPU cannot."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edgert_quant.jit import Target, compiling_for, loader
from edgert_quant.jit.compiler import compile_kernel
from edgert_runtimes.cpu.formats import LANES, Format
from llvmlite import binding

DRIVER = Path(__file__).with_name("kernels.c")


@dataclass(frozen=True)
class Machine:
    """A CPU to compile for, the prefix of its C compiler's and binutils' names, and what runs its programs."""

    target: Target
    prefix: str = ""
    emulator: tuple[str, ...] = ()

    def lacking(self) -> str:
        """What is missing here, or nothing."""
        programs = [f"{self.prefix}gcc", f"{self.prefix}objcopy", *self.emulator[:1]]
        missing = [program for program in programs if shutil.which(program) is None]
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
        try:
            binding.Target.from_triple(self.target.triple)
        except RuntimeError:
            missing.append(f"an llvmlite that compiles for {self.target.triple}")
        return ", ".join(missing)


@dataclass(frozen=True)
class Results:
    """What the program wrote."""

    panels: np.ndarray
    activations: np.ndarray
    together: np.ndarray
    alone: np.ndarray
    unpacked: np.ndarray


def run_kernels(machine: Machine, form: Format, raw: np.ndarray, x: np.ndarray, folder: Path) -> Results:
    """Pack rows, quantize inputs [tokens, k], multiply, and unpack, all on that machine."""
    program = _build(machine, form, folder)
    rows, (tokens, k) = len(raw), x.shape
    panel, activation = form.panel_bytes(k), form.activation.bytes(k)
    sizes = np.array([rows, k, tokens, raw.shape[1], panel, activation, form.scratch_bytes(k)], np.int64)
    given = sizes.tobytes() + raw.tobytes() + x.tobytes()
    done = subprocess.run([*machine.emulator, str(program)], input=given, capture_output=True, timeout=250, check=True)
    count = -(-rows // LANES)
    lengths = [count * panel, tokens * activation, *[4 * LANES * count * tokens] * 2, 4 * rows * k]
    assert len(done.stdout) == sum(lengths)
    parts = np.split(np.frombuffer(done.stdout, np.uint8), np.cumsum(lengths)[:-1])
    together, alone = (part.view(np.float32).reshape(tokens, -1)[:, :rows] for part in parts[2:4])
    return Results(parts[0], parts[1].reshape(tokens, -1), together, alone, parts[4].view(np.float32).reshape(rows, k))


def _build(machine: Machine, form: Format, folder: Path) -> Path:
    names = {"pack": form.pack, "gemm": form.gemm, "unpack_row": form.unpack_row, "quantize": form.activation.quantize}
    objects = []
    for name, kernel in names.items():
        with compiling_for(machine.target):
            code = compile_kernel(kernel)
        file = folder / f"{name}.o"
        file.write_bytes(code)
        _run(f"{machine.prefix}objcopy", "--redefine-sym", f"{loader.SYMBOL}={name}", str(file))
        objects.append(str(file))
    program = folder / "kernels"
    _run(f"{machine.prefix}gcc", "-O1", "-static", "-no-pie", "-o", str(program), str(DRIVER), *objects)
    return program


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"
