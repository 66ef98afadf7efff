"""The lowering of mixtures of experts: for few rows each pair of a row and an expert by itself, for many rows sorted by
expert and multiplied in tiles. Where not all experts are on the GPU, the host takes part: see `offload`.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgert_models import ops
from edgert_models.errors import UnsupportedError

from edgert_runtimes.cuda.device import Cost, Launch
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.placing import Codes, Lowering, codes_at, codes_bytes, codes_from
from edgert_runtimes.cuda.program import Exchange, Memory, Shape
from edgert_runtimes.experts import load_offset

FEW = max(catalogue.COLUMNS)
"""Rows whose pairs are done one by one."""


@dataclass(frozen=True)
class _Places:
    """Offsets in the workspace of one mixture: what it reads and writes, and what lies between. Its experts are the
    `count` of its tensors or pools.
    """

    x: int
    x_codes: Codes | None
    ids: int
    shares: int
    h: int
    h_codes: Codes | None
    up: int
    pairs: int
    order: int
    tiles: int
    counts: int
    add: int | None
    out: int
    count: int


class MixtureLowering(Lowering):
    """See `lower`."""

    def moe(self, op: ops.Moe) -> None:
        """Route, and what the experts give to each row."""
        if op.kind not in catalogue.ACTIVATIONS:
            raise UnsupportedError(f"activation '{op.kind}' is not supported by the cuda backend")
        pairs = self.limits.rows * op.used
        ids, shares = self.hold(4 * pairs), self.hold(4 * pairs)
        self._route(op, ids, shares)
        exchange = self._exchange(op, ids, shares) if self.op in self.slots else None
        if exchange is not None:
            ids, shares = exchange.slot_ids, exchange.slot_shares
        count = self.slots.get(self.op, op.experts)
        codes = any(catalogue.reads_codes(self.types[name]) for name in (op.gate, op.up))
        x_codes = self.codes(op.x) if codes else None
        reads = catalogue.reads_codes(self.types[op.down])
        h_codes = codes_from(self.hold(codes_bytes(pairs, op.hidden)), pairs, op.hidden) if reads else None
        added = self.fuse(op)
        if added is None:
            self.give(op)
        places = _Places(
            x=self.place(op.x),
            x_codes=x_codes,
            ids=ids,
            shares=shares,
            h=self.hold(4 * pairs * op.hidden),
            h_codes=h_codes,
            up=self.hold(4 * pairs * op.hidden),
            pairs=self.hold(4 * pairs * op.out.width),
            order=self.hold(4 * pairs),
            tiles=self.hold(16 * catalogue.most_tiles(pairs, count)),
            counts=self.hold(4 * count),
            add=added and added[1],
            out=self.place(op.out if added is None else added[0]),
            count=count,
        )

        def launches(s: Shape, m: Memory) -> list[Launch]:
            return self._one_by_one(op, places, s, m) if s.rows <= FEW else self._sorted(op, places, s, m)

        chosen = ids if exchange is None else exchange.ids
        self.emit(op, launches, before=exchange, ids=chosen)
        if exchange is not None:
            self._add_sums(op, exchange, places.out)

    def _route(self, op: ops.Moe, ids: int, shares: int) -> None:
        logits, failed, router = self.place(op.logits), self.program.failed + 4 * self.op, op.router
        if router.limited and router.groups > catalogue.MOST_GROUPS:
            raise UnsupportedError(
                f"{op.gate}: {router.groups} groups of experts are not supported by the cuda backend"
            )
        load = load_offset(self.plan, self.op)
        rule: dict[str, int | float] = {
            "bias_logits": int(router.bias_logits),
            "sigmoid": int(router.scoring == "sigmoid"),
            "normalize": int(router.normalize),
            "groups": router.groups,
            "groups_used": router.groups_used,
            "group_best": router.group_best,
            "epsilon": router.epsilon,
            "scale": router.scale,
            "band": router.band,
        }

        def launches(s: Shape, m: Memory) -> list[Launch]:
            w = m.workspace
            results = {"ids": w + ids, "shares": w + shares, "failed": w + failed}
            bias = m.weights[op.selection_bias] if op.selection_bias else 0
            sizes = {"rows": s.rows, "experts": op.experts, "used": op.used}
            scale = m.weights[op.expert_scale] if op.expert_scale else 0
            vectors = {"bias": bias, "expert_scale": scale, "real": m.inputs["count"], "load": m.loads + load}
            return [Launch(catalogue.route(), logits=w + logits, **results, **vectors, **sizes, **rule)]

        self.emit(op, launches)

    def _exchange(self, op: ops.Moe, ids: int, shares: int) -> Exchange:
        pairs = self.limits.rows * op.used
        return Exchange(
            op=self.op,
            x=self.place(op.x),
            ids=ids,
            shares=shares,
            slot_ids=self.hold(4 * pairs),
            slot_shares=self.hold(4 * pairs),
            sums=self.hold(4 * self.limits.rows * op.out.width),
        )

    def _add_sums(self, op: ops.Moe, exchange: Exchange, out: int) -> None:
        width = op.out.width

        def launches(s: Shape, m: Memory) -> list[Launch]:
            w = m.workspace
            return [Launch(catalogue.add(), a=w + out, b=w + exchange.sums, y=w + out, n=s.rows * width)]

        self.emit(op, launches, needs=exchange)

    def _one_by_one(self, op: ops.Moe, p: _Places, s: Shape, m: Memory) -> list[Launch]:
        w = m.workspace
        up = catalogue.experts_up(self.types[op.gate], self.types[op.up], op.kind)
        h = codes_at(p.h_codes, m)
        inward = Launch(
            up,
            self._cost(s.rows * op.used, op.gate, op.up),
            gate=m.weights[op.gate],
            up=m.weights[op.up],
            x=w + p.x,
            **codes_at(p.x_codes, m),
            ids=w + p.ids,
            weights=w + p.shares if op.router.weighs_inputs else 0,
            gate_bias=m.weights[op.gate_bias] if op.gate_bias else 0,
            up_bias=m.weights[op.up_bias] if op.up_bias else 0,
            h=w + p.h,
            h_codes=h["codes"],
            h_scales=h["scales"],
            rows=s.rows,
            used=op.used,
            hidden=op.hidden,
            k=op.x.width,
        )
        outward = Launch(
            catalogue.experts_down(self.types[op.down]),
            self._cost(s.rows * op.used, op.down),
            w=m.weights[op.down],
            x=w + p.h,
            **h,
            ids=w + p.ids,
            shares=0 if op.router.weighs_inputs else w + p.shares,
            bias=m.weights[op.down_bias] if op.down_bias else 0,
            add=0 if p.add is None else w + p.add,
            y=w + p.out,
            rows=s.rows,
            used=op.used,
            out=op.out.width,
            k=op.hidden,
        )
        return [inward, outward]

    def _sorted(self, op: ops.Moe, p: _Places, s: Shape, m: Memory) -> list[Launch]:
        w, pairs = m.workspace, s.rows * op.used
        most = catalogue.most_tiles(pairs, p.count)
        ids, counts, order, tiles = w + p.ids, w + p.counts, w + p.order, w + p.tiles
        sizes = {"pairs": pairs, "experts": p.count}

        def product(name: str, bias: str | None, x: int, codes: Codes | None, y: int, divisor: int) -> Launch:
            out, k = self.plan.weights[name].shape[1:]
            return Launch(
                catalogue.experts_gemm(self.types[name]),
                self._cost(pairs, name),
                w=m.weights[name],
                x=w + x,
                **codes_at(codes, m),
                order=order,
                tiles=tiles,
                bias=m.weights[bias] if bias else 0,
                y=w + y,
                most_tiles=most,
                divisor=divisor,
                out=out,
                k=k,
            )

        inward = op.router.weighs_inputs
        weights = {"factors": w + p.shares, "rows": pairs, "width": op.hidden}
        weighed = [Launch(catalogue.scale_rows(), x=w + x, **weights) for x in (p.h, p.up)] if inward else []
        inner = {"gate": w + p.h, "up": w + p.up, "y": w + p.h, **codes_at(p.h_codes, m), "n": pairs * op.hidden}
        summed = {"x": w + p.pairs, "shares": w + p.shares, "add": 0 if p.add is None else w + p.add, "y": w + p.out}
        return [
            Launch(catalogue.expert_counts(), ids=ids, counts=counts, **sizes),
            Launch(
                catalogue.expert_order(), ids=ids, counts=counts, order=order, tiles=tiles, most_tiles=most, **sizes
            ),
            product(op.gate, op.gate_bias, p.x, p.x_codes, p.h, op.used),
            product(op.up, op.up_bias, p.x, p.x_codes, p.up, op.used),
            *weighed,
            Launch(catalogue.gate(op.kind), **inner),
            product(op.down, op.down_bias, p.h, p.h_codes, p.pairs, 1),
            Launch(catalogue.combine(), **summed, rows=s.rows, used=op.used, width=op.out.width, weighed=int(inward)),
        ]

    def _cost(self, pairs: int, *names: str) -> Cost:
        """Of the products of pairs with some of the matrices."""
        shapes = [self.plan.weights[name].shape for name in names]
        return Cost(
            self.label(*names),
            products=sum(pairs * shape[1] * shape[2] for shape in shapes),
            expert_bytes=sum(shape[1] * self.row_bytes(name) for name, shape in zip(names, shapes, strict=True)),
        )
