"""Products with matrices."""

from __future__ import annotations

from edgert_models import ops

from edgert_runtimes.cpu.formats import LANES
from edgert_runtimes.cpu.kernels import adapters, heads, linear, rows, table
from edgert_runtimes.cpu.lowering.emitter import Emitter, panels, vector
from edgert_runtimes.cpu.program import Field, Place
from edgert_runtimes.cpu.values import stride_of
from edgert_runtimes.memory import aligned


class Products(Emitter):
    """Of rows, of heads, and with adapters of low rank."""

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
            linear.N_PANELS: panels(op.out.width),
            linear.ROW_BYTES: form.type.row_bytes(op.x.width),
            linear.K: op.x.width,
            linear.GEMM: form.gemm,
            linear.BIAS: vector(op.bias),
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
            linear.N_PANELS: panels(op.outward),
            linear.ROW_BYTES: form.type.row_bytes(op.inward),
            linear.GEMM: form.gemm,
        }
        scratch = table.PANELS + form.scratch_bytes(op.inward)
        if op.outward % LANES:
            product[heads.STAGE] = scratch = aligned(scratch)
            scratch += 4 * table.TOKEN_TILE * LANES * panels(op.outward)
        self._scratch(scratch)
        self._emit(heads.head_linear, self.rows_of(op.out), product, prepare=heads.prepare_heads)
