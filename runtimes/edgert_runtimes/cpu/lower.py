"""Plan → records: which kernel does each part of each op, and where every value lies.

Element by element ops run in place where they can. The activations of a matrix product are made once per value and
kind, and shared by all products that read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from edgert_models import ops
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan
from edgert_models.rope import RopeLayout
from numpy.typing import NDArray

from edgert_runtimes.base import Limits
from edgert_runtimes.cpu.kernels import rows, table
from edgert_runtimes.cpu.lowering.emitter import gate_kernel, vector
from edgert_runtimes.cpu.lowering.mixtures import Mixtures
from edgert_runtimes.cpu.lowering.products import Products
from edgert_runtimes.cpu.lowering.sequences import Sequences
from edgert_runtimes.cpu.program import Field, Place, Program
from edgert_runtimes.cpu.values import stride_of
from edgert_runtimes.cpu.weights import Layout, Loaded, Vector


def lower(plan: Plan, layouts: Mapping[str, Layout], limits: Limits) -> Program:
    """The program of a plan; UnsupportedError names an op that has no kernel."""
    return Lowering(plan, layouts, limits).run()


class Lowering(Products, Mixtures, Sequences):
    """Emits the records of one op after the other; those that do rows by themselves are here."""

    def __init__(self, plan: Plan, layouts: Mapping[str, Layout], limits: Limits) -> None:
        super().__init__(plan, layouts, limits)
        self.tables: dict[tuple[Any, ...], int] = {}

    def run(self) -> Program:
        """All ops."""
        program = self.program
        for index, op in enumerate(self.plan.ops):
            self.op = index
            program.strides[op.out.id] = stride_of(op.out.width)
            match op:
                case ops.Embed():
                    self._embed(op)
                case ops.RmsNorm():
                    norm: dict[int, Field] = {rows.GROUPS: op.groups, rows.REST: op.rest, rows.EPS: float(op.eps)}
                    norm |= {rows.WEIGHT: vector(op.weight), rows.OWN: op.size if op.own else 0}
                    self._rows(rows.rms_norm, op, [op.x], norm)
                case ops.LayerNorm():
                    norm = {rows.EPS: float(op.eps), rows.WEIGHT: vector(op.weight), rows.BIAS: vector(op.bias)}
                    self._rows(rows.layer_norm, op, [op.x], norm)
                case ops.Add():
                    self._add(op)
                case ops.Scale():
                    self._rows(rows.scale, op, [op.x], {rows.FACTOR: float(op.factor), rows.WEIGHT: vector(op.weight)})
                case ops.PositionScale():
                    self._position_scale(op)
                case ops.SoftCap():
                    self._rows(rows.soft_cap, op, [op.x], {rows.FACTOR: float(op.cap)}, cost=op.out.width // 2)
                case ops.Clamp():
                    self._rows(rows.clamp, op, [op.x], {rows.FACTOR: float(op.limit)})
                case ops.GatedActivation():
                    gate: dict[int, Field] = {rows.ACTIVATE: gate_kernel(op.kind, op.parts), rows.PARTS: op.parts or 1}
                    self._rows(rows.gate, op, [op.gate, op.up], gate, cost=op.out.width // 4)
                case ops.Slice():
                    part: dict[int, Field] = {rows.GROUPS: op.groups, rows.START: op.start, rows.X_WIDTH: op.x.width}
                    self._rows(rows.slice_rows, op, [op.x], part, in_place=False)
                case ops.Rope():
                    self._rope(op)
                case ops.PickRows():
                    self._rows(rows.pick_rows, op, [op.x], in_place=False)
                case ops.Linear():
                    self._linear(op)
                case ops.LowRank():
                    self._low_rank(op)
                case ops.HeadLinear():
                    self._head_linear(op)
                case ops.Attend():
                    self._attend(op)
                case ops.ShortConv():
                    self._short_conv(op)
                case ops.DeltaRule():
                    self._delta_rule(op)
                case ops.Scan():
                    self._scan(op)
                case ops.Moe():
                    self._moe(op)
                case _:
                    raise UnsupportedError(f"op {type(op).__name__} is not supported by the cpu backend")
            program.ends[op.out.id] = len(program.records)
            self.release(op)
        program.workspace_bytes = self.arena.size
        return program

    def _embed(self, op: ops.Embed) -> None:
        width, form = op.out.width, self.layouts[op.weight].format
        fields: dict[int, Field] = {
            rows.WEIGHT: Place("weight", name=op.weight),
            rows.ROW_BYTES: form.type.row_bytes(width),
            rows.PACK: form.pack,
            rows.UNPACK: form.unpack_row,
        }
        self._scratch(form.panel_bytes(width))
        self._rows(rows.embed, op, [], fields, cost=2 * width)

    def _position_scale(self, op: ops.PositionScale) -> None:
        steps = np.arange((self.limits.context + op.ahead) // op.length + 1)
        factors = 1 + op.strength * np.log1p(steps)
        self.program.constants.append(lambda loaded: factors)
        table = Place("constant", name=len(self.program.constants) - 1)
        fields: dict[int, Field] = {rows.WEIGHT: table, rows.LENGTH: op.length, rows.AHEAD: op.ahead}
        self._rows(rows.position_scale, op, [op.x], fields)

    def _rope(self, op: ops.Rope) -> None:
        pairs = len(op.frequencies)
        key = (op.frequencies, op.factors, op.magnitude)
        if key not in self.tables:
            self.program.constants.append(lambda loaded: _frequencies(op, loaded))
            start, _ = self.arena.allocate(4 * self.limits.rows * 2 * pairs)  # for the whole step
            self.tables[key] = start
            fields: dict[int, Field] = {
                rows.OUT: Place("workspace", start),
                rows.OUT_STRIDE: 2 * pairs,
                rows.WEIGHT: Place("constant", name=len(self.program.constants) - 1),
                rows.PAIRS: pairs,
                rows.MAGNITUDE: float(op.magnitude),
            }
            self._emit(rows.rope_table, table.ROWS, fields, cost=20 * pairs)
        halves = op.layout is RopeLayout.HALVES
        rotation: dict[int, Field] = {
            rows.Y: Place("workspace", self.tables[key]),
            rows.Y_STRIDE: 2 * pairs,
            rows.PAIRS: pairs,
            rows.HEADS: op.heads,
            rows.HEAD_SIZE: op.head_size,
            rows.STEP: pairs if halves else 1,
            rows.SPREAD: 1 if halves else 2,
            rows.FIRST: op.first,
        }
        self._rows(rows.rope, op, [op.x], rotation, cost=op.out.width // 4)


def _frequencies(op: ops.Rope, loaded: Mapping[str, Loaded]) -> NDArray[np.float64]:
    frequencies = np.array(op.frequencies, np.float64)
    if op.factors is not None:
        factors = loaded[op.factors]
        assert isinstance(factors, Vector)
        frequencies = frequencies / factors.data
    return frequencies
