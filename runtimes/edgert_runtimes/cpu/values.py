"""Where values lie, as records say it."""

from __future__ import annotations

from edgert_models.graph import Plan
from edgert_models.ops import Value

from edgert_runtimes.base import Limits
from edgert_runtimes.cpu.formats import LANES
from edgert_runtimes.cpu.kernels import table
from edgert_runtimes.cpu.program import Place, ValuePlace
from edgert_runtimes.values import Spans


def stride_of(width: int) -> int:
    """Floats from one row to the next: whole panels."""
    return -(-width // LANES) * LANES


class Values(Spans):
    """The values of a plan, in the workspace; steps say where the logits go."""

    def __init__(self, plan: Plan, limits: Limits) -> None:
        super().__init__(plan, lambda value: 4 * limits.rows * stride_of(value.width), logits=False)
        self.limits = limits

    def rows_of(self, value: Value) -> int:
        """The number of what counts its rows, in the state."""
        return table.PICKED if value.picked else table.ROWS

    def place(self, value: Value) -> ValuePlace:
        """Where a value is."""
        span = self.spans.get(value.id)
        moved = self.plan.logits.id if value.id in self.elsewhere else value.id
        return ValuePlace(moved, None if span is None else Place("workspace", span[0]))

    def take(self, size: int) -> Place:
        """Memory that only this op uses."""
        return Place("workspace", self.hold(size))
