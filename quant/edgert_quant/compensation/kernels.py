"""Compiled: rounding with feedback, and descent from codes to better ones. Both take rows of one block, each by itself.

What they share, by address: `errors` float32 [rows, size], weights less what is read back; `units`, `integers` and
`codes` as in `grids.Parts`; and the grid: `values` float32 [count] in rising order, `middles` float32 [count - 1]
between them, or 0 where values are consecutive numbers.
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
def subtract(target: Any, factor: Any, row: Any, n: Any) -> None:
    """target -= factor · row, n floats each."""
    for k in range(n):
        store_f32(target, k, load_f32(target, k) - factor * load_f32(row, k))


@device
def nearest_half(value: Any, place: Any) -> Any:
    """A float rounded to half precision, by way of two bytes at `place`."""
    store_f16(place, 0, value)
    return load_f16(place, 0)


@kernel(name="compensation.round_block")
def round_block(
    rows: int,
    size: int,
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
    groups = size // length
    for r in range(rows):
        e, first = errors + 4 * r * size, r * size
        scales = integers + 8 * r * groups
        for j in range(size):
            step = load_f32(units, 2 * r) * load_f32(scales, j // length)
            floor = load_f32(units, 2 * r + 1) * load_f32(scales, groups + j // length)
            wanted = load_f32(weights, first + j) + dot_f32(feedback + 4 * stride * j, e, j) + floor
            place = wanted / step if step != 0 else float32(0.0)
            index = nearest(place, values, count, middles)
            store_u8(codes, first + j, uint8(index))
            store_f32(e, j, load_f32(weights, first + j) - (step * load_f32(values, index) - floor))


@kernel(name="compensation.descend")
def descend(
    rows: int,
    size: int,
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
    """Lower e H eᵀ by moving codes, integers and units in turn, each to where it is best while all else stays.

    `curvature` is H among the weights of the block, float32 [size, size]; `gradients` float32 [rows, size], e H, is
    kept up to date. `scratch` holds 4 · size + 1 floats.
    """
    groups = size // length
    for r in range(rows):
        g, e, q = gradients + 4 * r * size, errors + 4 * r * size, codes + r * size
        scales, unit = integers + 8 * r * groups, units + 8 * r
        for _ in range(sweeps):
            moved = move_units(size, length, curvature, g, e, unit, scales, q, values, highest_floor, scratch)
            if lowest_scale < highest_scale:
                moved += move_scales(
                    size, length, curvature, g, e, unit, scales, q, values, lowest_scale, highest_scale, scratch
                )
            if highest_floor > 1:
                moved += move_floors(size, length, curvature, g, e, unit, scales, highest_floor, scratch)
            moved += move_codes(size, length, curvature, g, e, unit, scales, q, values, count, middles)
            if moved == 0:
                break


@device(inline=False)
def move_codes(
    size: Any,
    length: Any,
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
    """Every code to the value nearest to where the objective is least; how many moved."""
    groups, moved = size // length, 0
    for j in range(size):
        step = load_f32(unit, 0) * load_f32(scales, j // length)
        if step != 0:
            old = load_u8(q, j)
            value = load_f32(values, old)
            h = load_f32(curvature, size * j + j)
            index = nearest(value + load_f32(g, j) / (h * step), values, count, middles)
            if index != old:
                floor = load_f32(unit, 1) * load_f32(scales, groups + j // length)
                before, after = step * value - floor, step * load_f32(values, index) - floor
                change = after - before
                if 2 * load_f32(g, j) * change > h * change * change:
                    store_u8(q, j, uint8(index))
                    store_f32(e, j, load_f32(e, j) - change)
                    subtract(g, change, curvature + 4 * size * j, size)
                    moved += 1
    return moved


@device(inline=False)
def shift_group(first: Any, length: Any, size: Any, curvature: Any, g: Any, e: Any, change: Any) -> None:
    """Add `change` (floats of one group) to what is read back."""
    for j in range(length):
        by = load_f32(change, j)
        store_f32(e, first + j, load_f32(e, first + j) - by)
        subtract(g, by, curvature + 4 * size * (first + j), size)


@device
def curve(first: Any, length: Any, size: Any, curvature: Any, direction: Any) -> Any:
    """direction H directionᵀ within a group."""
    total = float32(0.0)
    for j in range(length):
        total += load_f32(direction, j) * dot_f32(curvature + 4 * (size * (first + j) + first), direction, length)
    return total


@device(inline=False)
def move_scales(
    size: Any,
    length: Any,
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
    """Every group's scale to the integer nearest to where the objective is least; how many moved."""
    moved, d = 0, load_f32(unit, 0)
    if d == 0:
        return 0
    for group in range(size // length):
        first = group * length
        for j in range(length):
            store_f32(scratch, j, d * load_f32(values, load_u8(q, first + j)))
        bend = curve(first, length, size, curvature, scratch)
        slope = dot_f32(g + 4 * first, scratch, length)
        old = load_f32(scales, group)
        if bend > 0:
            new = float32(math.floor(min(max(old + slope / bend, float32(lowest)), float32(highest)) + float32(0.5)))
            by = new - old
            if by != 0 and 2 * slope * by > bend * by * by:
                store_f32(scales, group, new)
                for j in range(length):
                    store_f32(scratch, j, by * load_f32(scratch, j))
                shift_group(first, length, size, curvature, g, e, scratch)
                moved += 1
    return moved


@device(inline=False)
def move_floors(
    size: Any,
    length: Any,
    curvature: Any,
    g: Any,
    e: Any,
    unit: Any,
    scales: Any,
    highest: Any,
    scratch: Any,
) -> Any:
    """Every group's floor to the integer nearest to where the objective is least; how many moved."""
    moved, groups, dmin = 0, size // length, load_f32(unit, 1)
    if dmin == 0:
        return 0
    for group in range(groups):
        first = group * length
        for j in range(length):
            store_f32(scratch, j, -dmin)
        bend = curve(first, length, size, curvature, scratch)
        slope = dot_f32(g + 4 * first, scratch, length)
        old = load_f32(scales, groups + group)
        if bend > 0:
            new = float32(math.floor(min(max(old + slope / bend, float32(0.0)), float32(highest)) + float32(0.5)))
            by = new - old
            if by != 0 and 2 * slope * by > bend * by * by:
                store_f32(scales, groups + group, new)
                for j in range(length):
                    store_f32(scratch, j, -by * dmin)
                shift_group(first, length, size, curvature, g, e, scratch)
                moved += 1
    return moved


@device(inline=False)
def move_units(
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
    """Least squares for d and dmin, rounded to half precision; 1 if that lowers the objective, else 0."""
    groups = size // length
    u, v = scratch, scratch + 4 * size
    hu, hv = scratch + 8 * size, scratch + 12 * size
    half = scratch + 16 * size
    for j in range(size):
        store_f32(u, j, load_f32(scales, j // length) * load_f32(values, load_u8(q, j)))
        store_f32(v, j, -load_f32(scales, groups + j // length))
    for j in range(size):
        store_f32(hu, j, dot_f32(curvature + 4 * size * j, u, size))
    uu, gu = dot_f32(u, hu, size), dot_f32(u, g, size)
    if not uu > 0:
        return 0
    old_d, old_dmin = load_f32(unit, 0), load_f32(unit, 1)
    uv, vv, gv = float32(0.0), float32(0.0), float32(0.0)
    if highest_floor > 0:
        for j in range(size):
            store_f32(hv, j, dot_f32(curvature + 4 * size * j, v, size))
        uv, vv, gv = dot_f32(u, hv, size), dot_f32(v, hv, size), dot_f32(v, g, size)
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
    for j in range(size):
        store_f32(e, j, load_f32(e, j) - (by * load_f32(u, j) + by_min * load_f32(v, j)))
    return 1
