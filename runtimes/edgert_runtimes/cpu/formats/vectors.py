"""Vectors of 16 lanes in LLVM IR: the types, loads and shuffles that packing and matmul kernels are written with.

Pointers here are opaque LLVM pointers and offsets are bytes, so that a loop needs one induction variable per stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgert_quant.jit import emit, host
from llvmlite import ir

from edgert_runtimes.cpu.formats.base import LANES

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32 = ir.FloatType()
POINTER = ir.PointerType()
WORDS = ir.VectorType(I32, LANES)
"""One 32-bit word per row: four consecutive 8-bit codes, or an integer."""
FLOATS = ir.VectorType(F32, LANES)
HALVES = ir.VectorType(I16, LANES)
SHORTS = ir.VectorType(I16, 2 * LANES)
"""Two 16-bit numbers a word."""
ROW_WORD = 4 * LANES
"""Bytes of one word of 16 rows."""

Value = Any  # ir.Value; llvmlite is untyped
Offset = Any  # int, or an i64 value


def i64(value: Value | int) -> Value:
    """An i64 value out of a number or a value."""
    return ir.Constant(I64, value) if isinstance(value, int) else value


def same(like: Value, value: int) -> Value:
    """The integer `value` as a constant of the type of `like`, in every lane if that is a vector."""
    kind = like.type
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, value)] * kind.count)
    return ir.Constant(kind, value)


def pointer(b: ir.IRBuilder, address: Value) -> Value:
    """An address (i64) as a pointer."""
    return b.inttoptr(address, POINTER)


def step(b: ir.IRBuilder, base: Value, offset: Offset) -> Value:
    """The pointer `offset` bytes behind `base`."""
    if isinstance(offset, int) and offset == 0:
        return base
    return b.gep(base, [i64(offset)], source_etype=I8)


def add(b: ir.IRBuilder, a: Offset, c: Offset) -> Offset:
    """The sum of two offsets; numbers stay numbers."""
    if isinstance(a, int) and isinstance(c, int):
        return a + c
    return b.add(i64(a), i64(c))


def multiply(b: ir.IRBuilder, a: Offset, c: Offset) -> Offset:
    """The product of two offsets; numbers stay numbers."""
    if isinstance(a, int) and isinstance(c, int):
        return a * c
    return b.mul(i64(a), i64(c))


def load(b: ir.IRBuilder, base: Value, offset: Offset, kind: Any, align: int = 1) -> Value:
    """What lies `offset` bytes behind `base`."""
    return b.load(step(b, base, offset), align=align, typ=kind)


def store(b: ir.IRBuilder, base: Value, offset: Offset, value: Value, align: int = 1) -> None:
    """Store a value `offset` bytes behind `base`."""
    b.store(value, step(b, base, offset), align=align)


def gather(b: ir.IRBuilder, places: Sequence[Value], offset: Offset, kind: Any) -> Value:
    """What lies `offset` bytes behind each of some pointers, as a vector."""
    vector = ir.Constant(ir.VectorType(kind, len(places)), ir.Undefined)
    for i, place in enumerate(places):
        vector = b.insert_element(vector, load(b, place, offset, kind), ir.Constant(I32, i))
    return vector


LINE = 64
"""Bytes of a cache line, near enough."""


def fetch(b: ir.IRBuilder, place: Value, size: int) -> None:
    """Fetch `size` bytes from a pointer on, or the line they are in, into the caches; harmless anywhere.

    Memory idles between the streams of many rows where nobody does: .53 of what Intel's gives was read without, .84
    with. Into which cache matters: on Zen 4, kernels read up to twice as fast where the first is left alone.
    """
    locality = 2 if host().cpu.startswith("znver") else 3  # from the second cache on, or the first
    for line in range(max(1, -(-size // LINE))):
        hints = [emit.integer(32, value) for value in (0, locality, 1)]  # for reading, data
        emit.call(b, "llvm.prefetch.p0", ir.VoidType(), [step(b, place, LINE * line), *hints])


def splat(b: ir.IRBuilder, value: Value) -> Value:
    """A scalar in all lanes."""
    return emit.splat(b, value, LANES)


def fused(b: ir.IRBuilder, x: Value, y: Value, z: Value) -> Value:
    """x·y + z, rounded once where the CPU can; the same in every kernel of one machine."""
    return emit.call(b, f"llvm.fmuladd.v{x.type.count}f32", x.type, [x, y, z])


def shift_left(b: ir.IRBuilder, value: Value, count: Value | int) -> Value:
    """Shift every lane left, or right where `count` is a negative number."""
    if isinstance(count, int):
        if count == 0:
            return value
        return b.shl(value, same(value, count)) if count > 0 else b.lshr(value, same(value, -count))
    return b.shl(value, _counts(b, value, count))


def shift_right(b: ir.IRBuilder, value: Value, count: Value | int) -> Value:
    """Shift every lane right by a number or an i64 value."""
    if isinstance(count, int):
        return shift_left(b, value, -count)
    return b.lshr(value, _counts(b, value, count))


def _counts(b: ir.IRBuilder, value: Value, count: Value) -> Value:
    kind = value.type
    if isinstance(kind, ir.VectorType):
        return emit.splat(b, b.trunc(count, kind.element), kind.count)
    return b.trunc(count, kind)


def mask(b: ir.IRBuilder, value: Value, bits: int) -> Value:
    """`value` & `bits`, lane by lane."""
    return b.and_(value, same(value, bits))


def shuffle(b: ir.IRBuilder, x: Value, y: Value, order: Sequence[int]) -> Value:
    """Elements of the two vectors laid end to end."""
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(order)), list(order)))


def join(b: ir.IRBuilder, parts: Sequence[Value]) -> Value:
    """Vectors laid end to end, in a balanced tree."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    x, y = join(b, parts[:middle]), join(b, parts[middle:])
    return shuffle(b, x, y, range(x.type.count + y.type.count))


