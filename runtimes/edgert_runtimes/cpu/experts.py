"""Experts alone, for a backend that keeps others elsewhere (see `edgert_runtimes.experts`): the records that follow the
choice of experts in each mixture, with every pair of a row and an expert as a row of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from edgert_models import ops
from edgert_models.errors import BackendError
from edgert_models.graph import Plan
from edgert_models.ops import Value
from numpy.typing import NDArray

from edgert_runtimes.base import Float32, Int32, Limits
from edgert_runtimes.cpu import program as linking
from edgert_runtimes.cpu.executor import Executor
from edgert_runtimes.cpu.kernels import route, table
from edgert_runtimes.cpu.lowering.mixtures import Mixtures
from edgert_runtimes.cpu.program import Place, Program
from edgert_runtimes.cpu.values import stride_of
from edgert_runtimes.cpu.weights import Layout, Loaded
from edgert_runtimes.experts import mixtures_of
from edgert_runtimes.memory import allocate

PAIRS = 512
"""Pairs that are computed at once; more are computed piece by piece."""


def experts_plan(plan: Plan) -> tuple[Plan, dict[int, int]]:
    """The mixtures of a plan, each with inputs of its own and one expert a row; by index in `plan.ops`, where they are
    in it.
    """
    found = mixtures_of(plan)
    alone: list[ops.Op] = []
    for op in found.values():
        x, logits, out = (
            Value(3 * len(alone) + i, width) for i, width in enumerate((op.x.width, op.experts, op.out.width))
        )
        alone.append(replace(op, x=x, logits=logits, out=out, used=1))
    values = tuple(value for op in alone for value in (*op.inputs, op.out))
    names = [name for op in found.values() for name in weights_of(op)]
    weights = {name: plan.weights[name] for name in names}
    made = Plan(plan.spec, tuple(alone), values, weights, (), values[-1], values[-1])
    return made, {index: place for place, index in enumerate(found)}


def weights_of(op: ops.Moe) -> list[str]:
    """The names of its matrices and biases."""
    names = (op.gate, op.up, op.down, op.gate_bias, op.up_bias, op.down_bias)
    return list(dict.fromkeys(name for name in names if name is not None))


class ExpertLowering(Mixtures):
    """Mixtures whose experts are chosen already. `ends[i]` and `results[i]` are the number of records up to mixture i,
    and where it leaves what its experts give.
    """

    def __init__(self, plan: Plan, layouts: Mapping[str, Layout]) -> None:
        super().__init__(plan, layouts, Limits(context=1, rows=PAIRS, sequences=1, blocks=1))
        width = max(value.width for value in plan.values)
        self.x = self.arena.allocate(4 * PAIRS * stride_of(width))[0]
        self.ids = self.arena.allocate(4 * PAIRS)[0]
        self.ends: list[int] = []
        self.results: list[int] = []

    def run(self) -> Program:
        """All mixtures."""
        for index, op in enumerate(self.plan.ops):
            assert isinstance(op, ops.Moe)
            self.op = index
            self.spans[op.x.id] = (self.x, self.x)
            routing = {**self.routing(op), route.IDS: Place("workspace", self.ids)}
            self.results.append(self.expert_products(op, routing).offset)
            self.ends.append(len(self.program.records))
            del self.spans[op.x.id]
            self.release(op)
        self.program.workspace_bytes = self.arena.size
        return self.program


class CpuExperts:
    """See HostExperts."""

    def __init__(
        self,
        lowered: ExpertLowering,
        places: Mapping[int, int],
        loaded: Mapping[str, Loaded],
        threads: int,
    ) -> None:
        self._places = places
        self._ops = lowered.plan.ops
        self._lowered = lowered
        self._workspace = allocate(lowered.program.workspace_bytes)
        self._linked = linking.link(lowered.program, {"workspace": self._workspace.ctypes.data}, loaded, set())
        self._executor = Executor(threads, self._linked.words, lowered.program.scratch_bytes)
        memory = (self._workspace, self._linked, dict(loaded))
        self._finalizer = weakref.finalize(self, _stop, self._executor, memory)

    def compute(self, op: int, x: Float32, ids: Int32) -> Float32:
        """See HostExperts."""
        if not self._finalizer.alive:
            raise BackendError("the experts are closed")
        self._executor.check_process()
        out = np.empty((len(ids), self._ops[self._places[op]].out.width), np.float32)
        for start in range(0, len(ids), PAIRS):
            piece = slice(start, start + PAIRS)
            out[piece] = self._compute(self._places[op], x[piece], ids[piece])
        return out

    def _compute(self, place: int, x: Float32, ids: Int32) -> Float32:
        op, state = self._ops[place], self._executor.state
        first = self._lowered.ends[place - 1] if place else 0
        self._floats(self._lowered.x, len(ids), x.shape[1])[:] = x
        self._workspace[self._lowered.ids :].view(np.int32)[: len(ids)] = ids
        state[table.ROWS] = len(ids)
        state[table.TABLE] = self._linked.words[first:].ctypes.data
        self._executor.run(self._lowered.ends[place] - first)
        return self._floats(self._lowered.results[place], len(ids), op.out.width)

    def _floats(self, offset: int, rows: int, width: int) -> NDArray[np.float32]:
        """Rows of the workspace."""
        stride = stride_of(width)
        return self._workspace[offset:].view(np.float32)[: rows * stride].reshape(rows, stride)[:, :width]

    def close(self) -> None:
        """See HostExperts."""
        self._finalizer()


def _stop(running: Executor, memory: object) -> None:
    """Stop the threads; `memory` is what they may still touch until then."""
    running.close()
