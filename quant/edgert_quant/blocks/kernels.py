"""The compiled quantizers: one kernel per type, with and without importance.

All share their parameters. `x`: address of the weights, float32, `blocks` whole blocks one after another. `w`: address
of their importance, float32, above 0 (ignored by the kernels without it); it repeats every `period` blocks, so that one
row of importance serves every row of a matrix. `out`: address of the bytes.

The result is 0, or a sum of `NOT_FINITE` (a weight is infinite or NaN) and `TOO_LARGE` (a scale is beyond half
precision); the bytes are then of no use.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from edgert_quant.blocks.lanes import COUNT, I32, I64, Lanes, Value, Variable, allocate, count, splat, vector
from edgert_quant.blocks.methods import RECIPES, Recipe
from edgert_quant.blocks.search import INFINITY, new_tile, read_transposed
from edgert_quant.blocks.types import BlockType
from edgert_quant.jit import Kernel, ir_kernel

NOT_FINITE = 1
TOO_LARGE = 2
LARGEST_HALF = 65504.0
LARGEST_WEIGHT = 1e12
"""Far beyond what any type holds, and small enough for sums of its squares in float32."""


@dataclass
class Arguments:
    """The kernel's parameters."""

    x: Value
    w: Value
    period: Value
    blocks: Value
    out: Value


def tiles(b: ir.IRBuilder, kind: BlockType, length: int, weighted: bool, given: Arguments, recipe: Recipe) -> Value:
    """Quantize all blocks, sixteen groups of `length` weights at a time; the kernel's result.

    At the end lanes without a block repeat the last block: they write the same bytes to the same place.
    """

    def number(value: int) -> Value:
        return ir.Constant(I64, value)

    groups = kind.block_size // length  # per block
    per_tile = COUNT // groups  # blocks
    tile = new_tile(b, length, weighted)
    sources, importance = allocate(b, I64, COUNT), allocate(b, I64, COUNT)
    targets, next_column = allocate(b, I64, per_tile), allocate(b, I64)
    b.store(number(0), next_column)
    largest = Variable(b, Lanes(b, ir.Constant(vector(I32), [0] * COUNT)))
    too_large = Variable(b, splat(b, 0))
    last = b.sub(given.blocks, number(1))
    with count(b, b.udiv(b.add(given.blocks, number(per_tile - 1)), number(per_tile))) as t:
        with count(b, per_tile) as k:
            wanted = b.add(b.mul(t, number(per_tile)), k)
            more = b.icmp_signed("<", wanted, last)
            block = b.select(more, wanted, last)
            column = b.load(next_column, typ=I64)
            following = b.add(column, number(1))
            following = b.select(b.icmp_signed("==", following, given.period), number(0), following)
            b.store(b.select(more, following, column), next_column)
            with count(b, groups) as g:
                lane = b.add(b.mul(k, number(groups)), g)
                for slots, base, index in ((sources, given.x, block), (importance, given.w, column)):
                    place = b.add(b.mul(index, number(kind.block_size)), b.mul(g, number(length)))
                    b.store(b.add(base, b.mul(place, number(4))), b.gep(slots, [lane], source_etype=I64))
            target = b.add(given.out, b.mul(block, number(kind.block_bytes)))
            b.store(target, b.gep(targets, [k], source_etype=I64))
        largest.set(largest.get().maximum(read_transposed(b, tile.x, sources)))
        if tile.w is not None:
            read_transposed(b, tile.w, importance)
        starts = [b.load(b.gep(targets, [number(k)], source_etype=I64), typ=I64) for k in range(per_tile)]
        for scale in recipe(tile, starts):
            too_large.set(too_large.get().maximum(scale.magnitude()))
    return _verdict(b, largest.get(), too_large.get())


def _verdict(b: ir.IRBuilder, largest: Lanes, scale: Lanes) -> Value:
    """The kernel's result from the greatest weight's bits and the greatest scale."""
    not_finite = (largest > 0x7F7FFFFF).where(largest & 0 | NOT_FINITE, 0)
    too_large = scale.maximum((largest.floats() > LARGEST_WEIGHT).where(scale * 0 + INFINITY, 0)) > LARGEST_HALF
    too_large = too_large.where(largest & 0 | TOO_LARGE, 0)
    flags = not_finite | too_large
    result = flags.lane(0)
    for lane in range(1, COUNT):
        result = b.or_(result, flags.lane(lane))
    return b.zext(result, I64)


def _searching(kind: BlockType, weighted: bool) -> Kernel:
    length, plain, for_importance = RECIPES[kind]
    recipe = for_importance if weighted else plain
    name = f"quantize.{kind.name.lower()}{'.weighted' if weighted else ''}"

    @ir_kernel(name=name, key=(kind.name, weighted))
    def quantize(b: ir.IRBuilder, x: Value, w: Value, period: Value, blocks: Value, out: Value) -> Value:
        return tiles(b, kind, length, weighted, Arguments(x, w, period, blocks, out), recipe)

    return quantize


KERNELS: dict[tuple[BlockType, bool], Kernel] = {
    (kind, weighted): _searching(kind, weighted) for kind in RECIPES for weighted in (False, True)
}
"""By type, and whether weights have importance."""
