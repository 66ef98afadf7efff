"""Mixtures of experts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from edgert_models import ops
from edgert_models.graph import Plan
from edgert_models.ops import Value

from edgert_runtimes.base import Limits
from edgert_runtimes.cpu.formats import LANES, Format
from edgert_runtimes.cpu.kernels import moe, route, rows, table
from edgert_runtimes.cpu.lowering.emitter import Emitter, gate_kernel, panels, vector
from edgert_runtimes.cpu.program import Field, Place
from edgert_runtimes.cpu.values import stride_of
from edgert_runtimes.cpu.weights import Layout
from edgert_runtimes.experts import load_offset
from edgert_runtimes.memory import aligned
from edgert_runtimes.values import Span


class Mixtures(Emitter):
    """The router, the experts' products, and their sum, with what it is added to."""

    def __init__(self, plan: Plan, layouts: Mapping[str, Layout], limits: Limits) -> None:
        super().__init__(plan, layouts, limits)
        # What experts gave, where it is summed up by the op that adds it to something: how many, fields, memory held.
        self.sums: dict[int, tuple[int, dict[int, Field], list[Span]]] = {}

    def _moe(self, op: ops.Moe) -> None:
        count = self.rows_of(op.out)
        routing = {**self.routing(op), route.LOAD: self._load_of(self.op)}
        self._scratch(4 * (2 * op.experts + op.router.groups))
        router: dict[int, Field] = {
            rows.X: self.place(op.logits),
            rows.X_STRIDE: stride_of(op.logits.width),
            route.SIGMOID: int(op.router.scoring == "sigmoid"),
            route.NORMALIZE: int(op.router.normalize),
            route.EPSILON: op.router.epsilon,
            route.SCALE: op.router.scale,
            route.BIAS: vector(op.selection_bias),
            route.BIAS_LOGITS: int(op.router.bias_logits),
            route.GROUPS: op.router.groups,
            route.GROUPS_USED: op.router.groups_used,
            route.GROUP_BEST: op.router.group_best,
            route.BAND: op.router.band,
            route.EXPERT_SCALE: vector(op.expert_scale),
        }
        self._emit(route.route, count, {**routing, **router}, cost=op.experts * (op.used + 16) // 8)
        inward = op.router.weighs_inputs
        y = self.expert_products(op, routing, weights=routing[route.SHARES] if inward else 0)
        sums: dict[int, Field] = {**routing, rows.X: y, rows.X_STRIDE: stride_of(op.out.width)}
        if inward:
            sums[route.SHARES] = self._ones(self.limits.rows * op.used)
        if self._only_added(op.out):
            self.sums[op.out.id] = op.used, sums, self.temporary
            self.temporary = []
        else:
            self._combine(op, op.used, sums)

    def routing(self, op: ops.Moe) -> dict[int, Field]:
        """Memory for what chooses experts and sorts rows by them."""
        pairs = self.limits.rows * op.used
        routing: dict[int, Field] = {route.EXPERTS: op.experts, route.USED: op.used}
        for number, size in (
            (route.IDS, 4 * pairs),
            (route.SHARES, 4 * pairs),
            (route.SORTED, 4 * pairs),
            (route.STARTS, 4 * (op.experts + 1)),
            (route.ACTIVE, 4 * op.experts),
            (moe.COSTS, 8 * (op.experts + 1)),
        ):
            routing[number] = self.take(size)
        return routing

    def _load_of(self, index: int) -> Place:
        """Where the rows of a mixture's experts are counted."""
        return Place("loads", load_offset(self.plan, index))

    def _ones(self, count: int) -> Place:
        """So many shares of one."""
        self.program.constants.append(lambda loaded: np.ones(count, np.float32))
        return Place("constant", name=len(self.program.constants) - 1)

    def expert_products(self, op: ops.Moe, routing: Mapping[int, Field], weights: Field = 0) -> Place:
        """The records that follow the choice of experts; where their results will be: float32 [pairs, stride]. What
        enters experts is multiplied with `weights`, if there are any.
        """
        pairs, count = self.limits.rows * op.used, self.rows_of(op.out)
        gate, up, down = (self.layouts[name].format for name in (op.gate, op.up, op.down))
        inward_bytes = max(gate.scratch_bytes(op.x.width), up.scratch_bytes(op.x.width))
        self._scratch(max(moe.SCRATCH + inward_bytes, table.PANELS + down.scratch_bytes(op.hidden)))
        hidden_bytes = aligned(down.activation.bytes(op.hidden))
        hidden = self.take(pairs * hidden_bytes)
        gate_x, gate_x_bytes = self._activation(op.x, gate.activation)
        up_x, up_x_bytes = self._activation(op.x, up.activation)
        fields: dict[int, Field] = {
            **routing,
            **_expert_fields(op.gate, gate, op.x.width, op.hidden, gate_x, gate_x_bytes),
            moe.UP: Place("weight", name=op.up),
            moe.UP_GEMM: up.gemm,
            moe.UP_ROW_BYTES: up.type.row_bytes(op.x.width),
            moe.UP_X: up_x,
            moe.UP_X_BYTES: up_x_bytes,
            rows.OUT: hidden,
            rows.OUT_STRIDE: hidden_bytes,
            rows.WIDTH: op.hidden,
            moe.QUANTIZE: down.activation.quantize,
            moe.STRIP: down.activation.block // LANES,
            moe.STRIP_BYTES: down.activation.bytes(down.activation.block),
            moe.GATE_BIAS: vector(op.gate_bias),
            moe.UP_BIAS: vector(op.up_bias),
            moe.ACTIVATE: gate_kernel(op.kind),
            moe.WEIGHTS: weights,
        }
        inward = len(self.program.records)
        self._emit(moe.inward, count, fields, prepare=moe.prepare_inward, per_row=op.used)

        y = self.take(4 * pairs * stride_of(op.out.width))
        fields = {
            **routing,
            **_expert_fields(op.down, down, op.hidden, op.out.width, hidden, hidden_bytes),
            rows.OUT: y,
            rows.OUT_STRIDE: stride_of(op.out.width),
            rows.WIDTH: op.out.width,
            moe.STRIP: 2,
            moe.GATE_BIAS: vector(op.down_bias),
            moe.SOURCE: Place("table", 8 * (table.RECORD_WORDS * inward + moe.N_ACTIVE)),
        }
        self._emit(moe.outward, count, fields, prepare=moe.prepare_outward, per_row=op.used)
        return y

    def _only_added(self, value: Value) -> bool:
        """Whether all that becomes of a value is that it is added to one that will be there."""
        users = [op for op in self.plan.ops if value in op.inputs]
        if len(users) != 1 or not isinstance(users[0], ops.Add) or value.id == self.plan.hidden.id:
            return False
        (other,) = (each for each in users[0].inputs if each != value) if users[0].a != users[0].b else (value,)
        return other != value and other.id not in self.sums

    def _add(self, op: ops.Add) -> None:
        """Where one side is what experts gave, the addition is part of summing them up."""
        for experts, other in ((op.a, op.b), (op.b, op.a)):
            if experts.id in self.sums:
                used, sums, spans = self.sums.pop(experts.id)
                self.temporary += spans
                self._combine(op, used, sums, other)
                return
        self._rows(rows.add, op, [op.a, op.b])

    def _combine(self, op: ops.Op, used: int, sums: Mapping[int, Field], other: Value | None = None) -> None:
        fields = {**sums, rows.WIDTH: op.out.width}
        if other is not None:
            fields[rows.Y], fields[rows.Y_STRIDE] = self.place(other), stride_of(other.width)
        self.give(op, () if other is None else (other,))
        fields[rows.OUT], fields[rows.OUT_STRIDE] = self.place(op.out), stride_of(op.out.width)
        self._emit(moe.combine, self.rows_of(op.out), fields, cost=used * op.out.width // 8)


def _expert_fields(name: str, form: Format, k: int, width: int, x: Field, x_bytes: int) -> dict[int, Field]:
    return {
        moe.GATE: Place("weight", name=name),
        moe.GATE_GEMM: form.gemm,
        moe.GATE_ROW_BYTES: form.type.row_bytes(k),
        moe.GATE_X: x,
        moe.GATE_X_BYTES: x_bytes,
        moe.K: k,
        moe.N_PANELS: panels(width),
    }
