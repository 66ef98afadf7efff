"""Time: sleeping until another thread changes a word (a futex on Linux, naps elsewhere), and the clock."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING, Any

from edgert_quant.jit import emit, primitive

if TYPE_CHECKING:
    from llvmlite import ir

NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
"""Of the futex system call, by architecture (Linux's asm/unistd.h)."""
FUTEX = NUMBERS.get(platform.machine()) if sys.platform == "linux" else None
WAIT, WAKE, PRIVATE = 0, 1, 128
EVERYONE = 0x7FFFFFFF
SHORTEST_NAP, LONGEST_NAP = 50, 4000
"""Microseconds of the first nap and of the last, where sleepers cannot be woken. Each is twice as long as the one
before: a short wait ends soon, and a long one costs next to nothing.
"""

YIELDS = 64 if FUTEX is None else 0
"""Times a waiting thread yields its core before it sleeps. Where sleepers can be woken they sleep at once: on a busy
machine a thread that yields is put behind every other, one that wakes up is put before them.
"""


def _system_call(b: ir.IRBuilder, *arguments: Any) -> None:
    from llvmlite import ir

    emit.call(b, "syscall", ir.IntType(64), list(arguments), variadic=1)


@primitive("void(i64, i64, i64, i64)")
def sleep_while(b: ir.IRBuilder, address: ir.Value, index: ir.Value, value: ir.Value, nap: ir.Value) -> None:
    """Sleep while the low 32 bits of a 64-bit word are those of `value`; may return early. Where nobody can wake it, it
    is a nap of so many microseconds.
    """
    from llvmlite import ir

    if FUTEX is None:
        amount = b.trunc(nap, ir.IntType(32))
        if sys.platform == "win32":  # whole milliseconds
            amount = b.udiv(b.add(amount, emit.integer(32, 999)), emit.integer(32, 1000))
        emit.call(b, "Sleep" if sys.platform == "win32" else "usleep", ir.IntType(32), [amount])
        return
    place = b.add(address, b.shl(index, emit.integer(64, 3)))
    low = b.zext(b.trunc(value, ir.IntType(32)), ir.IntType(64))
    zero = emit.integer(64, 0)
    _system_call(b, emit.integer(64, FUTEX), place, emit.integer(64, WAIT | PRIVATE), low, zero, zero, zero)


@primitive("void(i64, i64)")
def wake_sleepers(b: ir.IRBuilder, address: ir.Value, index: ir.Value) -> None:
    """Wake every thread that sleeps on a word."""
    if FUTEX is None:
        return
    place = b.add(address, b.shl(index, emit.integer(64, 3)))
    zero = emit.integer(64, 0)
    operation = emit.integer(64, WAKE | PRIVATE)
    _system_call(b, emit.integer(64, FUTEX), place, operation, emit.integer(64, EVERYONE), zero, zero, zero)


MONOTONIC = 6 if sys.platform == "darwin" else 1
"""CLOCK_MONOTONIC of the systems' time.h."""


@primitive("i64()")
def nanoseconds(b: ir.IRBuilder) -> ir.Value:
    """A clock that never goes back, in nanoseconds; 0 on Windows, which has no such function."""
    from llvmlite import ir

    word = ir.IntType(64)
    if sys.platform == "win32":
        return emit.integer(64, 0)
    with b.goto_entry_block():
        pair = b.alloca(ir.ArrayType(word, 2))  # seconds, nanoseconds: struct timespec of 64-bit systems
    emit.call(b, "clock_gettime", ir.IntType(32), [emit.integer(32, MONOTONIC), pair])
    address = b.ptrtoint(pair, word)
    seconds, rest = (emit.load(b, address, i, word) for i in range(2))
    return b.add(b.mul(seconds, emit.integer(64, 1_000_000_000)), rest)
