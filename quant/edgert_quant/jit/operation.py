"""Operations that kernels are made of and that Python has no word for: a few lines of LLVM IR each, with a
signature.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llvmlite import ir

Emit = Callable[..., "ir.Value | None"]

SCALARS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64")


class Primitive:
    """An operation for the bodies of kernels. `emit(builder, *arguments)` writes its IR, and serves IR kernels
    directly.

    `parameters` and `result` are names from `SCALARS` (`result` may be None).
    """

    def __init__(self, function: FunctionType, parameters: tuple[str, ...], result: str | None) -> None:
        for name in (*parameters, *([result] if result else [])):
            if name not in SCALARS:
                raise ValueError(f"{function.__qualname__}: {name!r} is none of {', '.join(SCALARS)}")
        self.function = function
        self.parameters = parameters
        self.result = result
        self.__doc__ = function.__doc__

    @property
    def emit(self) -> Emit:
        """The function that writes the IR: (builder, *arguments) → value."""
        return self.function

    def __call__(self, *arguments: Any) -> Any:
        """Only kernels can call a primitive; from Python it is a `TypeError`."""
        raise TypeError(f"{self.function.__qualname__} works only inside a kernel")

    def __repr__(self) -> str:
        return f"<primitive {self.function.__qualname__}({', '.join(self.parameters)}) -> {self.result}>"


def primitive(signature: str) -> Callable[[Emit], Primitive]:
    """Declare a primitive: `@primitive("f32(i64, i64)")` (or `"void(…)"`) above its emitter."""
    result, _, rest = signature.partition("(")
    parameters = tuple(word.strip() for word in rest.rstrip(")").split(",") if word.strip())

    def decorate(function: Emit) -> Primitive:
        assert isinstance(function, FunctionType)
        return Primitive(function, parameters, None if result == "void" else result)

    return decorate
