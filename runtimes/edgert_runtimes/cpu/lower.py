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
from edgert_models.ops import Value
from edgert_models.rope import RopeLayout
from edgert_quant.jit import Kernel
from numpy.typing import NDArray

from edgert_runtimes.base import Limits
from edgert_runtimes.cpu import attention
from edgert_runtimes.cpu.formats import LANES, Activation, Format
from edgert_runtimes.cpu.kernels import (
    adapters,
    attend,
    division,
    gates,
    heads,
    linear,
    moe,
    recurrent,
    route,
    rows,
    table,
)
from edgert_runtimes.cpu.program import Field, Place, Program, Record
from edgert_runtimes.cpu.values import Values, stride_of
from edgert_runtimes.cpu.weights import Layout, Loaded, Vector
from edgert_runtimes.experts import expert_counts, mixtures_of
from edgert_runtimes.memory import aligned
from edgert_runtimes.values import Span

Recurrent = ops.ShortConv | ops.DeltaRule | ops.Scan


def lower(plan: Plan, layouts: Mapping[str, Layout], limits: Limits) -> Program:
    """The program of a plan; UnsupportedError names an op that has no kernel."""
    return Lowering(plan, layouts, limits).run()


class Lowering(Values):
    """Emits the records of one op after the other."""

    def __init__(self, plan: Plan, layouts: Mapping[str, Layout], limits: Limits) -> None:
        super().__init__(plan, limits)
        self.layouts = layouts
        self.program = Program()
        self.tables: dict[tuple[Any, ...], int] = {}
        self.caches = self._place_caches()
        self.states = self._place_states()
        # What experts gave, where it is summed up by the op that adds it to something: how many, fields, memory held.
        self.sums: dict[int, tuple[int, dict[int, Field], list[Span]]] = {}

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
                    norm |= {rows.WEIGHT: _vector(op.weight), rows.OWN: op.size if op.own else 0}
                    self._rows(rows.rms_norm, op, [op.x], norm)
                case ops.LayerNorm():
                    norm = {rows.EPS: float(op.eps), rows.WEIGHT: _vector(op.weight), rows.BIAS: _vector(op.bias)}
                    self._rows(rows.layer_norm, op, [op.x], norm)
                case ops.Add():
                    self._add(op)
                case ops.Scale():
                    self._rows(rows.scale, op, [op.x], {rows.FACTOR: float(op.factor), rows.WEIGHT: _vector(op.weight)})
                case ops.PositionScale():
                    self._position_scale(op)
                case ops.SoftCap():
                    self._rows(rows.soft_cap, op, [op.x], {rows.FACTOR: float(op.cap)}, cost=op.out.width // 2)
                case ops.GatedActivation():
                    kernel = _row_gate(op) or _activation(op.kind)
                    gate: dict[int, Field] = {rows.ACTIVATE: kernel}
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

    def _scratch(self, size: int) -> None:
        self.program.scratch_bytes = max(self.program.scratch_bytes, -(-size // 4096) * 4096)

    def _emit(
        self,
        run: Kernel,
        count: int,
        fields: Mapping[int, Field],
        *,
        prepare: Kernel = rows.prepare_rows,
        cost: int = 0,
        per_row: int = 1,
    ) -> None:
        self.program.records.append(Record(run, prepare, count, self.op, cost, per_row, fields))

    # Ops that do rows by themselves.

    def _rows(
        self,
        run: Kernel,
        op: ops.Op,
        inputs: list[Value],
        extra: Mapping[int, Field] | None = None,
        *,
        in_place: bool = True,
        cost: int | None = None,
    ) -> None:
        fields: dict[int, Field] = {rows.WIDTH: op.out.width, **(extra or {})}
        for value, place, stride in zip(inputs, (rows.X, rows.Y), (rows.X_STRIDE, rows.Y_STRIDE), strict=False):
            fields[place], fields[stride] = self.place(value), stride_of(value.width)
        self.give(op, tuple(inputs) if in_place else ())
        fields[rows.OUT], fields[rows.OUT_STRIDE] = self.place(op.out), stride_of(op.out.width)
        self._emit(run, self.rows_of(op.out), fields, cost=op.out.width // 8 if cost is None else cost)

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
        steps = np.arange(self.limits.context // op.length + 1)
        factors = 1 + op.strength * np.log1p(steps)
        self.program.constants.append(lambda loaded: factors)
        table = Place("constant", name=len(self.program.constants) - 1)
        self._rows(rows.position_scale, op, [op.x], {rows.WEIGHT: table, rows.LENGTH: op.length})

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

    # Matrix products.

    def _activation(self, value: Value, activation: Activation) -> tuple[Field, int]:
        """Where the activations of a value are, made if need be, and the bytes of a row of them."""
        if activation.direct:
            return self.place(value), 4 * stride_of(value.width)
        key = (value.id, activation.name)
        size = aligned(activation.bytes(value.width))
        if key not in self.derived:
            self.derived[key] = self.arena.allocate(self.limits.rows * size)
            fields: dict[int, Field] = {
                rows.OUT: Place("workspace", self.derived[key][0]),
                rows.OUT_STRIDE: size,
                rows.X: self.place(value),
                rows.X_STRIDE: stride_of(value.width),
                rows.WIDTH: value.width,
                rows.QUANTIZE: activation.quantize,
            }
            self._emit(rows.quantize, self.rows_of(value), fields, cost=value.width // 4)
        return Place("workspace", self.derived[key][0]), size

    def _linear(self, op: ops.Linear) -> None:
        form = self.layouts[op.weight].format
        x, x_bytes = self._activation(op.x, form.activation)
        self.give(op)
        fields: dict[int, Field] = {
            rows.OUT: self.place(op.out),
            rows.OUT_STRIDE: stride_of(op.out.width),
            rows.WIDTH: op.out.width,
            rows.X: x,
            linear.X_BYTES: x_bytes,
            linear.MATRIX: Place("weight", name=op.weight),
            linear.N_PANELS: _panels(op.out.width),
            linear.ROW_BYTES: form.type.row_bytes(op.x.width),
            linear.K: op.x.width,
            linear.GEMM: form.gemm,
            linear.BIAS: _vector(op.bias),
        }
        self._scratch(table.PANELS + form.scratch_bytes(op.x.width))
        self._emit(linear.linear, self.rows_of(op.out), fields, prepare=linear.prepare_linear)

    def _low_rank(self, op: ops.LowRank) -> None:
        fields: dict[int, Field] = {
            rows.X: self.place(op.x),
            rows.X_STRIDE: stride_of(op.x.width),
            rows.Y: self.place(op.y),
            rows.Y_STRIDE: stride_of(op.y.width),
            rows.WIDTH: op.out.width,
            adapters.A: Place("weight", name=op.a),
            adapters.B: Place("weight", name=op.b),
            adapters.RANK: op.rank,
            adapters.K: op.x.width,
            adapters.PICKED: int(op.out.picked),
        }
        self._scratch(4 * op.rank)
        self.give(op, (op.y,))
        fields[rows.OUT], fields[rows.OUT_STRIDE] = self.place(op.out), stride_of(op.out.width)
        self._emit(adapters.low_rank, self.rows_of(op.out), fields, cost=op.rank * (op.x.width + op.out.width) // 16)

    def _head_linear(self, op: ops.HeadLinear) -> None:
        form, head = self.layouts[op.weight].format, op.inward + op.rest
        source, stride = self.place(op.x), stride_of(op.x.width)
        product: dict[int, Field] = {
            heads.HEADS: op.heads,
            heads.REST: op.rest,
            heads.SOURCE: source,
            heads.SOURCE_STRIDE: stride,
            linear.K: op.inward,
        }
        x: Field = source
        row_bytes, head_bytes = 4 * stride, 4 * head
        if not form.activation.direct:
            head_bytes = aligned(form.activation.bytes(op.inward))
            row_bytes = op.heads * head_bytes
            x = self.take(self.limits.rows * row_bytes)
            fields: dict[int, Field] = {
                **product,
                rows.OUT: x,
                rows.OUT_STRIDE: row_bytes,
                heads.HEAD_BYTES: head_bytes,
                heads.QUANTIZE: form.activation.quantize,
            }
            self._emit(heads.quantize_heads, self.rows_of(op.x), fields, cost=op.x.width // 4)
        self.give(op)
        product |= {
            rows.OUT: self.place(op.out),
            rows.OUT_STRIDE: stride_of(op.out.width),
            rows.WIDTH: op.outward,
            rows.X: x,
            linear.X_BYTES: row_bytes,
            heads.HEAD_BYTES: head_bytes,
            linear.MATRIX: Place("weight", name=op.weight),
            linear.N_PANELS: _panels(op.outward),
            linear.ROW_BYTES: form.type.row_bytes(op.inward),
            linear.GEMM: form.gemm,
        }
        scratch = table.PANELS + form.scratch_bytes(op.inward)
        if op.outward % LANES:
            product[heads.STAGE] = scratch = aligned(scratch)
            scratch += 4 * table.TOKEN_TILE * LANES * _panels(op.outward)
        self._scratch(scratch)
        self._emit(heads.head_linear, self.rows_of(op.out), product, prepare=heads.prepare_heads)

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
            route.BIAS: _vector(op.selection_bias),
            route.BIAS_LOGITS: int(op.router.bias_logits),
            route.GROUPS: op.router.groups,
            route.GROUPS_USED: op.router.groups_used,
            route.GROUP_BEST: op.router.group_best,
            route.BAND: op.router.band,
            route.EXPERT_SCALE: _vector(op.expert_scale),
        }
        self._emit(route.route, count, {**routing, **router}, cost=op.experts * (op.used + 16) // 8)
        y = self.expert_products(op, routing)
        sums: dict[int, Field] = {**routing, rows.X: y, rows.X_STRIDE: stride_of(op.out.width)}
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
        row = list(mixtures_of(self.plan)).index(index)
        return Place("loads", row * expert_counts(self.plan).strides[0])

    def expert_products(self, op: ops.Moe, routing: Mapping[int, Field]) -> Place:
        """The records that follow the choice of experts; where their results will be: float32 [pairs, stride]."""
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
            moe.GATE_BIAS: _vector(op.gate_bias),
            moe.UP_BIAS: _vector(op.up_bias),
            moe.ACTIVATE: _activation(op.kind),
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
            moe.GATE_BIAS: _vector(op.down_bias),
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

    # Attention.

    def _place_caches(self) -> list[tuple[int, int]]:
        """Offsets of the keys and of the values of every layer."""
        places, end = [], 0
        for cache in self.plan.caches:
            keys, values = (
                aligned(self.limits.blocks * cache.kv_heads * size)
                for size in attention.block_bytes(cache, self.limits)
            )
            places.append((end, end + keys))
            end += keys + values
        self.program.cache_bytes = end
        return places

    def _attend(self, op: ops.Attend) -> None:
        keys, values = self.caches[op.layer]
        common: dict[int, Field] = {
            attend.KEYS: Place("cache", keys),
            attend.VALUES: Place("cache", values),
            **attention.cache_fields(self.plan.caches[op.layer], self.limits),
        }
        stored: dict[int, Field] = {
            rows.X: self.place(op.k),
            rows.X_STRIDE: stride_of(op.k.width),
            rows.Y: self.place(op.v or op.k),
            rows.Y_STRIDE: stride_of((op.v or op.k).width),
            **attention.store_fields(self.plan.caches[op.layer], self.limits),
        }
        self._emit(attend.store, table.ROWS, {**common, **stored}, cost=op.k.width)
        self._scratch(attention.scratch_bytes(op))
        self.give(op)
        kept_bytes, division_bytes = attention.temporary_bytes(op, self.limits)
        fields: dict[int, Field] = {
            **common,
            **attention.merge_fields(op, self.limits),
            attend.SINKS: _vector(op.sinks),
            attend.SOFT_CAP: float(op.softcap or 0),
            rows.OUT: self.place(op.out),
            rows.OUT_STRIDE: stride_of(op.out.width),
            attend.KEPT_PARTS: self.take(kept_bytes),
            division.DIVISION: self.take(division_bytes),
        }
        multiplied: dict[int, Field] = {
            **attention.attend_fields(op, self.limits),
            rows.X: self.place(op.q),
            rows.X_STRIDE: stride_of(op.q.width),
        }
        self._emit(attend.attend, table.ROWS, {**fields, **multiplied}, prepare=division.prepare_attend)
        self._emit(attend.merge, table.ROWS, fields, prepare=attend.prepare_merge)

    # Recurrent states.

    def _place_states(self) -> list[int]:
        """The offset of slot 0 of every state."""
        sizes = [aligned(4 * self.limits.states * state.size) for state in self.plan.states]
        self.program.state_bytes = sum(sizes)
        return [sum(sizes[:i]) for i in range(len(sizes))]

    def _recur(self, run: Kernel, op: Recurrent, units: int, cost: int, own: Mapping[int, Field]) -> None:
        """A record of so many units a sequence, each of which costs so many nanoseconds a row."""
        self.give(op)
        fields: dict[int, Field] = {
            rows.X: self.place(op.x),
            rows.X_STRIDE: stride_of(op.x.width),
            rows.OUT: self.place(op.out),
            rows.OUT_STRIDE: stride_of(op.out.width),
            rows.WIDTH: op.out.width,
            recurrent.UNITS: units,
            recurrent.STATE: Place("state", self.states[op.state]),
            recurrent.STATE_SIZE: self.plan.states[op.state].size,
            **own,
        }
        self._emit(run, table.ROWS, fields, prepare=recurrent.prepare_runs, cost=cost)

    def _short_conv(self, op: ops.ShortConv) -> None:
        self.program.constants.append(lambda loaded: _transposed(loaded[op.weight], op.kernel))
        own: dict[int, Field] = {
            rows.WEIGHT: Place("constant", name=len(self.program.constants) - 1),
            recurrent.KERNEL: op.kernel,
            recurrent.BIAS: _vector(op.bias),
            recurrent.SILU: int(op.silu),
        }
        units = -(-op.out.width // recurrent.CHANNELS)
        self._recur(recurrent.short_conv, op, units, recurrent.CHANNELS * op.kernel // 16, own)

    def _delta_rule(self, op: ops.DeltaRule) -> None:
        self._scratch(4 * (2 * op.key_size + op.value_size))
        own: dict[int, Field] = {
            recurrent.A: self.place(op.a),
            recurrent.A_STRIDE: stride_of(op.a.width),
            recurrent.B: self.place(op.b),
            recurrent.B_STRIDE: stride_of(op.b.width),
            recurrent.DECAY: _vector(op.decay),
            recurrent.BIAS: _vector(op.bias),
            recurrent.KEY_HEADS: op.key_heads,
            recurrent.KEY_SIZE: op.key_size,
            recurrent.TILED: int(op.tiled),
        }
        self._recur(recurrent.delta_rule, op, op.heads, op.key_size * op.value_size // 4, own)

    def _scan(self, op: ops.Scan) -> None:
        self._scratch(4 * op.state_size)
        own: dict[int, Field] = {
            recurrent.T: self.place(op.t),
            recurrent.T_STRIDE: stride_of(op.t.width),
            recurrent.B: self.place(op.b),
            recurrent.B_STRIDE: stride_of(op.b.width),
            recurrent.C: self.place(op.c),
            recurrent.C_STRIDE: stride_of(op.c.width),
            recurrent.DECAY: _vector(op.decay),
            recurrent.BIAS: _vector(op.bias),
            recurrent.SKIP: _vector(op.skip),
            recurrent.GROUPS: op.groups,
            recurrent.DECAYS: op.decays,
            recurrent.LEAST: float(op.least),
            recurrent.NUMBERS: op.state_size,
        }
        self._recur(recurrent.scan, op, op.heads, 20 + op.size * op.state_size // 4, own)


def _expert_fields(name: str, form: Format, k: int, width: int, x: Field, x_bytes: int) -> dict[int, Field]:
    return {
        moe.GATE: Place("weight", name=name),
        moe.GATE_GEMM: form.gemm,
        moe.GATE_ROW_BYTES: form.type.row_bytes(k),
        moe.GATE_X: x,
        moe.GATE_X_BYTES: x_bytes,
        moe.K: k,
        moe.N_PANELS: _panels(width),
    }


def _vector(name: str | None) -> Field:
    """The address of floats, or 0."""
    return Place("weight", name=name) if name else 0


def _activation(kind: str) -> Kernel:
    if kind not in gates.ACTIVATIONS:
        raise UnsupportedError(f"activation '{kind}' is not supported by the cpu backend")
    return gates.ACTIVATIONS[kind]


def _row_gate(op: ops.GatedActivation) -> Kernel | None:
    return gates.ROW_GATES.get(op.kind) if op.gate.width == 1 else None


def _transposed(weight: Loaded, columns: int) -> NDArray[np.float32]:
    assert isinstance(weight, Vector)
    return np.ascontiguousarray(weight.data.reshape(-1, columns).T)


def _panels(width: int) -> int:
    return -(-width // LANES)


def _frequencies(op: ops.Rope, loaded: Mapping[str, Loaded]) -> NDArray[np.float64]:
    frequencies = np.array(op.frequencies, np.float64)
    if op.factors is not None:
        factors = loaded[op.factors]
        assert isinstance(factors, Vector)
        frequencies = frequencies / factors.data
    return frequencies
