"""The lowering of attention: keys and values go to the cache, and rows attend to it one by one or in tiles."""

from __future__ import annotations

from edgert_models import ops
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Cache, Plan
from edgert_quant.blocks import BlockType

from edgert_runtimes.base import Limits
from edgert_runtimes.cuda.device import Cost, Launch
from edgert_runtimes.cuda.heads import HeadsLowering
from edgert_runtimes.cuda.inputs import slots_of, tables_of
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.placing import codes_at
from edgert_runtimes.cuda.program import Memory, Shape
from edgert_runtimes.kv_types import KV_TYPES
from edgert_runtimes.memory import aligned

SINGLE_ROWS = 8
"""Rows that attend one by one whatever sequence they are of."""

BLOCKS_EACH = 2
"""Thread blocks for each multiprocessor that positions are divided for."""

SPLIT = 64
"""Positions that are worth a block of their own."""

LARGEST = 1024
"""The largest heads that a block of threads has room for."""


def cache_row_bytes(cache: Cache, limits: Limits) -> tuple[int, int]:
    """Keys and values of one position."""
    kind = KV_TYPES[limits.kv_type]
    return kind.row_bytes(cache.key_width), kind.row_bytes(cache.value_width)


def layer_bytes(cache: Cache, limits: Limits) -> tuple[int, int]:
    """Keys and values of a layer: its blocks, and one more for rows that only pad a batch."""
    slots = (limits.blocks_of(cache) + 1) * limits.block_size
    keys, values = (aligned(slots * size) for size in cache_row_bytes(cache, limits))
    return keys, values


def tiled(op: ops.Attend, kind: BlockType) -> bool:
    """Whether many rows can attend in tiles."""
    alike = op.v is not None and op.value_size == op.head_size
    return alike and catalogue.fits_tiles(kind, op.head_size, op.heads // op.kv_heads)


def tile_rows(plan: Plan, kind: BlockType) -> int:
    """Rows of a tile at most, in every layer that has tiles; 0 where none has."""
    groups = [op.heads // op.kv_heads for op in plan.ops if isinstance(op, ops.Attend) and tiled(op, kind)]
    return min(map(catalogue.tile_rows, groups), default=0)


def row_blocks(plan: Plan) -> int:
    """Thread blocks of a row that is not divided, in the layer that has fewest."""
    each = (
        op.heads // catalogue.heads_at_once(op.heads // op.kv_heads) for op in plan.ops if isinstance(op, ops.Attend)
    )
    return min(each, default=1)


def splits_for(rows: int, longest: int, blocks: int, multiprocessors: int) -> int:
    """Into how many parts, a power of two, to divide the positions of each row, which has so many `blocks`: every
    multiprocessor has some then.
    """
    wanted = min(BLOCKS_EACH * multiprocessors // max(1, rows * blocks), longest // SPLIT)
    return 1 << max(0, wanted.bit_length() - 1)


class AttentionLowering(HeadsLowering):
    """See `lower`."""

    def attend(self, op: ops.Attend) -> None:
        """Store, attend, and (where positions are divided) combine."""
        limits, kind = self.limits, KV_TYPES[self.limits.kv_type]
        cache, group = self.plan.caches[op.layer], op.heads // op.kv_heads
        for size in (op.head_size, op.value_size):
            if size % 8 or size > LARGEST:
                raise UnsupportedError(
                    f"layer {op.layer}: heads of {size} are not supported by the cuda backend, "
                    f"only multiples of 8 up to {LARGEST}"
                )
        keys = sum(sum(layer_bytes(before, limits)) for before in self.plan.caches[: op.layer])
        key_bytes, value_bytes = layer_bytes(cache, limits)
        values = keys if cache.shared else keys + key_bytes
        self.program.cache_bytes = max(self.program.cache_bytes, keys + key_bytes + value_bytes)
        self._store(op, kind, cache, keys, values)
        q = self.place(op.q)
        self.give(op)
        out = self.place(op.out)
        whole = op.value_size % 32 == 0  # blocks are of one head each
        codes = self.new_codes(op.out) if whole else None
        parts = BLOCKS_EACH * self.multiprocessors // row_blocks(self.plan)
        partial = self.hold(4 * parts * op.heads * (op.value_size + 2))

        def attend(s: Shape, m: Memory) -> list[Launch]:
            w, sinks = m.workspace, m.weights[op.sinks] if op.sinks else 0
            common: dict[str, int | float] = {
                "q": w + q,
                "keys": m.cache + keys,
                "values": m.cache + values,
                "tables": m.inputs[tables_of(cache, limits)],
                "sequence": m.inputs["sequence"],
                "positions": m.inputs["positions"],
                "sinks": sinks,
                "out": w + out,
                "kv_heads": op.kv_heads,
                "table_width": limits.table_width,
                "block_size": limits.block_size,
                "window": op.reach,
                "scale": op.scale,
                "softcap": op.softcap or 0.0,
            }
            cost, written = Cost(attend=op), codes_at(codes, m)
            if s.tiles and tiled(op, kind):
                kernel = catalogue.attend_tile(kind, op.head_size, group)
                found = [Launch(kernel, cost, **common, tiles=m.inputs["tiles"], count=s.tiles)]
                if codes is not None:
                    found.append(Launch(catalogue.quantize(), x=w + out, **written, blocks=s.rows * op.out.width // 32))
                return found
            kernel = catalogue.attend(kind, op.head_size, op.value_size, group)
            found = [Launch(kernel, cost, **common, **written, partial=w + partial, rows=s.rows, splits=s.splits)]
            if s.splits > 1:
                merged = {"partial": w + partial, "sinks": sinks, "out": w + out, **written, "heads": op.heads}
                found.append(Launch(catalogue.attend_combine(op.value_size), **merged, rows=s.rows, splits=s.splits))
            return found

        self.emit(op, attend)

    def _store(self, op: ops.Attend, kind: BlockType, cache: Cache, keys: int, values: int) -> None:
        """Keys and values into the cache, and before it what was put off; keys alone where they are values too."""
        if op.v is not None:
            self.heads(op, kind, keys, values)
            return
        k, widths = self.place(op.k), {"key_width": cache.key_width, "value_width": cache.value_width}

        def store(s: Shape, m: Memory) -> list[Launch]:
            where = {
                "slots": m.inputs[slots_of(cache, self.limits)],
                "keys": m.cache + keys,
                "values": m.cache + values,
            }
            w = m.workspace
            return [Launch(catalogue.store(kind), k=w + k, v=w + k, **where, rows=s.rows, **widths)]

        self.emit(op, store)
