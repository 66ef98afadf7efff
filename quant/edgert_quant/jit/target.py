"""The CPU that kernels are compiled for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Target:
    """A CPU as LLVM names it: triple, model, and its features as sorted "+name"/"-name" words."""

    triple: str
    cpu: str
    features: tuple[str, ...]

    def has(self, *names: str) -> bool:
        """Whether the CPU has all these features, by LLVM's names ("avx512vnni", "dotprod")."""
        return all(f"+{name}" in self.features for name in names)

    @property
    def vector_bits(self) -> int:
        """The widest vector register worth using."""
        if self.has("avx512f"):
            return 512
        return 256 if self.has("avx2") else 128


_other: ContextVar[Target | None] = ContextVar("other target", default=None)


def host() -> Target:
    """The CPU that kernels are compiled for: that of this process, but for `compiling_for`."""
    return _other.get() or _detected()


@contextmanager
def compiling_for(target: Target) -> Iterator[None]:
    """Within it, kernels are emitted and assembled (`compiler.compile_kernel`) for another CPU, maybe one of another
    kind, which this process cannot run: do not load them.
    """
    token = _other.set(target)
    try:
        yield
    finally:
        _other.reset(token)


@cache
def _detected() -> Target:
    """NUMBA_CPU_NAME and NUMBA_CPU_FEATURES override what LLVM finds, as they do in Numba: so one machine runs what is
    compiled for a lesser one.
    """
    from llvmlite import binding

    cpu = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
    text = os.environ.get("NUMBA_CPU_FEATURES")
    if text is None:
        text = binding.get_host_cpu_features().flatten() if cpu == binding.get_host_cpu_name() else ""
    features = tuple(sorted(word.strip() for word in text.split(",") if word.strip()))
    return Target(binding.get_process_triple(), cpu, features)
