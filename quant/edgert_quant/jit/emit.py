"""Building blocks for functions that emit LLVM IR: pointers, loops, 16-bit floats. Works with any llvmlite
IRBuilder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgert_quant.jit.target import host

if TYPE_CHECKING:
    from llvmlite import ir


def integer(bits: int, value: int) -> ir.Constant:
    """An integer constant."""
    from llvmlite import ir

    return ir.Constant(ir.IntType(bits), value)


def real(value: float, kind: ir.Type | None = None) -> ir.Constant:
    """A floating-point constant, float unless `kind` says otherwise (a vector type makes a splat)."""
    from llvmlite import ir

    kind = kind or ir.FloatType()
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, value)] * kind.count)
    return ir.Constant(kind, value)


def vector(element: ir.Type, count: int) -> ir.VectorType:
    """The type <count x element>."""
    from llvmlite import ir

    return ir.VectorType(element, count)


def at(b: ir.IRBuilder, address: ir.Value, index: ir.Value | int, element: ir.Type) -> ir.Value:
    """A pointer to element `index` of an array that starts at an address (i64)."""
    from llvmlite import ir

    base = b.inttoptr(address, ir.PointerType(element))
    position = ir.Constant(ir.IntType(64), index) if isinstance(index, int) else index
    return b.gep(base, [position], source_etype=element)


def load(
    b: ir.IRBuilder, address: ir.Value, index: ir.Value | int, element: ir.Type, align: int | None = None
) -> ir.Value:
    """Element `index` of an array; `align` in bytes where the element's own alignment is not promised (vectors)."""
    return b.load(at(b, address, index, element), align=align, typ=element)


def store(b: ir.IRBuilder, address: ir.Value, index: ir.Value | int, value: ir.Value, align: int | None = None) -> None:
    """Store element `index` of an array."""
    b.store(value, at(b, address, index, value.type), align=align)


def call(
    b: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Value], *, variadic: int | None = None
) -> ir.Value:
    """Call an intrinsic or an external function by name; `variadic` counts the fixed parameters of a variadic
    function.
    """
    from llvmlite import ir

    module = b.module
    function = module.globals.get(name)
    if function is None:
        fixed = arguments if variadic is None else arguments[:variadic]
        kind = ir.FunctionType(result, [argument.type for argument in fixed], var_arg=variadic is not None)
        function = ir.Function(module, kind, name)
    return b.call(function, arguments)


def splat(b: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    """A vector of `count` copies of a scalar."""
    from llvmlite import ir

    kind = ir.VectorType(value.type, count)
    first = b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return b.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)


@contextmanager
def loop(
    b: ir.IRBuilder,
    stop: ir.Value,
    *carried: ir.Value,
    start: ir.Value | None = None,
    step: ir.Value | int = 1,
) -> Iterator[Loop]:
    """`for (i = start; i < stop; i += step)`, signed. `carried` are the initial values of variables that live in
    registers:

    with loop(b, n, zero) as body:
        body.carry(b.fadd(body.values[0], …))
    total = body.values[0]          # after the loop: the final value
    """
    from llvmlite import ir

    one = ir.Constant(ir.IntType(64), step) if isinstance(step, int) else step
    first = start if start is not None else ir.Constant(ir.IntType(64), 0)
    entry = b.block
    head = b.append_basic_block("loop")
    inside = b.append_basic_block("body")
    after = b.append_basic_block("done")
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(ir.IntType(64))
    index.add_incoming(first, entry)
    phis = [b.phi(value.type) for value in carried]
    for phi, value in zip(phis, carried, strict=True):
        phi.add_incoming(value, entry)
    b.cbranch(b.icmp_signed("<", index, stop), inside, after)
    b.position_at_end(inside)
    state = Loop(index, list(phis))
    yield state
    if len(state.next) != len(phis):
        raise ValueError(f"the loop carries {len(phis)} values, but {len(state.next)} were carried on")
    for phi, value in zip(phis, state.next, strict=True):
        phi.add_incoming(value, b.block)
    index.add_incoming(b.add(index, one), b.block)
    b.branch(head)
    b.position_at_end(after)


