"""Programs for sixteen groups of weights at once, as LLVM IR.

A search for good scales is arithmetic on the weights of one group, in order. Done for sixteen groups side by side, one
to a vector lane, every step is a vector operation, and each lane adds up its numbers in the same order on every CPU:
results depend neither on the width of the machine's registers nor on threads. LLVM splits the vectors where registers
are narrower.

`Lanes` are values under construction: `a * b + 1` emits instructions. Nothing here uses fast-math flags, fused
multiply-add, or instructions that some CPU lacks; rounding to integers and to half precision is done with additions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

COUNT = 16
I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32 = ir.FloatType()
POINTER = ir.PointerType()

Value = Any
"""An `ir.Value`: llvmlite comes without types."""

ROUND = 12582912.0
"""1.5 · 2^23: adding and subtracting it rounds a float32 of magnitude < 2^22 to the nearest integer, ties to even."""
ROUND_BITS = 0x4B400000
"""Its bits: those of `ROUND + n`, minus these, are n."""

FEW = 3
"""So many repetitions are emitted one after the other, with their numbers as constants."""


class Lanes:
    """Sixteen float32 or int32 values, or truth values; operators act lane by lane, a number stands for all lanes."""

    __slots__ = ("b", "value")

    def __init__(self, b: ir.IRBuilder, value: Value) -> None:
        self.b = b
        self.value = value

    @property
    def kind(self) -> Any:
        """The type of one lane."""
        return self.value.type.element

    def lift(self, other: Lanes | float) -> Value:
        """The other operand as a vector of this type."""
        if isinstance(other, Lanes):
            return other.value
        number = float(other) if self.kind == F32 else int(other)
        return ir.Constant(self.value.type, [number] * COUNT)

    def _binary(self, other: Lanes | float, for_floats: str, for_integers: str, *, swap: bool = False) -> Lanes:
        left, right = self.value, self.lift(other)
        if swap:
            left, right = right, left
        return Lanes(self.b, getattr(self.b, for_floats if self.kind == F32 else for_integers)(left, right))

    def __add__(self, other: Lanes | float) -> Lanes:
        return self._binary(other, "fadd", "add")

    def __sub__(self, other: Lanes | float) -> Lanes:
        return self._binary(other, "fsub", "sub")

    def __rsub__(self, other: float) -> Lanes:
        return self._binary(other, "fsub", "sub", swap=True)

    def __mul__(self, other: Lanes | float) -> Lanes:
        return self._binary(other, "fmul", "mul")

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Lanes | float) -> Lanes:
        return self._binary(other, "fdiv", "sdiv")

    def __rtruediv__(self, other: float) -> Lanes:
        return self._binary(other, "fdiv", "sdiv", swap=True)

    def __neg__(self) -> Lanes:
        return self * -1

    def __and__(self, other: Lanes | int) -> Lanes:
        return Lanes(self.b, self.b.and_(self.value, self.lift(other)))

    def __or__(self, other: Lanes | int) -> Lanes:
        return Lanes(self.b, self.b.or_(self.value, self.lift(other)))

    def __xor__(self, other: Lanes | int) -> Lanes:
        return Lanes(self.b, self.b.xor(self.value, self.lift(other)))

    def __lshift__(self, bits: int) -> Lanes:
        return Lanes(self.b, self.b.shl(self.value, self.lift(bits)))

    def __rshift__(self, bits: int) -> Lanes:
        """Unsigned."""
        return Lanes(self.b, self.b.lshr(self.value, self.lift(bits)))

    def _compare(self, operator: str, other: Lanes | float) -> Lanes:
        compare = self.b.fcmp_ordered if self.kind == F32 else self.b.icmp_signed
        return Lanes(self.b, compare(operator, self.value, self.lift(other)))

    def __lt__(self, other: Lanes | float) -> Lanes:
        return self._compare("<", other)

    def __gt__(self, other: Lanes | float) -> Lanes:
        return self._compare(">", other)

    def equals(self, other: Lanes | float) -> Lanes:
        """Lanes in which both are the same number."""
        return self._compare("==", other)

    def where(self, yes: Lanes, no: Lanes | float) -> Lanes:
        """`yes` in the lanes in which this truth value holds, `no` in the others."""
        return Lanes(self.b, self.b.select(self.value, yes.value, yes.lift(no)))

    def minimum(self, other: Lanes | float) -> Lanes:
        """The smaller one."""
        return (self < other).where(self, other)

    def maximum(self, other: Lanes | float) -> Lanes:
        """The greater one."""
        return (self > other).where(self, other)

    def clamp(self, low: Lanes | float, high: Lanes | float) -> Lanes:
        """Limited to low..high."""
        return self.maximum(low).minimum(high)

    def bits(self) -> Lanes:
        """The bits of float32 values as int32."""
        return Lanes(self.b, self.b.bitcast(self.value, vector(I32)))

    def floats(self) -> Lanes:
        """int32 bits as float32 values."""
        return Lanes(self.b, self.b.bitcast(self.value, vector(F32)))

    def magnitude(self) -> Lanes:
        """The value without its sign."""
        return (self.bits() & 0x7FFFFFFF).floats()

    def rounded(self) -> Lanes:
        """To the nearest integer, ties to even; the magnitude must be below 2^22."""
        return (self + ROUND) - ROUND

    def integer(self) -> Lanes:
        """The nearest integer as int32; the magnitude must be below 2^22."""
        return (self + ROUND).bits() - ROUND_BITS

    def number(self) -> Lanes:
        """Whole numbers in 0 .. 2^22 - 1 (int32) as float32."""
        return (self | ROUND_BITS).floats() - ROUND

    def inverse(self) -> Lanes:
        """1 / value, 0 where the value is 0."""
        return self.equals(0).where(self * 0, 1 / self)

    def half(self) -> Lanes:
        """Rounded to half precision (to nearest, ties to even), still as float32; values too large for it are kept."""
        size = self.magnitude()
        odd = (size.bits() >> 13) & 1
        normal = ((size.bits() + odd + 0xFFF) & ~0x1FFF).floats()
        rounded = (size < 2.0**-14).where((size + 0.5) - 0.5, normal)
        return (self.bits() & -0x80000000 | rounded.bits()).floats()

    def half_bits(self) -> Lanes:
        """The bit pattern of half precision for values that are results of `half` below 65536, as int32."""
        size = self.magnitude()
        normal = (size.bits() >> 13) - (112 << 10)
        subnormal = (size + 0.5).bits() - 0x3F000000
        return (size < 2.0**-14).where(subnormal, normal) | (self.bits() >> 16) & 0x8000

    def across(self, width: int, operator: str) -> Lanes:
        """Sum ("+") or maximum ("max") over each run of `width` neighbouring lanes, in all of its lanes."""
        result = self
        step = 1
        while step < width:
            order = ir.Constant(ir.VectorType(I32, COUNT), [lane ^ step for lane in range(COUNT)])
            other = Lanes(self.b, self.b.shuffle_vector(result.value, result.value, order))
            result = result + other if operator == "+" else result.maximum(other)
            step *= 2
        return result

    def lane(self, index: int) -> Value:
        """One lane, as a scalar."""
        return self.b.extract_element(self.value, ir.Constant(I32, index))

    def bytes(self) -> Value:
        """The low eight bits of every int32 lane."""
        return self.b.trunc(self.value, vector(I8))


class Variable:
    """Lanes that loops assign to."""

    def __init__(self, b: ir.IRBuilder, start: Lanes) -> None:
        self.b = b
        self.type = start.value.type
        self.slot = allocate(b, self.type)
        self.set(start)

    def get(self) -> Lanes:
        """What was assigned last."""
        return Lanes(self.b, self.b.load(self.slot, typ=self.type))

    def set(self, value: Lanes) -> None:
        """Assign."""
        self.b.store(value.value, self.slot)

    def add(self, value: Lanes) -> None:
        """Assign the sum."""
        self.set(self.get() + value)


class LaneArray:
    """`length` vectors on the stack, of float32 unless `kind` says otherwise; item j holds weight j of sixteen groups,
    or what else there are several of for each group.
    """

    def __init__(self, b: ir.IRBuilder, length: int, kind: Any = F32) -> None:
        self.b = b
        self.length = length
        self.kind = vector(kind)
        self.start = allocate(b, self.kind, length)

    def at(self, index: Value | int) -> Value:
        """The address of an item."""
        if isinstance(index, int):
            index = ir.Constant(I64, index)
        return self.b.gep(self.start, [index], source_etype=self.kind)

    def __getitem__(self, index: Value | int) -> Lanes:
        return Lanes(self.b, self.b.load(self.at(index), typ=self.kind))

    def __setitem__(self, index: Value | int, value: Lanes) -> None:
        self.b.store(value.value, self.at(index))


def vector(kind: Any) -> Any:
    """Sixteen of a type."""
    return ir.VectorType(kind, COUNT)


def splat(b: ir.IRBuilder, number: float) -> Lanes:
    """A float32 number in all lanes."""
    return Lanes(b, ir.Constant(vector(F32), [float(number)] * COUNT))


def splat_value(b: ir.IRBuilder, scalar: Value) -> Lanes:
    """A scalar value in all lanes."""
    kind = vector(scalar.type)
    first = b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
    return Lanes(b, b.shuffle_vector(first, first, ir.Constant(vector(I32), [0] * COUNT)))


def gather(b: ir.IRBuilder, values: Sequence[Value]) -> Lanes:
    """Sixteen scalars as lanes."""
    result: Any = ir.Constant(vector(values[0].type), ir.Undefined)
    for lane, value in enumerate(values):
        result = b.insert_element(result, value, ir.Constant(I32, lane))
    return Lanes(b, result)


def joined(b: ir.IRBuilder, pieces: Sequence[Value]) -> Lanes:
    """Four vectors of four, one behind the other."""
    low, high = (b.shuffle_vector(*pair, _order(range(8))) for pair in (pieces[:2], pieces[2:]))
    return Lanes(b, b.shuffle_vector(low, high, _order(range(COUNT))))


def quarter(values: Lanes, index: int) -> Value:
    """A vector of four neighbouring lanes."""
    return values.b.shuffle_vector(values.value, values.value, _order(range(4 * index, 4 * index + 4)))


def transposed(b: ir.IRBuilder, rows: Sequence[Lanes]) -> list[Lanes]:
    """Four by four within each quarter: lane 4 g + i of result k is lane 4 g + k of row i. Its own inverse.

    In two steps of exchanging pairs, which are single instructions where vectors have 128 bits or more.
    """

    def exchange(first: Lanes, second: Lanes, parts: tuple[int, ...]) -> Lanes:
        """Of each quarter four parts: 0 to 3 are of the first, 4 to 7 of the second."""
        order = [4 * g + part % 4 + part // 4 * COUNT for g in range(COUNT // 4) for part in parts]
        return Lanes(b, b.shuffle_vector(first.value, second.value, _order(order)))

    low, high = (0, 4, 1, 5), (2, 6, 3, 7)
    even = [exchange(rows[0], rows[2], half) for half in (low, high)]
    odd = [exchange(rows[1], rows[3], half) for half in (low, high)]
    return [exchange(*pair, half) for pair in zip(even, odd, strict=True) for half in (low, high)]


def _order(lanes: Iterable[int]) -> Value:
    """A constant that says which lanes a shuffle takes."""
    numbers = list(lanes)
    return ir.Constant(ir.VectorType(I32, len(numbers)), numbers)


def allocate(b: ir.IRBuilder, kind: Any, length: int = 1) -> Value:
    """Room on the stack, in the function's entry block so that loops do not grow it; aligned to 64 bytes."""
    with b.goto_entry_block():
        slot = b.alloca(ir.ArrayType(kind, length) if length > 1 else kind)
    slot.align = 64
    slot.type = POINTER  # llvmlite would still have a pointer to `kind`, and refuse to address parts of it
    return slot


