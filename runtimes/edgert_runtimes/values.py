"""Where the values of a plan lie in one workspace: each has a span, which is used again once nothing reads the value
any more. Element by element ops can take over the span of an input.
"""

from __future__ import annotations

from collections.abc import Callable

from edgert_models import ops
from edgert_models.graph import Plan
from edgert_models.ops import Value

from edgert_runtimes.memory import Arena

Span = tuple[int, int]


class Spans:
    """The spans of values, op after op: `op` is the index of the one that is lowered, `bytes_of` a value's size.

    `derived` are other forms of a value, by its id and a name, which go when it does. The plan's logits have no span
    where `logits` is false, nor what they are in place of (`elsewhere`): who lowers says where they go.
    """

    def __init__(self, plan: Plan, bytes_of: Callable[[Value], int], *, logits: bool) -> None:
        self.plan = plan
        self.op = 0
        self.arena = Arena()
        self.spans: dict[int, Span] = {}
        self.derived: dict[tuple[int, str], Span] = {}
        self.temporary: list[Span] = []
        self.last_use = {value.id: i for i, op in enumerate(plan.ops) for value in op.inputs}
        self._bytes_of = bytes_of
        self.elsewhere = set[int]() if logits else {plan.logits.id, *_capped(plan)}

    def dies(self, value: Value) -> bool:
        """Whether nothing reads a value after this op."""
        return self.last_use.get(value.id) == self.op and value.id != self.plan.hidden.id

    def give(self, op: ops.Op, reuse: tuple[Value, ...] = ()) -> None:
        """Give the result a span: that of an input of the same size that nothing reads later, or a new one."""
        out = op.out
        if out.id in self.elsewhere:
            return
        for value in reuse:
            alike = value.width == out.width and value.picked == out.picked
            if self.dies(value) and value.id in self.spans and alike and out.id != self.plan.hidden.id:
                self.spans[out.id] = self.spans.pop(value.id)
                return
        self.spans[out.id] = self.arena.allocate(self._bytes_of(out))

    def release(self, op: ops.Op) -> None:
        """Take back what nothing reads after an op."""
        for span in self.temporary:
            self.arena.release(span)
        self.temporary = []
        dead = {value.id for value in op.inputs if self.last_use[value.id] == self.op}
        if self.last_use.get(op.out.id) is None and op.out.id != self.plan.logits.id:
            dead.add(op.out.id)
        for key in [key for key in self.derived if key[0] in dead]:
            self.arena.release(self.derived.pop(key))
        for value in dead:
            if value in self.spans:
                self.arena.release(self.spans.pop(value))

    def hold(self, size: int) -> int:
        """The offset of memory that only this op uses."""
        span = self.arena.allocate(size)
        self.temporary.append(span)
        return span[0]


def _capped(plan: Plan) -> set[int]:
    """Logits before their soft cap, if they have one and nothing else reads them."""
    found = {op.x.id for op in plan.ops if isinstance(op, ops.SoftCap) and op.out == plan.logits}
    readers = [value.id for op in plan.ops for value in op.inputs]
    return {key for key in found if readers.count(key) == 1 and key != plan.hidden.id}