def split(b: ir.IRBuilder, value: Value, length: int) -> list[Value]:
    """A vector cut into vectors of `length` elements."""
    count = value.type.count
    if count == length:
        return [value]
    return [shuffle(b, value, value, range(i, i + length)) for i in range(0, count, length)]


def halves_of(b: ir.IRBuilder, words: Value) -> list[Value]:
    """The lower and the upper of the signed 16-bit numbers in each word, as words."""
    return [b.ashr(shift_left(b, words, 16), same(words, 16)), b.ashr(words, same(words, 16))]


def multiply_halves(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """The products of the 16-bit numbers in words, which must fit into as many bits."""
    return b.bitcast(b.mul(b.bitcast(x, SHORTS), b.bitcast(y, SHORTS)), x.type)


def dot_halves(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """The product of the lower 16-bit numbers in each word plus that of the upper ones, as LLVM recognizes pmaddwd."""
    length = 2 * x.type.count
    shorts, wide = ir.VectorType(I16, length), ir.VectorType(I32, length)
    products = b.mul(*(b.sext(b.bitcast(value, shorts), wide) for value in (x, y)))
    return b.add(*(shuffle(b, products, products, range(first, length, 2)) for first in (0, 1)))


def look_up(b: ir.IRBuilder, codes: Value, table: Sequence[int]) -> Value:
    """Bytes that are indices of a table → its entries (bytes): the steps from entry to entry, added up to the index.

    For CPUs that have no instruction for it.
    """
    result = same(codes, table[0])
    for i in range(1, len(table)):
        reached = b.sext(b.icmp_signed(">=", codes, same(codes, i)), codes.type)
        result = b.add(result, mask(b, reached, (table[i] - table[i - 1]) % 256))
    return result


def word_of_halves(b: ir.IRBuilder, words: Value) -> tuple[Value, Value]:
    """The two halves in each word, as floats."""
    low, high = b.trunc(words, HALVES), b.trunc(shift_right(b, words, 16), HALVES)
    return emit.half_to_float(b, low), emit.half_to_float(b, high)
