"""Sleeping until another thread changes a word: a futex on Linux, short naps elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgert_quant.jit import emit, host, primitive

if TYPE_CHECKING:
    from llvmlite import ir

FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
"""Number of the system call, by architecture (Linux's asm/unistd.h)."""
WAIT, WAKE, PRIVATE = 0, 1, 128
EVERYONE = 0x7FFFFFFF
NAP_MICROSECONDS = 500


def _futex() -> int | None:
    return FUTEX.get(host().triple.partition("-")[0]) if sys.platform == "linux" else None


def _system_call(b: ir.IRBuilder, *arguments: Any) -> None:
    from llvmlite import ir

    emit.call(b, "syscall", ir.IntType(64), list(arguments), variadic=1)


@primitive("void(i64, i64, i64)")
def sleep_while(b: ir.IRBuilder, address: ir.Value, index: ir.Value, value: ir.Value) -> None:
    """Sleep while the low 32 bits of a 64-bit word are those of `value`; may return early."""
    from llvmlite import ir

    number = _futex()
    if number is None:
        name, unit = ("Sleep", 1000) if sys.platform == "win32" else ("usleep", 1)
        emit.call(b, name, ir.IntType(32), [emit.integer(32, max(1, NAP_MICROSECONDS // unit))])
        return
    place = b.add(address, b.shl(index, emit.integer(64, 3)))
    low = b.zext(b.trunc(value, ir.IntType(32)), ir.IntType(64))
    zero = emit.integer(64, 0)
    _system_call(b, emit.integer(64, number), place, emit.integer(64, WAIT | PRIVATE), low, zero, zero, zero)


@primitive("void(i64, i64)")
def wake_sleepers(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> None:
    """Wake every thread that sleeps on a word."""
    number = _futex()
    if number is None:
        return
    place = b.add(address, b.shl(index, emit.integer(64, 3)))
    zero = emit.integer(64, 0)
    operation = emit.integer(64, WAKE | PRIVATE)
    _system_call(b, emit.integer(64, number), place, operation, emit.integer(64, EVERYONE), zero, zero, zero)
