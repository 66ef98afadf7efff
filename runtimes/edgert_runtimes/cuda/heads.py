"""The lowering of what is done to queries and keys before attention. Norms and ropes of heads are put off until then,
where nobody else looks at what they give: one kernel does all of them, and stores keys and values too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from edgert_models import ops
from edgert_models.errors import UnsupportedError
from edgert_models.rope import RopeLayout
from edgert_quant.blocks import BlockType

from edgert_runtimes.cuda.device import Launch
from edgert_runtimes.cuda.inputs import slots_of
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.placing import Lowering
from edgert_runtimes.cuda.program import Memory, Shape


@dataclass(frozen=True, slots=True)
class Rule:
    """What is still to be done to the heads of a value: a norm, then a rope, whose table is at this offset."""

    norm: ops.RmsNorm | None = None
    rope: ops.Rope | None = None
    table: int = 0

    def arguments(self, name: str, m: Memory) -> dict[str, int | float]:
        """As the kernel takes them."""
        norm, rope = self.norm, self.rope
        return {
            f"{name}_norm": m.weights[norm.weight] if norm and norm.weight else 0,
            f"{name}_eps": norm.eps if norm else -1.0,
            f"{name}_table": m.workspace + self.table if rope else 0,
            f"{name}_begin": rope.first if rope else 0,
            f"{name}_pairs": len(rope.frequencies) if rope else 0,
        }

    @property
    def interleaved(self) -> bool | None:
        """Whether pairs are neighbours; None where nothing turns."""
        return None if self.rope is None else self.rope.layout is RopeLayout.INTERLEAVED


class HeadsLowering(Lowering):
    """See `lower`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._rules: dict[int, Rule] = {}  # what was put off, by value

    def put_off(self, op: ops.RmsNorm | ops.Rope) -> bool:
        """Leave an op to the attention that its result is for, if that can do it; the value stays where it is."""
        if self._attention(op) is None or not self.dies(op.x) or op.x.id not in self.spans:
            return False
        rule = self._rules.pop(op.x.id, Rule())
        self._rules[op.out.id] = (
            replace(rule, norm=op) if isinstance(op, ops.RmsNorm) else replace(rule, rope=op, table=self._table(op))
        )
        self.spans[op.out.id] = self.spans.pop(op.x.id)
        return True

    def _attention(self, op: ops.RmsNorm | ops.Rope) -> ops.Attend | None:
        """The attention that can do it: it wants heads of its queries or its keys."""
        user = self.only_user(op.out)
        target, last = None if user is None else self.plan.ops[user], op.out
        if isinstance(op, ops.RmsNorm) and isinstance(target, ops.Rope):
            last, target = target.out, self._attention(target)
        if not isinstance(target, ops.Attend) or target.v is None or target.v == last or target.q == target.k:
            return None
        heads = target.heads if last == target.q else target.kv_heads
        alike = op.heads == heads if isinstance(op, ops.Rope) else (op.groups, op.rest, op.own) == (heads, 0, False)
        return target if alike else None

    def heads(self, op: ops.Attend, kind: BlockType, keys: int, values: int) -> None:
        """What was put off, and keys and values into the cache, at these offsets."""
        rules = {name: self._rules.pop(value.id, Rule()) for name, value in (("q", op.q), ("k", op.k))}
        layouts = {rule.interleaved for rule in rules.values()} - {None}
        if len(layouts) > 1:
            raise UnsupportedError(f"layer {op.layer}: queries and keys of different rope layouts are not supported")
        assert op.v is not None
        q, k, v = (self.place(value) for value in (op.q, op.k, op.v))
        slots = slots_of(self.plan.caches[op.layer], self.limits)
        sizes = {
            "heads": 0 if rules["q"] == Rule() else op.heads,
            "kv_heads": op.kv_heads,
            "head_size": op.head_size,
            "value_size": op.value_size,
            "interleaved": int(True in layouts),
        }

        def launches(s: Shape, m: Memory) -> list[Launch]:
            w, done = m.workspace, rules["q"].arguments("q", m) | rules["k"].arguments("k", m)
            where = {"slots": m.inputs[slots], "keys": m.cache + keys, "values": m.cache + values}
            kernel = catalogue.heads(kind, op.head_size, op.value_size)
            return [Launch(kernel, q=w + q, k=w + k, v=w + v, **where, **done, **sizes, rows=s.rows)]

        self.emit(op, launches)

    def rope(self, op: ops.Rope) -> None:
        """A launch of its own, where it is not put off."""
        pairs, picked = len(op.frequencies), op.out.picked
        table, x = self._table(op), self.place(op.x)
        self.give(op, (op.x,))
        y = self.place(op.out)
        kernel = catalogue.rope(op.layout)
        sizes = {"heads": op.heads, "head_size": op.head_size, "begin": op.first, "pairs": pairs}

        def launches(s: Shape, m: Memory) -> list[Launch]:
            w = m.workspace
            return [Launch(kernel, x=w + x, table=w + table, y=w + y, rows=s.count(picked), **sizes)]

        self.emit(op, launches)

    def _table(self, op: ops.Rope) -> int:
        """Cosines and sines of every row, which serve the whole step: no span of theirs is ever taken back."""
        key = (op.frequencies, op.factors, op.magnitude)
        if key not in self.angles:
            self.angles[key] = self._angles(op)
        return self.angles[key]

    def _angles(self, op: ops.Rope) -> int:
        pairs, number = len(op.frequencies), len(self.program.constants)
        table, _ = self.arena.allocate(8 * self.limits.rows * pairs)
        self.program.constants[number] = np.array(op.frequencies, np.float64)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            return [
                Launch(
                    catalogue.angles(),
                    positions=m.inputs["positions"],
                    frequencies=m.constants[number],
                    factors=m.weights[op.factors] if op.factors else 0,
                    table=m.workspace + table,
                    magnitude=op.magnitude,
                    rows=s.rows,
                    pairs=pairs,
                )
            ]

        self.emit(op, launches)
        return table
