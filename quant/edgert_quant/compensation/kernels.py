"""Compiled: rounding with feedback, and descent from codes to better ones. Both take rows of a panel, each by itself.

A panel is `size` columns, whole blocks of `span` weights in groups of `length`. What both share, by address: `errors`
float32 [rows, size], weights less what is read back; `units`, `integers` and `codes` as in `grids.Parts`, row by row;
and the grid: `values` float32 [count] in rising order, `middles` float32 [count - 1] between them, or 0 where values
are consecutive numbers.
"""

from __future__ import annotations

import math
from typing import Any

from numpy import float32, int64, uint8

from edgert_quant.jit import device, kernel
from edgert_quant.jit.primitives import dot_f32, load_f16, load_f32, load_u8, store_f16, store_f32, store_u8

LARGEST_HALF = 65504.0


@device
def nearest(place: Any, values: Any, count: Any, middles: Any) -> Any:
    """The index of the value nearest to `place`."""
    if middles == 0:
        low = load_f32(values, 0)
        limited = min(max(place - low, float32(0.0)), float32(count - 1))
        return int64(limited + float32(0.5))
    index = int64(0)
    for k in range(count - 1):
        index += place > load_f32(middles, k)
    return index


@device
def whole(value: Any, lowest: Any, highest: Any) -> Any:
    """The whole number nearest to a value, within limits."""
    return float32(math.floor(min(max(value, float32(lowest)), float32(highest)) + float32(0.5)))


@device
def subtract(target: Any, factor: Any, row: Any, n: Any) -> None:
    """target -= factor · row, n floats each."""
    for k in range(n):
        store_f32(target, k, load_f32(target, k) - factor * load_f32(row, k))


@device
def nearest_half(value: Any, place: Any) -> Any:
    """A float rounded to half precision, by way of two bytes at `place`."""
    store_f16(place, 0, value)
    return load_f16(place, 0)


