"""Kernels for the tests of the compiler and its cache."""

import numpy as np
from edgert_quant.jit import device, emit, ir_kernel, kernel
from edgert_quant.jit import primitives as p
from edgert_quant.jit.primitives import call4, dot_f16, dot_f32, fetch_add, load_f16, load_f32, store_f16, store_f32
from numpy import float32

TABLE = np.array([1, 10, 100], np.int64)


@device
def square(x):
    return x * x


@kernel
def scale_squares(x: int, y: int, n: int, factor: float) -> None:
    """y = factor · x²."""
    for i in range(n):
        store_f32(y, i, float32(factor) * square(load_f32(x, i)))


@kernel
def look_up(a: int, b: int, c: int, d: int) -> int:
    return TABLE[a] + TABLE[b] * c + d


@kernel
def indirect(function: int, a: int, b: int, c: int, d: int) -> int:
    return call4(function, a, b, c, d)


@ir_kernel()
def add_up(b, x, n):
    """Σ x[i] of n int64."""
    from llvmlite import ir

    with emit.loop(b, n, emit.integer(64, 0)) as body:
        body.carry(b.add(body.values[0], emit.load(b, x, body.index, ir.IntType(64))))
    return body.values[0]


@ir_kernel(floats=("factor",))
def truncate(b, n, factor):
    from llvmlite import ir

    return b.fptosi(b.fmul(b.sitofp(n, ir.DoubleType()), factor), ir.IntType(64))


@kernel
def to_half(x: int, y: int, n: int) -> None:
    for i in range(n):
        store_f16(y, i, load_f32(x, i))


@kernel
def from_half(x: int, y: int, n: int) -> None:
    for i in range(n):
        store_f32(y, i, load_f16(x, i))


@kernel
def dots(x: int, y: int, half: int, n: int, out: int) -> None:
    store_f32(out, 0, dot_f32(x, y, n))
    store_f32(out, 1, dot_f16(x, half, n))


@kernel
def count_up(counter: int, n: int) -> int:
    last = 0
    for _ in range(n):
        last = fetch_add(counter, 0, 1)
    return last


assert p.LANES == 16
