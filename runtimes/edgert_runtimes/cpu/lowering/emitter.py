"""What every op is lowered with."""

from __future__ import annotations

from collections.abc import Mapping

from edgert_models import ops
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan
from edgert_models.ops import Value
from edgert_quant.jit import Kernel

from edgert_runtimes.base import Limits
from edgert_runtimes.cpu.formats import LANES, Activation
from edgert_runtimes.cpu.kernels import gates, rows
from edgert_runtimes.cpu.program import Field, Place, Program, Record
from edgert_runtimes.cpu.values import Values, stride_of
from edgert_runtimes.cpu.weights import Layout
from edgert_runtimes.memory import aligned


class Emitter(Values):
    """Emits records for the op whose number is `op`."""

    def __init__(self, plan: Plan, layouts: Mapping[str, Layout], limits: Limits) -> None:
        super().__init__(plan, limits)
        self.layouts = layouts
        self.program = Program()
        self.op = 0

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


def vector(name: str | None) -> Field:
    """The address of floats, or 0."""
    return Place("weight", name=name) if name else 0


def gate_kernel(kind: str, parts: int = 0) -> Kernel:
    """The kernel of an activation, or of parts of a row that have one gate each; UnsupportedError if there is none."""
    kernels = gates.ROW_GATES if parts else gates.ACTIVATIONS
    if kind not in kernels:
        raise UnsupportedError(f"activation '{kind}' is not supported by the cpu backend")
    return kernels[kind]


def panels(width: int) -> int:
    """Panels of so many rows of a matrix."""
    return -(-width // LANES)
