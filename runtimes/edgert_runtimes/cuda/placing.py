"""Where values and their quantized forms lie, and what lowering shares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgert_models import ops
from edgert_models.graph import Plan
from edgert_models.ops import Value
from edgert_quant.blocks import BlockType

from edgert_runtimes.base import Limits
from edgert_runtimes.cuda.device import Launch
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.program import Exchange, Launches, Memory, Program, Shape, Work
from edgert_runtimes.memory import aligned
from edgert_runtimes.values import Spans

MOST_LOGITS = 1 << 24
"""Numbers that the logits of one piece of picked rows have at most, but for few rows: 64 MiB."""

FEW_ROWS = 64
"""Rows whose logits are always made at once."""


def most_picked(limits: Limits, vocabulary: int) -> int:
    """Rows that are picked in one piece: all of a decode step, and what has room of an evaluation."""
    return min(limits.rows, max(FEW_ROWS, limits.sequences, MOST_LOGITS // vocabulary))


@dataclass(frozen=True, slots=True)
class Codes:
    """Offsets in the workspace of a value's blocks of quantized activations."""

    codes: int
    scales: int


class Lowering(Spans):
    """What the ops' lowerings share."""

    def __init__(
        self,
        plan: Plan,
        types: Mapping[str, BlockType],
        slots: Mapping[int, int],
        limits: Limits,
        multiprocessors: int,
    ) -> None:
        super().__init__(plan, lambda value: 4 * self.capacity(value) * value.width, logits=True)
        self.types = types
        self.slots = slots
        self.limits = limits
        self.multiprocessors = multiprocessors
        self.program = Program()
        self.angles: dict[tuple[Any, ...], int] = {}
        self._users = defaultdict[int, list[int]](list)  # ops that read a value, by its id
        for index, op in enumerate(plan.ops):
            for key in {value.id for value in op.inputs}:
                self._users[key].append(index)
        self._picked = most_picked(limits, plan.spec.vocabulary)
        for op in plan.ops:
            if op.out.picked:  # picked rows may come piece by piece: what they are picked from must stay
                self.last_use |= {value.id: len(plan.ops) for value in op.inputs if not value.picked}

    def capacity(self, value: Value) -> int:
        """Rows that a value has at most."""
        return self._picked if value.picked else self.limits.rows

    def place(self, value: Value) -> int:
        """Its offset in the workspace."""
        return self.spans[value.id][0]

    def row_bytes(self, weight: str) -> int:
        """Bytes of a row of a weight."""
        return self.types[weight].row_bytes(self.plan.weights[weight].shape[-1])

    def emit(
        self,
        op: ops.Op,
        launches: Launches,
        *,
        before: Exchange | None = None,
        needs: Exchange | None = None,
        ids: int | None = None,
    ) -> None:
        """Add a work to the program."""
        self.program.works.append(Work(self.op, op.out.picked, launches, before, needs, ids))

    def label(self, *weights: str) -> str:
        """Names of weights without their layers, and their types."""
        names = [name.removesuffix(".weight").partition(".")[2].partition(".")[2] or name for name in weights]
        return " ".join([*dict.fromkeys(names), *dict.fromkeys(self.types[name].name for name in weights)])

    def new_codes(self, value: Value) -> Codes | None:
        """Room for a value's blocks, if some matrix reads them: whoever asks fills them."""
        users = (self.plan.ops[index] for index in self._users[value.id])
        reads = (weight for op in users for weight in _multiplied(op, value))
        return self._take_codes(value) if any(catalogue.reads_codes(self.types[name]) for name in reads) else None

    def codes(self, value: Value) -> Codes:
        """A value's blocks, made now unless they are there."""
        if (value.id, "codes") in self.derived:
            return codes_from(self.derived[value.id, "codes"][0], self.capacity(value), value.width)
        codes, x = self._take_codes(value), self.place(value)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            blocks, w = s.count(value.picked) * value.width // 32, m.workspace
            arguments = {"x": w + x, "codes": w + codes.codes, "scales": w + codes.scales}
            return [Launch(catalogue.quantize(), **arguments, blocks=blocks)]

        self.program.works.append(Work(self.op, value.picked, launches))
        return codes

    def _take_codes(self, value: Value) -> Codes:
        span = self.arena.allocate(codes_bytes(self.capacity(value), value.width))
        self.derived[value.id, "codes"] = span
        return codes_from(span[0], self.capacity(value), value.width)

    def only_user(self, value: Value) -> int | None:
        """The op that is the only one to read a value, if nobody else wants it either."""
        users = self._users[value.id]
        return users[0] if len(users) == 1 and value.id not in (self.plan.hidden.id, self.plan.logits.id) else None

    def fuse(self, op: ops.Op) -> tuple[Value, int] | None:
        """Where all that becomes of a result is that it is added to a value that is there already: the sum, which gets
        its place now, and where that value is.
        """
        user = self.only_user(op.out)
        addition = None if user is None else self.plan.ops[user]
        if user is None or not isinstance(addition, ops.Add) or addition.a == addition.b:
            return None
        other = addition.b if addition.a == op.out else addition.a
        if other.id not in self.spans or addition.out.id in self.spans or other.picked != op.out.picked:
            return None
        between = any(other in user.inputs for user in self.plan.ops[self.op : user])
        place, current = self.place(other), self.op
        self.op = user
        self.give(addition, () if between else (other,))
        self.op = current
        return addition.out, place


def codes_bytes(rows: int, width: int) -> int:
    """Of blocks of quantized activations: a byte for each, and a float4 for 32."""
    return aligned(rows * width) + rows * width // 2


def codes_from(start: int, rows: int, width: int) -> Codes:
    """Where they are in such memory."""
    return Codes(start, start + aligned(rows * width))


def codes_at(codes: Codes | None, m: Memory) -> dict[str, int]:
    """The arguments of kernels that read or write them, null where there are none."""
    if codes is None:
        return {"codes": 0, "scales": 0}
    return {"codes": m.workspace + codes.codes, "scales": m.workspace + codes.scales}


def _multiplied(op: ops.Op, value: Value) -> tuple[str, ...]:
    """The matrices that an op multiplies a value with."""
    if isinstance(op, ops.Linear | ops.HeadLinear):
        return (op.weight,)
    return (op.gate, op.up) if isinstance(op, ops.Moe) and value == op.x else ()
