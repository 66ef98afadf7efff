"""What the functions of a step are given beside the values of the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from edgert_models import ops

from edgert_runtimes.base import Int32
from edgert_runtimes.mlx.cache import LayerCache
from edgert_runtimes.mlx.runs import Run
from edgert_runtimes.mlx.turns import Turn
from edgert_runtimes.mlx.views import View


@dataclass(slots=True)
class Inputs:
    """The arrays of a batch that ops read: int32 [rows] each, and `pick` [picked]. `turns` are what `Turns.at` gives;
    `adapters` are those of the rows, where any has one.
    """

    tokens: mx.array
    positions: mx.array
    pick: mx.array
    turns: Sequence[Turn] = ()
    adapters: mx.array | None = None

    @property
    def arrays(self) -> list[Any]:
        """What these are made of again."""
        given = [self.tokens, self.positions, self.pick, self.turns]
        return given if self.adapters is None else [*given, self.adapters]

    def picked(self) -> Inputs:
        """Of the picked rows only."""
        tokens, positions = self.tokens[self.pick], self.positions[self.pick]
        adapters = None if self.adapters is None else self.adapters[self.pick]
        turns = [[each[self.pick] for each in turn] for turn in self.turns]
        return Inputs(tokens, positions, mx.arange(len(self.pick)), turns, adapters)


@dataclass(slots=True)
class Pages:
    """Where keys and values of a step's rows go: int32 [rows]; `start` [1] is the first slot, if they follow one
    another. `tables` [rows, blocks] are where those are that each row sees, in steps of one kernel for attention.
    """

    slots: mx.array
    start: mx.array | None = None
    tables: mx.array | None = None


def make_pages(slots: Int32) -> Pages:
    """Those of a step op by op."""
    first = int(slots[0])
    in_a_row = slots.tolist() == list(range(first, first + len(slots)))
    return Pages(mx.array(slots), mx.array([first], mx.int32) if in_a_row else None)


@dataclass(slots=True)
class Step:
    """One step. `views` are those of each window; `pages` those of layers without a window, then of those with one;
    `runs` are what `states` [slots, …] go through. `peaks` collects what routers gave, or the most of it, mixture by
    mixture, in the order of the plan: [rows, experts] or [1, 1]; `chosen` the experts that they chose, uint32
    [rows, used].
    """

    inputs: Inputs
    views: Mapping[int, Sequence[View]] = field(default_factory=dict)
    pages: Sequence[Pages] = ()
    caches: Sequence[LayerCache] = ()
    runs: Sequence[Run] = ()
    states: Sequence[mx.array] = ()
    peaks: list[mx.array] = field(default_factory=list)
    chosen: list[mx.array] = field(default_factory=list)

    def pages_of(self, op: ops.Attend) -> Pages:
        """Those of an attention."""
        return self.pages[-1 if op.reach else 0]


def highest(peaks: Sequence[mx.array]) -> mx.array:
    """What is most in each of `Step.peaks`, NaN where any is: [mixtures, 1]. Found in all at once, where it can be."""
    if not peaks:
        return mx.zeros((0, 1))
    if len({each.shape for each in peaks}) > 1:
        peaks = [each.max(keepdims=True) for each in peaks]
    found = mx.concatenate(list(peaks))
    return found if found.size == len(peaks) else found.reshape(len(peaks), -1).max(axis=1, keepdims=True)


def together(chosen: Sequence[mx.array]) -> mx.array:
    """`Step.chosen` in one array: as they are, or flat where their rows have different lengths."""
    if not chosen:
        return mx.zeros(0, mx.uint32)
    alike = len({each.shape[-1] for each in chosen}) == 1
    return mx.concatenate(list(chosen) if alike else [each.flatten() for each in chosen])


Function = Callable[..., mx.array]
"""function(step, *values) -> value: runs one op."""