@contextmanager
def count(b: ir.IRBuilder, stop: Value | int) -> Iterator[Value]:
    """The block under `with` runs for i = 0, 1, … stop - 1 (an i64)."""
    if isinstance(stop, int):
        stop = ir.Constant(I64, stop)
    before = b.block
    head, body, after = (b.append_basic_block(name) for name in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(I64)
    index.add_incoming(ir.Constant(I64, 0), before)
    b.cbranch(b.icmp_signed("<", index, stop), body, after)
    b.position_at_end(body)
    yield index
    index.add_incoming(b.add(index, ir.Constant(I64, 1)), b.block)
    _keep_rolled(b.branch(head))
    b.position_at_end(after)


def for_each(b: ir.IRBuilder, rows: Sequence[Sequence[float]], body: Callable[..., None]) -> None:
    """Emit `body` for every row of a table, with the row's numbers in all lanes: a loop if there are many."""
    if len(rows) <= FEW:
        for row in rows:
            body(*(splat(b, number) for number in row))
    else:
        tables = [_constants(b, numbers) for numbers in zip(*rows, strict=True)]
        with count(b, len(rows)) as i:
            body(*(splat_value(b, b.load(b.gep(table, [i], source_etype=F32), typ=F32)) for table in tables))


def _constants(b: ir.IRBuilder, numbers: Sequence[float]) -> Value:
    """The address of some float32 numbers."""
    kind = ir.ArrayType(F32, len(numbers))
    table = ir.GlobalVariable(b.module, kind, b.module.get_unique_name("constants"))
    table.global_constant, table.linkage = True, "internal"
    table.initializer = ir.Constant(kind, [float(number) for number in numbers])
    table.type = POINTER
    return table


def _keep_rolled(back: Any) -> None:
    """Tell LLVM not to unroll the loop that this branch closes: all vectors of a tile would then be alive at once.

    Metadata as the LLVM language reference has it under "llvm.loop": a node that names itself, then the hint.
    """
    module = back.module
    hint = module.add_metadata(["llvm.loop.unroll.disable"])
    node = ir.values.MDValue(module, [hint], str(len(module.metadata)))
    node.operands = (node, hint)
    back.set_metadata("llvm.loop", node)


def address(b: ir.IRBuilder, base: Value, offset: Value | int) -> Value:
    """A pointer `offset` bytes after an address (i64) or a pointer."""
    pointer = b.inttoptr(base, POINTER) if base.type == I64 else base
    if isinstance(offset, int):
        offset = ir.Constant(I64, offset)
    return b.gep(pointer, [offset], source_etype=I8)


def load(b: ir.IRBuilder, kind: Any, pointer: Value) -> Value:
    """A value at any address, aligned or not."""
    return b.load(pointer, typ=kind, align=1)


def store(b: ir.IRBuilder, value: Value, pointer: Value) -> None:
    """A value to any address, aligned or not."""
    b.store(value, pointer, align=1)
