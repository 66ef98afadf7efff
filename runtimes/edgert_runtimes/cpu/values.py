"""Where values lie: spans of one workspace, which are reused once nothing reads a value any more."""

from __future__ import annotations

from edgert_models import ops
from edgert_models.graph import Plan
from edgert_models.ops import Value

from edgert_runtimes.base import Limits
from edgert_runtimes.cpu.formats import LANES
from edgert_runtimes.cpu.kernels import table
from edgert_runtimes.cpu.program import Place, ValuePlace
from edgert_runtimes.memory import Arena

Span = tuple[int, int]


def stride_of(width: int) -> int:
    """Floats from one row to the next: whole panels."""
    return -(-width // LANES) * LANES


class Values:
    """The values of a plan, op after op: `op` is the index of the one that is lowered."""

    def __init__(self, plan: Plan, limits: Limits) -> None:
        self.plan = plan
        self.limits = limits
        self.op = 0
        self.arena = Arena()
        self.spans: dict[int, Span] = {}
        self.activations: dict[tuple[int, str], Span] = {}
        self.temporary: list[Span] = []
        self.last_use = {value.id: i for i, op in enumerate(plan.ops) for value in op.inputs}

    def rows_of(self, value: Value) -> int:
        """The number of what counts its rows, in the state."""
        return table.PICKED if value.picked else table.ROWS

    def give_place(self, op: ops.Op, reuse: tuple[Value, ...] = ()) -> None:
        """Give the result a place: that of an input of the same size that nothing reads later, or a new one."""
        out = op.out
        if out.id == self.plan.logits.id:
            return  # steps say where
        for value in reuse:
            dies = self.last_use.get(value.id) == self.op and value.id in self.spans
            if dies and value.width == out.width and value.picked == out.picked and out.id != self.plan.hidden.id:
                self.spans[out.id] = self.spans.pop(value.id)
                return
        self.spans[out.id] = self.arena.allocate(4 * self.limits.rows * stride_of(out.width))

    def place(self, value: Value) -> ValuePlace:
        """Where a value is."""
        span = self.spans.get(value.id)
        return ValuePlace(value.id, None if span is None else Place("workspace", span[0]))

    def release(self, op: ops.Op) -> None:
        """Take back what nothing reads after an op."""
        for span in self.temporary:
            self.arena.release(span)
        self.temporary = []
        dead = {value.id for value in op.inputs if self.last_use[value.id] == self.op}
        if self.last_use.get(op.out.id) is None and op.out.id != self.plan.logits.id:
            dead.add(op.out.id)
        for key in [key for key in self.activations if key[0] in dead]:
            self.arena.release(self.activations.pop(key))
        for value in dead:
            if value in self.spans:
                self.arena.release(self.spans.pop(value))

    def take(self, size: int) -> Place:
        """Memory that only this op uses."""
        span = self.arena.allocate(size)
        self.temporary.append(span)
        return Place("workspace", span[0])
