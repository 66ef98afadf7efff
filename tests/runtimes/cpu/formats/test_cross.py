"""Kernels for other CPUs, run: aarch64 under emulation, and x86-64 without any extension as it is."""

import platform
from pathlib import Path

import numpy as np
import pytest
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.jit import Target
from edgert_runtimes.cpu.formats import format_for, packed_types
from edgert_runtimes.cpu.formats.isa import ISAS

from tests.support.cross import Machine, run_kernels
from tests.support.packed import REPRESENTATIVE, Packed, decode_activations, random_rows

ARM = "aarch64-unknown-linux-gnu"
EMULATOR = ("qemu-aarch64", "-cpu", "max")


def arm(*features: str) -> Machine:
    return Machine(Target(ARM, "generic", features), "aarch64-linux-gnu-", EMULATOR)


MACHINES = {
    "aarch64": (arm(), "portable"),
    "aarch64-dotprod": (arm("+dotprod", "+neon"), "neon-dotprod"),
    "aarch64-i8mm": (arm("+dotprod", "+i8mm", "+neon"), "neon-i8mm"),
    "x86-64": (Machine(Target("x86_64-unknown-linux-gnu", "x86-64", ())), "portable"),
}


CASES = [
    pytest.param(block_type, name, id=f"{block_type.name.lower()}-{name}")
    for name in MACHINES
    for block_type in (packed_types() if name == "aarch64-i8mm" else REPRESENTATIVE)
]
"""Every type on one machine; on the others what they do differently."""


@pytest.mark.slow
@pytest.mark.parametrize(("block_type", "name"), CASES)
def test_results_are_those_of_this_cpu(block_type: BlockType, name: str, tmp_path: Path) -> None:
    machine, isa_name = MACHINES[name]
    if not machine.target.triple.startswith(platform.machine()) and not machine.emulator:
        pytest.skip(f"this CPU does not run {machine.target.triple}")
    if missing := machine.lacking():
        pytest.skip(f"{machine.target.triple} cannot be tried here: {missing} missing")
    isa = next(isa for isa in ISAS if isa.name == isa_name)
    there, here = format_for(block_type, isa), format_for(block_type)
    assert there is not None
    assert here is not None
    k = 77 if block_type.block_size == 1 else 3 * block_type.block_size
    raw = random_rows(block_type, 19, k)
    x = np.random.default_rng(0).standard_normal((7, k), dtype=np.float32)
    found = run_kernels(machine, there, raw, x, tmp_path)

    weights = dequantize(raw, block_type)
    np.testing.assert_array_equal(found.unpacked.view(np.int32), weights.view(np.int32))
    packed = Packed(here, raw, k)
    stored = packed.activations(x)
    inputs = decode_activations(there.activation, found.activations, k)
    np.testing.assert_array_equal(inputs, decode_activations(here.activation, stored, k))
    np.testing.assert_array_equal(found.together, found.alone)
    sizes = np.abs(inputs) @ np.abs(weights.T.astype(np.float64))
    assert np.all(np.abs(found.together - packed.multiply(stored)[:, :19]) <= 1e-6 * sizes)
