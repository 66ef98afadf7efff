"""Assembly of kernels for CPUs that this machine may not be."""

import re

import pytest
from edgert_quant.jit import Kernel, Target, compiling_for
from llvmlite import binding, ir

PLAIN = Target("x86_64-unknown-linux-gnu", "x86-64", ())
VNNI = Target(PLAIN.triple, "znver5", ("+avx512bw", "+avx512f", "+avx512vl", "+avx512vnni", "+f16c", "+fma"))
AVX2 = Target(PLAIN.triple, "haswell", ("+avx", "+avx2", "+f16c", "+fma"))
AVX_VNNI = Target(PLAIN.triple, "alderlake", ("+avx", "+avx2", "+avxvnni", "+f16c", "+fma"))
AVX512 = Target(PLAIN.triple, "skylake-avx512", ("+avx512bw", "+avx512f", "+avx512vl", "+f16c", "+fma"))
ARM = Target("aarch64-unknown-linux-gnu", "generic", ())
DOT = Target(ARM.triple, "generic", ("+dotprod", "+neon"))
MIXED = Target(ARM.triple, "generic", ("+dotprod", "+i8mm", "+neon"))


def skip_unless_known(target: Target) -> None:
    """Skip the test if llvmlite was built without this kind of CPU."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        binding.Target.from_triple(target.triple)
    except RuntimeError:
        pytest.skip(f"this llvmlite cannot compile for {target.triple}")


def assembly(kernel: Kernel, target: Target) -> str:
    """The text of a kernel that emits its IR."""
    skip_unless_known(target)
    module = ir.Module(name=kernel.name, context=ir.Context())
    module.triple = target.triple
    word = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(word, [word] * len(kernel.parameters)), "kernel")
    builder = ir.IRBuilder(function.append_basic_block())
    with compiling_for(target):
        kernel.function(builder, *function.args)
    if not builder.block.is_terminated:
        builder.ret(ir.Constant(word, 0))
    parsed = binding.parse_assembly(str(module))
    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=",".join(target.features), opt=1, reloc="pic"
    )
    return str(machine.emit_assembly(parsed))


def calls(text: str) -> set[str]:
    """The functions that it calls."""
    return set(re.findall(r"^\s+(?:callq?|bl)\s+([A-Za-z_][\w.]*)", text, re.MULTILINE))
