"""Python function → LLVM IR, by Numba. Imported only when something must be compiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

import numba
from llvmlite import ir
from numba.extending import intrinsic

from edgert_quant.jit.declare import Device
from edgert_quant.jit.loader import RAISES, SYMBOL
from edgert_quant.jit.operation import Primitive

if TYPE_CHECKING:
    from edgert_quant.jit.declare import Kernel

TYPES = {
    "i8": numba.int8,
    "i16": numba.int16,
    "i32": numba.int32,
    "i64": numba.int64,
    "u8": numba.uint8,
    "u16": numba.uint16,
    "u32": numba.uint32,
    "u64": numba.uint64,
    "f32": numba.float32,
    "f64": numba.float64,
}
OPTIONS = {"error_model": "numpy", "nogil": True, "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_translated: dict[int, tuple[object, Any]] = {}  # id → (the object, kept alive so that its id stays its own; its form)


def numba_ir(kernel: Kernel) -> str:
    """A module that defines `loader.SYMBOL` as a plain C function around what Numba compiled."""
    flags = set(kernel.fastmath) or False
    dispatcher = numba.njit(**OPTIONS, fastmath=flags)(_with_numba_names(kernel.function))
    dispatcher.compile(tuple(TYPES[kind] for _, kind in kernel.parameters))
    (result,) = dispatcher.overloads.values()
    returns = result.signature.return_type
    if returns != numba.types.none and not isinstance(returns, (numba.types.Integer, numba.types.Boolean)):
        raise TypeError(f"kernel {kernel.name} returns {returns}, not an integer or None")
    return str(result.library.get_llvm_str()) + _wrapper(result.fndesc.llvm_func_name, kernel, returns)


def _wrapper(inner: str, kernel: Kernel, returns: Any) -> str:
    """Numba passes the result through a pointer and returns a status, 0 unless something was raised. Where LLVM cannot
    prove that it is 0, the reference to a symbol that does not exist stays, and `compiler.assemble` refuses the kernel.
    """
    types = ["double" if kind == "f64" else "i64" for _, kind in kernel.parameters]
    declared = ", ".join(f"{kind} %a{i}" for i, kind in enumerate(types))
    passed = "".join(f", {kind} %a{i}" for i, kind in enumerate(types))
    if returns == numba.types.none:
        value, convert = "ptr", "%result = add i64 0, 0"
    else:
        bits = 8 if isinstance(returns, numba.types.Boolean) else returns.bitwidth
        value = f"i{bits}"
        extend = "sext" if getattr(returns, "signed", False) else "zext"
        convert = f"%value = load {value}, ptr %slot\n  "
        convert += "%result = add i64 %value, 0" if bits == 64 else f"%result = {extend} {value} %value to i64"
    return f"""
@{RAISES} = external global i32
define i64 @{SYMBOL}({declared}) {{
  %slot = alloca {value}
  %error = alloca ptr
  %status = call i32 @"{inner}"(ptr %slot, ptr %error{passed})
  %raised = icmp ne i32 %status, 0
  br i1 %raised, label %failed, label %done
failed:
  store i32 %status, ptr @{RAISES}
  br label %done
done:
  {convert}
  ret i64 %result
}}
"""


def _with_numba_names(function: FunctionType) -> FunctionType:
    """The function with its primitives and device functions replaced by what Numba can compile."""
    names = _referred(function)
    replaced = {name: _translate(value) for name, value in function.__globals__.items() if name in names}
    scope = {**function.__globals__, **replaced}
    cells = tuple(CellType(_translate(cell.cell_contents)) for cell in function.__closure__ or ())
    made = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells)
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    return made


def _referred(function: FunctionType) -> set[str]:
    found: set[str] = set()
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        found.update(code.co_names)
        waiting.extend(constant for constant in code.co_consts if inspect.iscode(constant))
    return found


def _translate(value: Any) -> Any:
    if not isinstance(value, (Primitive, Device)):
        return value
    if id(value) not in _translated:
        if isinstance(value, Primitive):
            made = _intrinsic(value)
        else:
            made = numba.njit(**OPTIONS, forceinline=value.inline)(_with_numba_names(value.function))
        _translated[id(value)] = (value, made)
    return _translated[id(value)][1]


def _intrinsic(primitive: Primitive) -> Any:
    result = TYPES[primitive.result] if primitive.result else numba.types.none
    signature = result(*(TYPES[kind] for kind in primitive.parameters))

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: tuple[ir.Value, ...]) -> Any:
        value = primitive.emit(builder, *arguments)
        return context.get_dummy_value() if primitive.result is None else value

    def definition(typing_context: Any, *arguments: Any) -> tuple[Any, Callable[..., Any]]:
        return signature, generate

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["typing_context", *(f"a{i}" for i in range(len(primitive.parameters)))]
    signature_of_definition = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    definition.__signature__ = signature_of_definition  # type: ignore[attr-defined]
    definition.__name__ = primitive.function.__name__
    return intrinsic(definition)
