"""Ops that read what went before: attention and recurrences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from edgert_models import ops
from edgert_models.graph import Plan
from edgert_quant.jit import Kernel
from numpy.typing import NDArray

from edgert_runtimes.base import Limits
from edgert_runtimes.cpu import attention
from edgert_runtimes.cpu.kernels import attend, delta, division, recurrent, rows, table
from edgert_runtimes.cpu.lowering.emitter import Emitter, vector
from edgert_runtimes.cpu.program import Field, Place
from edgert_runtimes.cpu.values import stride_of
from edgert_runtimes.cpu.weights import Layout, Loaded, Vector
from edgert_runtimes.memory import aligned

Recurrent = ops.ShortConv | ops.DeltaRule | ops.Scan


class Sequences(Emitter):
    """Their caches and states lie one after another."""

    def __init__(self, plan: Plan, layouts: Mapping[str, Layout], limits: Limits) -> None:
        super().__init__(plan, layouts, limits)
        self.caches = self._place_caches()
        self.states = self._place_states()

    def _place_caches(self) -> list[tuple[int, int]]:
        """Offsets of the keys and of the values of every layer."""
        places, end = [], 0
        for cache in self.plan.caches:
            keys, values = (
                aligned(self.limits.blocks_of(cache) * cache.kv_heads * size)
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
            attend.SINKS: vector(op.sinks),
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
            recurrent.BIAS: vector(op.bias),
            recurrent.SILU: int(op.silu),
        }
        units = -(-op.out.width // recurrent.CHANNELS)
        self._recur(recurrent.short_conv, op, units, recurrent.CHANNELS * op.kernel // 16, own)

    def _delta_rule(self, op: ops.DeltaRule) -> None:
        self._scratch(4 * recurrent.ROWS_AT_ONCE * ((2 if op.decays == 1 else 4) * op.key_size + delta.NUMBERS))
        k, v = op.k or op.x, op.v or op.x
        own: dict[int, Field] = {
            recurrent.A: self.place(op.a),
            recurrent.A_STRIDE: stride_of(op.a.width),
            recurrent.B: self.place(op.b),
            recurrent.B_STRIDE: stride_of(op.b.width),
            recurrent.DECAY: vector(op.decay),
            recurrent.BIAS: vector(op.bias),
            recurrent.KEY_HEADS: op.key_heads,
            recurrent.KEY_SIZE: op.key_size,
            recurrent.TILED: int(op.tiled),
            recurrent.DECAYS: op.decays,
            recurrent.FLOOR: float(op.floor),
            recurrent.K: self.place(k),
            recurrent.K_STRIDE: stride_of(k.width),
            recurrent.K_START: 0 if op.k else op.key_width,
            recurrent.V: self.place(v),
            recurrent.V_STRIDE: stride_of(v.width),
            recurrent.V_START: 0 if op.v else 2 * op.key_width,
        }
        self._recur(recurrent.delta_rule, op, op.heads, op.key_size * op.value_size // 8, own)

    def _scan(self, op: ops.Scan) -> None:
        self._scratch(4 * recurrent.ROWS_AT_ONCE * (1 + op.state_size))
        own: dict[int, Field] = {
            recurrent.T: self.place(op.t),
            recurrent.T_STRIDE: stride_of(op.t.width),
            recurrent.B: self.place(op.b),
            recurrent.B_STRIDE: stride_of(op.b.width),
            recurrent.C: self.place(op.c),
            recurrent.C_STRIDE: stride_of(op.c.width),
            recurrent.DECAY: vector(op.decay),
            recurrent.BIAS: vector(op.bias),
            recurrent.SKIP: vector(op.skip),
            recurrent.GROUPS: op.groups,
            recurrent.DECAYS: op.decays,
            recurrent.LEAST: float(op.least),
            recurrent.STATE_NUMBERS: op.state_size,
        }
        self._recur(recurrent.scan, op, op.heads, 20 + op.size * op.state_size // 8, own)


def _transposed(weight: Loaded, columns: int) -> NDArray[np.float32]:
    assert isinstance(weight, Vector)
    return np.ascontiguousarray(weight.data.reshape(-1, columns).T)
