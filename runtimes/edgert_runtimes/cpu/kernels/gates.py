"""Activations of gated networks, as kernels (out, gate, up, n) that records name: see `ops.GatedActivation`."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

from edgert_quant.jit import Kernel, emit, ir_kernel
from llvmlite import ir

from edgert_runtimes.cpu.kernels import vectors
from edgert_runtimes.cpu.kernels.vectors import emit_exp, emit_softplus, for_each

SOURCES = (emit, vectors)
"""The modules that the kernels are emitted by, beside this one."""


def _gated(
    b: ir.IRBuilder,
    rows: tuple[ir.Value, ir.Value, ir.Value],
    n: ir.Value,
    activation: Callable[[ir.Value, ir.Value], ir.Value],
) -> None:
    """out[i] = activation(gate[i], up[i]) for n floats; out may be gate or up."""
    out, gate, up = rows

    def run(offset: ir.Value, kind: Any) -> None:
        z, y = (emit.load(b, b.add(row, offset), 0, kind, align=4) for row in (gate, up))
        emit.store(b, b.add(out, offset), 0, activation(z, y), align=4)

    for_each(b, n, run)


def _by_sigmoid(b: ir.IRBuilder, z: ir.Value, exponent: ir.Value) -> ir.Value:
    """z / (1 + e^exponent)."""
    return b.fdiv(z, b.fadd(emit.real(1.0, z.type), emit_exp(b, exponent)))


@ir_kernel(name="gate.silu", key=SOURCES)
def silu(b: ir.IRBuilder, out: ir.Value, gate: ir.Value, up: ir.Value, n: ir.Value) -> None:
    """The kind "silu"."""
    _gated(b, (out, gate, up), n, lambda z, y: b.fmul(_by_sigmoid(b, z, b.fneg(z)), y))


@ir_kernel(name="gate.gelu", key=SOURCES)
def gelu(b: ir.IRBuilder, out: ir.Value, gate: ir.Value, up: ir.Value, n: ir.Value) -> None:
    """The kind "gelu": 1 + tanh(t) is 2 / (1 + e^(-2 t))."""

    def activation(z: ir.Value, y: ir.Value) -> ir.Value:
        cubed = b.fmul(b.fmul(z, z), b.fmul(z, emit.real(0.044715, z.type)))
        exponent = b.fmul(b.fadd(z, cubed), emit.real(-2.0 * sqrt(2.0 / pi), z.type))
        return b.fmul(_by_sigmoid(b, z, exponent), y)

    _gated(b, (out, gate, up), n, activation)


@ir_kernel(name="gate.swiglu_oai", key=SOURCES)
def swiglu_oai(b: ir.IRBuilder, out: ir.Value, gate: ir.Value, up: ir.Value, n: ir.Value) -> None:
    """The kind "swiglu_oai"."""

    def clamped(x: ir.Value, order: str, limit: float) -> ir.Value:
        """NaN stays."""
        edge = emit.real(limit, x.type)
        return b.select(b.fcmp_ordered(order, x, edge), edge, x)

    def activation(z: ir.Value, y: ir.Value) -> ir.Value:
        z = clamped(z, ">", 7.0)
        y = clamped(clamped(y, ">", 7.0), "<", -7.0)
        glu = _by_sigmoid(b, z, b.fmul(z, emit.real(-1.702, z.type)))
        return b.fmul(glu, b.fadd(y, emit.real(1.0, y.type)))

    _gated(b, (out, gate, up), n, activation)


@ir_kernel(name="gate.relu", key=SOURCES)
def relu(b: ir.IRBuilder, out: ir.Value, gate: ir.Value, up: ir.Value, n: ir.Value) -> None:
    """The kind "relu"; NaN stays."""

    def activation(z: ir.Value, y: ir.Value) -> ir.Value:
        zero = emit.real(0.0, z.type)
        return b.fmul(b.select(b.fcmp_ordered("<", z, zero), zero, z), y)

    _gated(b, (out, gate, up), n, activation)


@ir_kernel(name="gate.bilinear", key=SOURCES)
def bilinear(b: ir.IRBuilder, out: ir.Value, gate: ir.Value, up: ir.Value, n: ir.Value) -> None:
    """The kind "bilinear"."""
    _gated(b, (out, gate, up), n, b.fmul)


@ir_kernel(name="gate.sigmoid", key=SOURCES)
def sigmoid(b: ir.IRBuilder, out: ir.Value, gate: ir.Value, up: ir.Value, n: ir.Value) -> None:
    """The kind "sigmoid"."""
    _gated(b, (out, gate, up), n, lambda z, y: b.fmul(_by_sigmoid(b, emit.real(1.0, z.type), b.fneg(z)), y))


@ir_kernel(name="gate.softplus", key=SOURCES)
def softplus(b: ir.IRBuilder, out: ir.Value, gate: ir.Value, up: ir.Value, n: ir.Value) -> None:
    """The kind "softplus"."""
    _gated(b, (out, gate, up), n, lambda z, y: b.fmul(emit_softplus(b, z), y))


@ir_kernel(name="gate.row_sigmoid", key=SOURCES)
def row_sigmoid(b: ir.IRBuilder, out: ir.Value, gate: ir.Value, up: ir.Value, n: ir.Value) -> None:
    """The kind "sigmoid" with one gate for n floats; out may be up."""
    z = emit.load(b, gate, 0, vectors.vector_types()[0])
    _multiplied(b, out, up, n, _by_sigmoid(b, emit.real(1.0, z.type), b.fneg(z)))


@ir_kernel(name="gate.row_softplus", key=SOURCES)
def row_softplus(b: ir.IRBuilder, out: ir.Value, gate: ir.Value, up: ir.Value, n: ir.Value) -> None:
    """The kind "softplus", so."""
    _multiplied(b, out, up, n, emit_softplus(b, emit.load(b, gate, 0, vectors.vector_types()[0])))


def _multiplied(b: ir.IRBuilder, out: ir.Value, up: ir.Value, n: ir.Value, share: ir.Value) -> None:
    """out[i] = share · up[i]."""

    def run(offset: ir.Value, kind: Any) -> None:
        factor = share if kind == share.type else emit.splat(b, share, kind.count)
        y = emit.load(b, b.add(up, offset), 0, kind, align=4)
        emit.store(b, b.add(out, offset), 0, b.fmul(factor, y), align=4)

    for_each(b, n, run)


ACTIVATIONS: dict[str, Kernel] = {
    "silu": silu,
    "gelu": gelu,
    "swiglu_oai": swiglu_oai,
    "relu": relu,
    "bilinear": bilinear,
    "sigmoid": sigmoid,
    "softplus": softplus,
}
"""By the name of the kind, where gates are as wide as what they let through."""
ROW_GATES: dict[str, Kernel] = {"sigmoid": row_sigmoid, "softplus": row_softplus}
"""By the name of the kind, where one gate holds for a row or a part of it."""
