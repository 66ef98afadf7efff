"""Plan → works: which kernels do each op, and where its values lie.

Additions are done by the matrix product before them, and quantized activations are made once for every value that some
matrix reads so: by the kernel that makes the value where it can, else by one of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgert_models import ops
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan
from edgert_quant.blocks import BlockType

from edgert_runtimes.base import Limits
from edgert_runtimes.cuda.attention import AttentionLowering
from edgert_runtimes.cuda.device import Cost, Launch
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.mixture import MixtureLowering
from edgert_runtimes.cuda.placing import codes_at
from edgert_runtimes.cuda.products import ProductLowering
from edgert_runtimes.cuda.program import Memory, Program, Shape
from edgert_runtimes.cuda.recurrence import RecurrentLowering


def lower(
    plan: Plan, types: Mapping[str, BlockType], slots: Mapping[int, int], limits: Limits, multiprocessors: int
) -> Program:
    """The program of a plan. `types` are those of the weights on the GPU, `slots` the numbers of slots of the pools of
    mixtures whose experts are not all there, by index in the plan. UnsupportedError names an op that has no kernel.
    """
    return _Lowering(plan, types, slots, limits, multiprocessors).run()


class _Lowering(ProductLowering, MixtureLowering, AttentionLowering, RecurrentLowering):
    def run(self) -> Program:
        program = self.program
        program.failed = self.arena.allocate(4 * len(self.plan.ops))[0]
        picked = False
        for index, op in enumerate(self.plan.ops):
            self.op = index
            if picked and not op.out.picked:
                raise UnsupportedError(f"op {type(op).__name__} of all rows after rows were picked is not supported")
            picked = op.out.picked
            match op:
                case ops.Embed():
                    self._embed(op)
                case ops.RmsNorm():
                    if not self.put_off(op):
                        self._rms_norm(op)
                case ops.LayerNorm():
                    self._layer_norm(op)
                case ops.Add():
                    self._add(op)
                case ops.Scale():
                    self._scale(op)
                case ops.PositionScale():
                    self._position_scale(op)
                case ops.SoftCap():
                    self._soft_cap(op)
                case ops.Clamp():
                    self._clamp(op)
                case ops.GatedActivation():
                    self._gate(op)
                case ops.Slice():
                    self._slice(op)
                case ops.Rope():
                    if not self.put_off(op):
                        self.rope(op)
                case ops.PickRows():
                    self._pick_rows(op)
                case ops.Linear():
                    self.linear(op)
                case ops.HeadLinear():
                    self.head_linear(op)
                case ops.Attend():
                    self.attend(op)
                case ops.ShortConv():
                    self.short_conv(op)
                case ops.DeltaRule():
                    self.delta_rule(op)
                case ops.Scan():
                    self.scan(op)
                case ops.Moe():
                    self.moe(op)
                case ops.LowRank():
                    self.low_rank(op)
                case _:
                    raise UnsupportedError(f"op {type(op).__name__} is not supported by the cuda backend")
            program.ends[op.out.id] = len(program.works)
            if op.out.id in self.spans:
                program.places[op.out.id] = self.spans[op.out.id][0]
            self.release(op)
        program.workspace_bytes = self.arena.size
        return program

    def _embed(self, op: ops.Embed) -> None:
        kernel, width, row_bytes = catalogue.embed(self.types[op.weight]), op.out.width, self.row_bytes(op.weight)
        self.give(op)
        y, label = self.place(op.out), self.label(op.weight)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            arguments = {"w": m.weights[op.weight], "tokens": m.inputs["tokens"], "y": m.workspace + y}
            return [Launch(kernel, Cost(label, s.rows * row_bytes), **arguments, rows=s.rows, width=width)]

        self.emit(op, launches)

    def _rms_norm(self, op: ops.RmsNorm) -> None:
        width, x, picked = op.out.width, self.place(op.x), op.out.picked
        self.give(op, (op.x,))
        y = self.place(op.out)
        grouped = op.groups > 1 or op.rest > 0
        codes = None if grouped else self.new_codes(op.out)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            rows = s.count(picked)
            common = {
                "x": m.workspace + x,
                "weight": m.weights[op.weight] if op.weight else 0,
                "y": m.workspace + y,
                "eps": op.eps,
            }
            if grouped:
                sizes = {"width": op.size, "rest": op.rest, "own": op.groups if op.own else 1}
                return [Launch(catalogue.rms_norm_groups(), **common, groups=rows * op.groups, **sizes)]
            written = codes_at(codes, m)
            return [Launch(catalogue.rms_norm(), **common, **written, add=0, sum=0, rows=rows, width=width)]

        self.emit(op, launches)

    def _layer_norm(self, op: ops.LayerNorm) -> None:
        width, x, picked = op.out.width, self.place(op.x), op.out.picked
        self.give(op, (op.x,))
        y, codes = self.place(op.out), self.new_codes(op.out)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            vectors = {"weight": m.weights[op.weight], "bias": m.weights[op.bias] if op.bias else 0}
            common = {"x": m.workspace + x, "y": m.workspace + y, "eps": op.eps, "rows": s.count(picked)}
            return [Launch(catalogue.layer_norm(), **common, **vectors, **codes_at(codes, m), width=width)]

        self.emit(op, launches)

    def _scale(self, op: ops.Scale) -> None:
        x, picked, width = self.place(op.x), op.out.picked, op.out.width
        self.give(op, (op.x,))
        y = self.place(op.out)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            weight = m.weights[op.weight] if op.weight else 0
            places = {"x": m.workspace + x, "weight": weight, "y": m.workspace + y}
            return [Launch(catalogue.scale(), **places, factor=op.factor, n=s.count(picked) * width)]

        self.emit(op, launches)

    def _soft_cap(self, op: ops.SoftCap) -> None:
        x, picked, width = self.place(op.x), op.out.picked, op.out.width
        self.give(op, (op.x,))
        y = self.place(op.out)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            places = {"x": m.workspace + x, "y": m.workspace + y}
            return [Launch(catalogue.soft_cap(), **places, cap=op.cap, n=s.count(picked) * width)]

        self.emit(op, launches)

    def _clamp(self, op: ops.Clamp) -> None:
        x, picked, width = self.place(op.x), op.out.picked, op.out.width
        self.give(op, (op.x,))
        y = self.place(op.out)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            places = {"x": m.workspace + x, "y": m.workspace + y}
            return [Launch(catalogue.clamp(), **places, limit=op.limit, n=s.count(picked) * width)]

        self.emit(op, launches)

    def _add(self, op: ops.Add) -> None:
        if op.out.id in self.spans:
            return  # the product before has done it
        a, b, picked, width = self.place(op.a), self.place(op.b), op.out.picked, op.out.width
        self.give(op, (op.a, op.b))
        y = self.place(op.out)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            w = m.workspace
            return [Launch(catalogue.add(), a=w + a, b=w + b, y=w + y, n=s.count(picked) * width)]

        self.emit(op, launches)

    def _gate(self, op: ops.GatedActivation) -> None:
        if op.kind not in (catalogue.ROW_GATES if op.parts else catalogue.GATES):
            raise UnsupportedError(f"activation '{op.kind}' is not supported by the cuda backend")
        gate, up, picked, width = self.place(op.gate), self.place(op.up), op.out.picked, op.out.width
        self.give(op, (op.up, op.gate))
        y = self.place(op.out)
        codes = None if op.parts else self.new_codes(op.out)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            rows, w = s.count(picked), m.workspace
            common = {"gate": w + gate, "up": w + up, "y": w + y}
            if op.parts:
                return [Launch(catalogue.gate_rows(op.kind), **common, rows=rows * op.parts, width=width // op.parts)]
            return [Launch(catalogue.gate(op.kind), **common, **codes_at(codes, m), n=rows * width)]

        self.emit(op, launches)

    def _slice(self, op: ops.Slice) -> None:
        x, picked, width, x_width = self.place(op.x), op.out.picked, op.out.width, op.x.width
        self.give(op)
        y = self.place(op.out)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            arguments = {"x": m.workspace + x, "y": m.workspace + y, "parts": s.count(picked) * op.groups}
            sizes = {"width": width // op.groups, "x_width": x_width // op.groups, "start": op.start}
            return [Launch(catalogue.slice_parts(), **arguments, **sizes)]

        self.emit(op, launches)

    def _position_scale(self, op: ops.PositionScale) -> None:
        x, picked = self.place(op.x), op.out.picked
        self.give(op, (op.x,))
        y = self.place(op.out)
        sizes = {"strength": op.strength, "length": op.length, "ahead": op.ahead, "width": op.out.width}

        def launches(s: Shape, m: Memory) -> list[Launch]:
            where = {"x": m.workspace + x, "positions": m.inputs["positions"], "y": m.workspace + y}
            return [Launch(catalogue.position_scale(), **where, **sizes, rows=s.count(picked))]

        self.emit(op, launches)

    def _pick_rows(self, op: ops.PickRows) -> None:
        x, width = self.place(op.x), op.out.width
        self.give(op)
        y = self.place(op.out)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            pick = m.inputs["pick"] + 4 * s.first_pick
            arguments = {"x": m.workspace + x, "pick": pick, "y": m.workspace + y}
            return [Launch(catalogue.pick_rows(), **arguments, picked=s.picked, width=width)]

        self.emit(op, launches)
