"""Kernels: what a module declares, and how a declaration becomes an address."""

from __future__ import annotations

import ctypes
import inspect
import re
import threading
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, overload

from edgert_quant.jit import cache, loader
from edgert_quant.jit.target import host

Progress = Callable[[int, int, str], None]
"""progress(done, total, name): `name` is what was just compiled."""


class Device:
    """A Python function that kernels call; it is compiled into each of them, with the types it is called with."""

    def __init__(self, function: FunctionType, *, inline: bool = True) -> None:
        self.function = function
        self.inline = inline
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        """Only kernels can call it; from Python it is a `TypeError`."""
        raise TypeError(f"{self.function.__qualname__} works only inside a kernel")


class Kernel:
    """A function that becomes native code when it is first called, prepared or asked for its address.

    `parameters` are its names with "i64" or "f64". Compiling needs Numba (not for `ir_kernel`); loading from the cache
    does not.
    """

    def __init__(
        self,
        function: FunctionType,
        parameters: tuple[tuple[str, str], ...],
        *,
        kind: str,
        name: str | None = None,
        fastmath: tuple[str, ...] = (),
        key: tuple[object, ...] = (),
    ) -> None:
        label = name or f"{(function.__module__ or 'kernel').rpartition('.')[2]}.{function.__qualname__}"
        self.name = re.sub(r"[^A-Za-z0-9_.]+", "_", label.replace("<locals>.", ""))
        self.function = function
        self.parameters = parameters
        self.kind = kind
        self.fastmath = fastmath
        self.extra_key = key
        self._lock = threading.RLock()
        self._native: Callable[..., int] | None = None
        self._address = 0
        self._text: str | None = None
        self.__doc__ = function.__doc__

    @property
    def address(self) -> int:
        """The native function's address, for `call…` in other kernels; valid as long as the process."""
        if not self._address:
            self.load()
        return self._address

    def __call__(self, *arguments: float) -> int:
        """Run it with the GIL released. Addresses are not checked: what they point to must live and be large enough."""
        if self._native is None:
            self.load()
        assert self._native is not None
        return self._native(*arguments)

    def load(self) -> bool:
        """Make the native code, from the cache where possible; whether it had to be compiled."""
        with self._lock:
            if self.load_cached():
                return False
            with cache.compiling(self.name):
                if self.load_cached():
                    return False
                from edgert_quant.jit import compiler

                code = compiler.compile_kernel(self)
                cache.store(self.name, self.cache_key(), code)
            self._use(code)
            return True

    def load_cached(self) -> bool:
        """Load it if it is in the cache, or loaded already; whether it was."""
        with self._lock:
            if self._native is None:
                code = cache.load(self.name, self.cache_key())
                if code is not None:
                    self._use(code)
            return self._native is not None

    def _use(self, code: bytes) -> None:
        self._address = loader.load_object(self.name, code)
        types = [ctypes.c_double if kind == "f64" else ctypes.c_int64 for _, kind in self.parameters]
        self._native = ctypes.CFUNCTYPE(ctypes.c_int64, *types)(self._address)

    def cache_key(self) -> str:
        """The text that the cached object must match to the byte."""
        if self._text is None:
            from edgert_quant.jit.compiler import cache_key

            self._text = cache_key(self)
        return self._text

    def __repr__(self) -> str:
        return f"<kernel {self.name}({', '.join(name for name, _ in self.parameters)}) on {host().cpu}>"


@overload
def kernel(function: Callable[..., Any], /) -> Kernel: ...
@overload
def kernel(*, name: str | None = None, fastmath: Iterable[str] = ()) -> Callable[[Callable[..., Any]], Kernel]: ...
def kernel(
    function: Callable[..., Any] | None = None, /, *, name: str | None = None, fastmath: Iterable[str] = ()
) -> Kernel | Callable[[Callable[..., Any]], Kernel]:
    """A Python function as a kernel, compiled by Numba (`error_model="numpy"`, no bounds checks, no exceptions).

    Parameters are annotated `int` or `float`; the result is `int` or `None`. The body may name numbers, NumPy scalar
    types, constant arrays, primitives, and functions marked `device`: each by a plain name of its module or enclosing
    function, never as an attribute of another module. `fastmath` lists LLVM's flags ("contract", "reassoc", …); results
    then still depend on nothing but the arguments.
    """

    def decorate(function: Callable[..., Any]) -> Kernel:
        assert isinstance(function, FunctionType)
        return Kernel(function, _annotated(function), kind="numba", name=name, fastmath=tuple(sorted(fastmath)))

    return decorate if function is None else decorate(function)


def ir_kernel(
    *, name: str | None = None, floats: Iterable[str] = (), key: tuple[object, ...] = ()
) -> Callable[[Callable[..., Any]], Kernel]:
    """A function that emits LLVM IR as a kernel: `def gemm(b, panels, xs, ys, tokens, k)` gets llvmlite's IRBuilder,
    placed in the entry block, and the native parameters as values (i64; double for those named in `floats`). It leaves
    the builder where control ends; what it returns (an i64 value, or None for 0) is the native function's result,
    unless the block is terminated already. `key` adds values to what identifies the kernel in the cache, beyond what
    its code names.
    """
    doubles = frozenset(floats)

    def decorate(function: Callable[..., Any]) -> Kernel:
        assert isinstance(function, FunctionType)
        names = list(inspect.signature(function).parameters)[1:]
        if unknown := doubles - set(names):
            raise TypeError(f"{function.__qualname__} has no parameter {', '.join(sorted(unknown))}")
        parameters = tuple((word, "f64" if word in doubles else "i64") for word in names)
        return Kernel(function, parameters, kind="ir", name=name, key=key)

    return decorate


@overload
def device(function: Callable[..., Any], /) -> Device: ...
@overload
def device(*, inline: bool = True) -> Callable[[Callable[..., Any]], Device]: ...
def device(
    function: Callable[..., Any] | None = None, /, *, inline: bool = True
) -> Device | Callable[[Callable[..., Any]], Device]:
    """A Python function for the bodies of kernels; `inline=False` leaves inlining to LLVM."""

    def decorate(function: Callable[..., Any]) -> Device:
        assert isinstance(function, FunctionType)
        return Device(function, inline=inline)

    return decorate if function is None else decorate(function)


def prepare(kernels: Iterable[Kernel], progress: Progress | None = None) -> int:
    """Load all these kernels, compiling what the cache lacks; returns how many were compiled.

    `progress(done, total, name)` is called before and after each compilation, where `total` counts what must be
    compiled, so a process that finds everything in the cache never hears from it.
    """
    missing = [item for item in dict.fromkeys(kernels) if not item.load_cached()]
    for done, item in enumerate(missing):
        if progress is not None:
            progress(done, len(missing), item.name)
        item.load()
    if progress is not None and missing:
        progress(len(missing), len(missing), missing[-1].name)
    return len(missing)


def _annotated(function: FunctionType) -> tuple[tuple[str, str], ...]:
    kinds = {"int": "i64", "float": "f64"}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        word = getattr(parameter.annotation, "__name__", parameter.annotation)
        if word not in kinds:
            raise TypeError(f"{function.__qualname__}: {name} must be annotated int or float")
        parameters.append((name, kinds[word]))
    result = inspect.signature(function).return_annotation
    if getattr(result, "__name__", result) not in ("int", "None", None):
        raise TypeError(f"{function.__qualname__} must return int or None")
    return tuple(parameters)