class Loop:
    """Inside: `index` and the current `values`; `carry` gives those of the next round. After: the final `values`."""

    def __init__(self, index: ir.Value, values: list[ir.Value]) -> None:
        self.index = index
        self.values = values
        self.next: list[ir.Value] = []

    def carry(self, *values: ir.Value) -> None:
        """The values for the next round, in the order they were given."""
        self.next = list(values)


def half_to_float(b: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """IEEE half (i16, or a vector of them) → float, exactly."""
    from llvmlite import ir

    half, single = _like(bits.type, ir.HalfType()), _like(bits.type, ir.FloatType())
    if _converts_half():
        return b.fpext(b.bitcast(bits, half), single)
    word = _like(bits.type, ir.IntType(32))
    wide = b.zext(bits, word)
    magnitude = b.shl(b.and_(wide, _same(word, 0x7FFF)), _same(word, 13))
    scaled = b.bitcast(b.fmul(b.bitcast(magnitude, single), _same(single, 2.0**112)), word)
    special = b.icmp_unsigned(">=", magnitude, _same(word, 0x7C00 << 13))
    value = b.select(special, b.or_(magnitude, _same(word, 0x7F800000)), scaled)
    sign = b.shl(b.and_(wide, _same(word, 0x8000)), _same(word, 16))
    return b.bitcast(b.or_(value, sign), single)


def float_to_half(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Float → the bits (i16) of the nearest IEEE half, ties to even."""
    from llvmlite import ir

    half, single = _like(value.type, ir.HalfType()), value.type
    short, word = _like(value.type, ir.IntType(16)), _like(value.type, ir.IntType(32))
    if _converts_half():
        return b.bitcast(b.fptrunc(value, half), short)
    bits = b.bitcast(value, word)
    sign = b.and_(b.lshr(bits, _same(word, 16)), _same(word, 0x8000))
    magnitude = b.and_(bits, _same(word, 0x7FFFFFFF))
    # Below the smallest normal half, adding 1/2 leaves a unit in the last place of 2^-24: that of the subnormals.
    small = b.sub(b.bitcast(b.fadd(b.bitcast(magnitude, single), _same(single, 0.5)), word), _same(word, 0x3F000000))
    odd = b.and_(b.lshr(magnitude, _same(word, 13)), _same(word, 1))
    normal = b.lshr(b.add(b.add(magnitude, _same(word, 0xC8000FFF)), odd), _same(word, 13))
    rounded = b.select(b.icmp_unsigned("<", magnitude, _same(word, 0x38800000)), small, normal)
    infinite = b.select(b.icmp_unsigned(">=", magnitude, _same(word, 0x477FF000)), _same(word, 0x7C00), rounded)
    result = b.select(b.icmp_unsigned(">", magnitude, _same(word, 0x7F800000)), _same(word, 0x7E00), infinite)
    return b.trunc(b.or_(result, sign), short)


def bfloat_to_float(b: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """bfloat16 (i16, or a vector of them) → float, exactly."""
    from llvmlite import ir

    word = _like(bits.type, ir.IntType(32))
    return b.bitcast(b.shl(b.zext(bits, word), _same(word, 16)), _like(bits.type, ir.FloatType()))


def float_to_bfloat(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Float → the bits (i16) of the nearest bfloat16, ties to even."""
    from llvmlite import ir

    word = _like(value.type, ir.IntType(32))
    bits = b.bitcast(value, word)
    odd = b.and_(b.lshr(bits, _same(word, 16)), _same(word, 1))
    nearest = b.add(b.add(bits, _same(word, 0x7FFF)), odd)
    quiet = b.or_(bits, _same(word, 0x400000))
    kept = b.select(b.fcmp_unordered("uno", value, value), quiet, nearest)
    return b.trunc(b.lshr(kept, _same(word, 16)), _like(value.type, ir.IntType(16)))


def _converts_half() -> bool:
    """Whether the CPU converts halves itself: otherwise LLVM would call a library that may be missing."""
    target = host()
    return not target.triple.startswith(("x86_64", "i386", "i686")) or target.has("f16c")


def _like(kind: Any, element: ir.Type) -> ir.Type:
    from llvmlite import ir

    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _same(kind: Any, value: float) -> ir.Constant:
    from llvmlite import ir

    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, value)] * kind.count)
    return ir.Constant(kind, value)
