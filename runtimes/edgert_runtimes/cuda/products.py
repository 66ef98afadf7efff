"""The lowering of products with matrices: of rows, of heads, and with adapters of low rank."""

from __future__ import annotations

from edgert_models import ops
from edgert_models.errors import UnsupportedError

from edgert_runtimes.cuda.device import Cost, Launch
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.placing import Lowering, codes_at
from edgert_runtimes.cuda.program import Memory, Shape


class ProductLowering(Lowering):
    """See `lower`."""

    def linear(self, op: ops.Linear) -> None:
        """By one kernel for few rows, by another for many; what is added to the result is added by them."""
        if op.out.id in self.spans:
            return  # done with the one before
        if len(several := self._beside(op)) > 1:
            self._linear_several(several)
            return
        kind, picked, width, k = self.types[op.weight], op.out.picked, op.out.width, op.x.width
        codes = self.codes(op.x) if catalogue.reads_codes(kind) else None
        added = self.fuse(op)
        if added is None:
            self.give(op)
        x, y, add = self.place(op.x), self.place(op.out if added is None else added[0]), added and added[1]
        size, label = width * self.row_bytes(op.weight), self.label(op.weight)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            rows, w = s.count(picked), m.workspace
            arguments = {
                "w": m.weights[op.weight],
                "x": w + x,
                **codes_at(codes, m),
                "bias": m.weights[op.bias] if op.bias else 0,
                "add": 0 if add is None else w + add,
                "y": w + y,
                "out": width,
                "k": k,
            }
            cost = Cost(label, size, rows * width * k)
            if rows in catalogue.COLUMNS:
                return [Launch(catalogue.linear(kind, rows), cost, **arguments)]
            return [Launch(catalogue.gemm(kind), cost, **arguments, rows=rows)]

        self.emit(op, launches)

    def _beside(self, op: ops.Linear) -> list[ops.Linear]:
        """The op, and those right after it that multiply the same rows; three at most, and nothing to be added."""
        found: list[ops.Linear] = []
        for other in self.plan.ops[self.op : self.op + 3]:
            user = self.only_user(other.out)
            if not isinstance(other, ops.Linear) or other.x != op.x or other.out.picked or other.out.id in self.spans:
                break
            if user is not None and isinstance(self.plan.ops[user], ops.Add):
                break
            found.append(other)
        return found

    def _linear_several(self, several: list[ops.Linear]) -> None:
        """One kernel for few rows; several for many, each of which has enough to do."""
        x, k, kinds = self.place(several[0].x), several[0].x.width, [self.types[op.weight] for op in several]
        codes = self.codes(several[0].x) if any(map(catalogue.reads_codes, kinds)) else None
        for op in several:
            self.give(op)
        places, sizes = [self.place(op.out) for op in several], [op.out.width for op in several]
        read = [op.out.width * self.row_bytes(op.weight) for op in several]
        labels, label = [self.label(op.weight) for op in several], self.label(*(op.weight for op in several))

        def launches(s: Shape, m: Memory) -> list[Launch]:
            w, rows = m.workspace, s.rows
            inputs = {"x": w + x, **codes_at(codes, m), "k": k}
            weights = [m.weights[op.weight] for op in several]
            biases = [m.weights[op.bias] if op.bias else 0 for op in several]
            if rows in catalogue.COLUMNS:
                named: dict[str, int] = {f"{name}{i}": 0 for name in ("w", "bias", "y", "out") for i in range(3)}
                for i, (weight, bias, y, out) in enumerate(zip(weights, biases, places, sizes, strict=True)):
                    named |= {f"w{i}": weight, f"bias{i}": bias, f"y{i}": w + y, f"out{i}": out}
                kernel = catalogue.linear_several(tuple(kinds), rows)
                return [Launch(kernel, Cost(label, sum(read), rows * sum(sizes) * k), **inputs, **named)]
            found = []
            for i, kind in enumerate(kinds):
                given = {
                    "w": weights[i],
                    "bias": biases[i],
                    "add": 0,
                    "y": w + places[i],
                    "out": sizes[i],
                    "rows": rows,
                }
                cost = Cost(labels[i], read[i], rows * sizes[i] * k)
                found.append(Launch(catalogue.gemm(kind), cost, **inputs, **given))
            return found

        self.emit(several[0], launches)

    def head_linear(self, op: ops.HeadLinear) -> None:
        """The same head by head; UnsupportedError for heads that cannot be read four elements at a time."""
        head = op.inward + op.rest
        if head % 4:
            raise UnsupportedError(
                f"tensor {op.weight}: heads of {head} elements are not supported by the cuda backend, "
                "only multiples of 4"
            )
        kind, picked = self.types[op.weight], op.out.picked
        codes = self.codes(op.x) if catalogue.reads_codes(kind) else None
        self.give(op)
        x, y, label = self.place(op.x), self.place(op.out), self.label(op.weight)
        size = op.heads * op.outward * self.row_bytes(op.weight)
        shape = {"heads": op.heads, "out": op.outward, "k": op.inward, "rest": op.rest}

        def launches(s: Shape, m: Memory) -> list[Launch]:
            rows, w = s.count(picked), m.workspace
            arguments = {"w": m.weights[op.weight], "x": w + x, **codes_at(codes, m), "y": w + y, **shape}
            cost = Cost(label, size, rows * op.heads * op.outward * op.inward)
            if rows in catalogue.COLUMNS:
                found = [Launch(catalogue.head_linear(kind, rows), cost, **arguments)]
            else:
                found = [Launch(catalogue.head_gemm(kind), cost, **arguments, rows=rows)]
            if op.rest:
                sizes = {"inward": op.inward, "outward": op.outward, "rest": op.rest}
                found.append(Launch(catalogue.copy_rest(), x=w + x, y=w + y, heads=rows * op.heads, **sizes))
            return found

        self.emit(op, launches)

    def low_rank(self, op: ops.LowRank) -> None:
        """Each row's own adapter, in two steps."""
        inner, x, y = self.hold(4 * self.capacity(op.out) * op.rank), self.place(op.x), self.place(op.y)
        self.give(op, (op.y,))
        out, picked = self.place(op.out), op.out.picked

        def launches(s: Shape, m: Memory) -> list[Launch]:
            w, rows = m.workspace, {"rows": s.count(picked), "rank": op.rank}
            pick = m.inputs["pick"] + 4 * s.first_pick if picked else 0
            common = {"adapters": m.inputs["adapters"], "pick": pick, "inner": w + inner, **rows}
            inward = Launch(catalogue.low_rank_inward(), **common, x=w + x, a=m.weights[op.a], k=op.x.width)
            given = {"b": m.weights[op.b], "y": w + y, "out": w + out, "width": op.out.width}
            return [inward, Launch(catalogue.low_rank_outward(), **common, **given)]

        self.emit(op, launches)
