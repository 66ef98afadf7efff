"""Probabilities and the largest of many values, without sorting a whole vocabulary."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgert.engine.sampling.base import Floats, Ids

_SORTED = 128  # values that are sorted sooner than counted
_FEW = 4096  # values for which nothing has to be narrowed first
_NEAR = 8.0  # nats below the best: where a cut is looked for first
_BINS, _BINS_PER_UNIT = 512, 16  # of logits or surprises, when looking for a cut: 32 nats below the best
_SMALLEST_BLOCK = 16


def softmax(logits: Floats) -> Floats:
    """Probabilities, float32 [n], of which at least the largest is above 0."""
    weights: Floats = np.exp(logits - logits.max())
    weights /= weights.sum()
    return weights


def entropy(probabilities: Floats) -> float:
    """In nats."""
    present = np.maximum(probabilities, np.finfo(np.float32).tiny)
    return -float((probabilities * np.log(present)).sum(dtype=np.float64))


def likeliest(values: Floats, count: int) -> Ids:
    """Indices of the `count` largest, ascending; of equals at the border the lower indices."""
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    if count >= values.size:
        return np.arange(values.size)
    near = _at_least_one_of_each(values, count)
    if near is None:
        return _largest(values, count)
    return near[_largest(values[near], count)]


def _largest(values: Floats, count: int) -> Ids:
    border = np.partition(values, values.size - count)[values.size - count]
    above = np.flatnonzero(values > border)
    equal = np.flatnonzero(values == border)[: count - above.size]
    return np.sort(np.concatenate([above, equal]))


def _at_least_one_of_each(values: Floats, count: int) -> Ids | None:
    """Indices, ascending, among which the `count` largest are; None where there is no quick way to fewer.

    Of four times as many blocks, `count` have a largest value of at least some floor: so many values are not below it.
    """
    blocks = 4 * count
    block = values.size // blocks
    if block < _SMALLEST_BLOCK:
        return None
    maxima = values[: blocks * block].reshape(blocks, block).max(axis=1)
    return np.flatnonzero(values >= np.partition(maxima, blocks - count)[blocks - count])


def fewest(probabilities: Floats, order: Floats, share: float, *, strictly: bool) -> Ids:
    """Indices, ascending, of the fewest entries in descending `order` whose probabilities reach (or exceed) `share`.

    Of many, only the entries near the border are sorted: those that share a bin of `order` with it.
    """
    side: Literal["left", "right"] = "right" if strictly else "left"
    if order.size <= _SORTED:
        sorted_places = np.argsort(-order, kind="stable")
        heights = probabilities[sorted_places].cumsum(dtype=np.float64)
        return np.sort(sorted_places[: int(heights.searchsorted(share, side)) + 1])
    if order.size > _FEW:
        near = np.flatnonzero(order >= order.max() - _NEAR)
        inside = probabilities[near]
        if near.size < order.size and float(inside.sum(dtype=np.float64)) > share:
            return near[fewest(inside, order[near], share, strictly=strictly)]
    bins = np.minimum((order.max() - order) * _BINS_PER_UNIT, _BINS - 1).astype(np.int64)
    heights = np.bincount(bins, probabilities, _BINS).cumsum()
    border = int(heights.searchsorted(share, side))
    if border == _BINS:  # the share is 1, but for rounding
        return np.arange(order.size)
    inside_bin = np.flatnonzero(bins == border)
    inside_bin = inside_bin[np.argsort(-order[inside_bin], kind="stable")]
    below = heights[border - 1] if border else 0.0
    reached = below + probabilities[inside_bin].cumsum(dtype=np.float64)
    count = int(reached.searchsorted(share, side)) + 1
    kept = bins < border
    kept[inside_bin[:count]] = True
    return np.flatnonzero(kept)


def place_at(weights: Floats, number: float) -> int:
    """Where the running sum of `weights`, not all 0, passes the share `number`, in [0, 1), of the whole.

    First among the sums of about sqrt(n) blocks, then within one: adding up n values one by one takes long.
    """
    size = max(1, int(weights.size**0.5))
    heights = np.add.reduceat(weights, np.arange(0, weights.size, size), dtype=np.float64).cumsum()
    height = number * heights[-1]
    block = min(int(heights.searchsorted(height, side="right")), heights.size - 1)
    inside = weights[block * size : (block + 1) * size].cumsum(dtype=np.float64)
    rest = height - (heights[block - 1] if block else 0.0)
    place = block * size + min(int(inside.searchsorted(rest, side="right")), inside.size - 1)
    while weights[place] == 0:  # rounding led past the last one
        place -= 1
    return place
