"""LLVM IR → object code for the host CPU, by llvmlite alone."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgert_quant.jit import loader
from edgert_quant.jit.fingerprint import fingerprint
from edgert_quant.jit.target import host

if TYPE_CHECKING:
    from edgert_quant.jit.declare import Kernel

ABI = 1
"""Of the native functions and of the object files; a new number makes every cached file stale."""

FORBIDDEN = re.compile(rf"^(_?Py|NRT_|_?numba_|{loader.RAISES})")
"""Symbols of the Python and Numba runtimes: a kernel that needs one allocates, raises or touches objects."""


def cache_key(kernel: Kernel) -> str:
    """Everything that the object code depends on, as text."""
    target = host()
    return json.dumps(
        {
            "abi": ABI,
            "kernel": kernel.name,
            "kind": kernel.kind,
            "parameters": kernel.parameters,
            "fastmath": kernel.fastmath,
            "source": fingerprint(kernel.function, kernel.extra_key),
            "compiler": _compiler_source(),
            "versions": _versions(),
            "triple": target.triple,
            "cpu": target.cpu,
            "features": target.features,
        },
        separators=(",", ":"),
    )


@cache
def _compiler_source() -> str:
    return fingerprint(compile_kernel)  # type: ignore[arg-type]  # it is a FunctionType


@cache
def _versions() -> tuple[str, ...]:
    import llvmlite

    return (platform.python_version(), llvmlite.__version__, _numba_version())


def _numba_version() -> str:
    """What tells one Numba from another. To import it, or `importlib.metadata`, takes longer than to load all kernels
    of a model; its file of the version does as well.
    """
    spec = find_spec("numba")
    if spec is None or spec.origin is None:
        return "none"
    try:
        return hashlib.sha256(Path(spec.origin).with_name("_version.py").read_bytes()).hexdigest()
    except OSError:
        from importlib import metadata

        return metadata.version("numba")


def compile_kernel(kernel: Kernel) -> bytes:
    """The kernel's object code. `TypeError` if it would allocate or raise."""
    loader.initialize()
    if kernel.kind == "numba":
        from edgert_quant.jit import frontend

        text = frontend.numba_ir(kernel)
    else:
        text = _emitted_ir(kernel)
    return assemble(text, kernel.name)


def assemble(text: str, name: str) -> bytes:
    """Optimize a module for the host CPU and assemble it; all but `loader.SYMBOL` becomes internal."""
    from llvmlite import binding

    target = host()
    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=",".join(target.features), opt=3, reloc="pic", codemodel="default", jit=True
    )
    module = binding.parse_assembly(text)
    module.name = name
    for function in module.functions:
        if not function.is_declaration and function.name != loader.SYMBOL:
            function.linkage = "internal"
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    module.verify()
    tuning = binding.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = True
    tuning.slp_vectorization = True
    passes = binding.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    for item in (*module.functions, *module.global_variables):
        if FORBIDDEN.match(item.name):
            raise TypeError(f"kernel {name} needs {item.name}: kernels must neither allocate nor raise")
    return bytes(machine.emit_object(module))


def _emitted_ir(kernel: Kernel) -> str:
    from llvmlite import ir

    module = ir.Module(name=kernel.name, context=ir.Context())
    module.triple = host().triple
    types: list[Any] = [ir.DoubleType() if kind == "f64" else ir.IntType(64) for _, kind in kernel.parameters]
    function = ir.Function(module, ir.FunctionType(ir.IntType(64), types), loader.SYMBOL)
    for argument, (name, _) in zip(function.args, kernel.parameters, strict=True):
        argument.name = name
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    result = kernel.function(builder, *function.args)
    if not builder.block.is_terminated:
        builder.ret(ir.Constant(ir.IntType(64), 0) if result is None else result)
    return str(module)