@kernel(name="compensation.round_panel")
def round_panel(
    rows: int,
    size: int,
    span: int,
    length: int,
    weights: int,
    feedback: int,
    stride: int,
    errors: int,
    units: int,
    integers: int,
    codes: int,
    values: int,
    count: int,
    middles: int,
) -> None:
    """Round weights [rows, size] one after another. Weight j is rounded as if it were greater by the errors of the
    weights before it, each times its feedback (row j of a matrix of `stride` columns).
    """
    groups = span // length
    for r in range(rows):
        for j in range(size):
            block, group, e = r * (size // span) + j // span, j % span // length, errors + 4 * r * size
            unit, scales = units + 8 * block, integers + 8 * groups * block
            step = load_f32(unit, 0) * load_f32(scales, group)
            floor = load_f32(unit, 1) * load_f32(scales, groups + group)
            weight = load_f32(weights, r * size + j)
            wanted = weight + dot_f32(feedback + 4 * stride * j, e, j) + floor
            index = nearest(wanted / step if step != 0 else float32(0.0), values, count, middles)
            store_u8(codes, r * size + j, uint8(index))
            store_f32(e, j, weight - (step * load_f32(values, index) - floor))


@kernel(name="compensation.descend")
def descend(
    rows: int,
    size: int,
    span: int,
    length: int,
    sweeps: int,
    curvature: int,
    gradients: int,
    errors: int,
    units: int,
    integers: int,
    codes: int,
    values: int,
    count: int,
    middles: int,
    lowest_scale: int,
    highest_scale: int,
    highest_floor: int,
    scratch: int,
) -> None:
    """Lower e H eᵀ by moving units, integers and codes in turn, each to where it is best while all else stays.

    `curvature` is H among the weights of the panel, float32 [size, size]; `gradients` float32 [rows, size], e H, is
    kept up to date. `scratch` holds 2 · (span + size) + 1 floats.
    """
    groups = span // length
    for r in range(rows):
        g = gradients + 4 * r * size
        for _ in range(sweeps):
            moved = 0
            for k in range(size // span):
                first, block = k * span, r * (size // span) + k
                e, q = errors + 4 * (r * size + first), codes + r * size + first
                unit, scales = units + 8 * block, integers + 8 * groups * block
                moved += move_units(
                    first, span, size, length, curvature, g, e, unit, scales, q, values, highest_floor, scratch
                )
                if lowest_scale < highest_scale:
                    for group in range(groups):
                        moved += move_scale(
                            group, first, length, size, curvature, g, e, unit, scales, q, values, lowest_scale,
                            highest_scale, scratch,
                        )  # fmt: skip
                if highest_floor > 1:
                    for group in range(groups):
                        moved += move_floor(
                            group, groups, first, length, size, curvature, g, e, unit, scales, highest_floor, scratch
                        )
                for j in range(span):
                    moved += move_code(
                        j, groups, first, length, size, curvature, g, e, unit, scales, q, values, count, middles
                    )
            if moved == 0:
                break


@device
def move_code(
    j: Any,
    groups: Any,
    first: Any,
    length: Any,
    size: Any,
    curvature: Any,
    g: Any,
    e: Any,
    unit: Any,
    scales: Any,
    q: Any,
    values: Any,
    count: Any,
    middles: Any,
) -> Any:
    """A weight's code to the value nearest to where the objective is least; 1 if it moved, else 0."""
    step = load_f32(unit, 0) * load_f32(scales, j // length)
    if step == 0:
        return 0
    old, row = load_u8(q, j), curvature + 4 * size * (first + j)
    value, slope, bend = load_f32(values, old), load_f32(g, first + j), load_f32(row, first + j)
    index = nearest(value + slope / (bend * step), values, count, middles)
    if index == old:
        return 0
    floor = load_f32(unit, 1) * load_f32(scales, groups + j // length)
    change = (step * load_f32(values, index) - floor) - (step * value - floor)
    if not 2 * slope * change > bend * change * change:
        return 0
    store_u8(q, j, uint8(index))
    store_f32(e, j, load_f32(e, j) - change)
    subtract(g, change, row, size)
    return 1


@device(inline=False)
def move_group(
    start: Any,
    first: Any,
    length: Any,
    size: Any,
    curvature: Any,
    g: Any,
    e: Any,
    integer: Any,
    lowest: Any,
    highest: Any,
    direction: Any,
) -> Any:
    """An integer of the group from weight `start` of the block on to where the objective is least, if what is read back
    grows by `direction` (floats of the group) with it; 1 if it moved, else 0.
    """
    column = first + start
    bend = float32(0.0)
    for j in range(length):
        along = dot_f32(curvature + 4 * (size * (column + j) + column), direction, length)
        bend += load_f32(direction, j) * along
    if not bend > 0:
        return 0
    slope = dot_f32(g + 4 * column, direction, length)
    old = load_f32(integer, 0)
    by = whole(old + slope / bend, lowest, highest) - old
    if by == 0 or not 2 * slope * by > bend * by * by:
        return 0
    store_f32(integer, 0, old + by)
    for j in range(length):
        change = by * load_f32(direction, j)
        store_f32(e, start + j, load_f32(e, start + j) - change)
        subtract(g, change, curvature + 4 * size * (column + j), size)
    return 1


@device
def move_scale(
    group: Any,
    first: Any,
    length: Any,
    size: Any,
    curvature: Any,
    g: Any,
    e: Any,
    unit: Any,
    scales: Any,
    q: Any,
    values: Any,
    lowest: Any,
    highest: Any,
    scratch: Any,
) -> Any:
    """A group's scale, its codes as they are."""
    d, start = load_f32(unit, 0), group * length
    for j in range(length):
        store_f32(scratch, j, d * load_f32(values, load_u8(q, start + j)))
    return move_group(start, first, length, size, curvature, g, e, scales + 4 * group, lowest, highest, scratch)


@device
def move_floor(
    group: Any,
    groups: Any,
    first: Any,
    length: Any,
    size: Any,
    curvature: Any,
    g: Any,
    e: Any,
    unit: Any,
    scales: Any,
    highest: Any,
    scratch: Any,
) -> Any:
    """A group's floor."""
    dmin = load_f32(unit, 1)
    for j in range(length):
        store_f32(scratch, j, -dmin)
    integer = scales + 4 * (groups + group)
    return move_group(group * length, first, length, size, curvature, g, e, integer, 0, highest, scratch)


@device(inline=False)
def move_units(
    first: Any,
    span: Any,
    size: Any,
    length: Any,
    curvature: Any,
    g: Any,
    e: Any,
    unit: Any,
    scales: Any,
    q: Any,
    values: Any,
    highest_floor: Any,
    scratch: Any,
) -> Any:
    """Least squares for d and dmin of a block, rounded to half precision; 1 if that lowers the objective, else 0."""
    groups = span // length
    u, v = scratch, scratch + 4 * span
    hu, hv = scratch + 8 * span, scratch + 8 * span + 4 * size
    half = scratch + 8 * (span + size)
    for j in range(span):
        store_f32(u, j, load_f32(scales, j // length) * load_f32(values, load_u8(q, j)))
        store_f32(v, j, -load_f32(scales, groups + j // length))
    for k in range(size):
        store_f32(hu, k, dot_f32(curvature + 4 * (size * k + first), u, span))
    uu, gu = dot_f32(u, hu + 4 * first, span), dot_f32(u, g + 4 * first, span)
    if not uu > 0:
        return 0
    old_d, old_dmin = load_f32(unit, 0), load_f32(unit, 1)
    uv, vv, gv = float32(0.0), float32(0.0), float32(0.0)
    if highest_floor > 0:
        for k in range(size):
            store_f32(hv, k, dot_f32(curvature + 4 * (size * k + first), v, span))
        uv, vv = dot_f32(u, hv + 4 * first, span), dot_f32(v, hv + 4 * first, span)
        gv = dot_f32(v, g + 4 * first, span)
    determinant = uu * vv - uv * uv
    if determinant > uu * vv * float32(1e-4):
        d = nearest_half(old_d + (gu * vv - gv * uv) / determinant, half)
        dmin = nearest_half(old_dmin + (gv * uu - gu * uv) / determinant, half)
    else:
        d, dmin = nearest_half(old_d + gu / uu, half), old_dmin
    by, by_min = d - old_d, dmin - old_dmin
    gain = 2 * (by * gu + by_min * gv) - (by * by * uu + 2 * by * by_min * uv + by_min * by_min * vv)
    usable = d != 0 and abs(d) <= float32(LARGEST_HALF) and abs(dmin) <= float32(LARGEST_HALF)
    if not usable or not gain > 0:
        return 0
    store_f32(unit, 0, d)
    store_f32(unit, 1, dmin)
    subtract(g, by, hu, size)
    if highest_floor > 0:
        subtract(g, by_min, hv, size)
    for j in range(span):
        store_f32(e, j, load_f32(e, j) - (by * load_f32(u, j) + by_min * load_f32(v, j)))
    return 1
