"""What the functions of a step are given beside the values of the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from edgert_runtimes.mlx.cache import LayerCache
from edgert_runtimes.mlx.runs import Run
from edgert_runtimes.mlx.views import View


@dataclass(slots=True)
class Inputs:
    """The arrays of a batch that ops read: int32 [rows] each, and `pick` [picked]. `adapters` are those of the rows,
    where any has one.
    """

    tokens: mx.array
    positions: mx.array
    slots: mx.array
    pick: mx.array
    adapters: mx.array | None = None

    @property
    def arrays(self) -> list[mx.array]:
        """What these are made of again."""
        given = [self.tokens, self.positions, self.slots, self.pick]
        return given if self.adapters is None else [*given, self.adapters]

    def picked(self) -> Inputs:
        """Of the picked rows only."""
        tokens, positions, slots = (array[self.pick] for array in (self.tokens, self.positions, self.slots))
        adapters = None if self.adapters is None else self.adapters[self.pick]
        return Inputs(tokens, positions, slots, mx.arange(len(self.pick)), adapters)


@dataclass(slots=True)
class Step:
    """One step. `views` are those of each window; `start` [1] is its first slot, if its slots follow one another;
    `runs` are what `states` [slots, …] go through; `tables`, in steps of one kernel for attention, the blocks of
    each row, [rows, blocks]. `peaks` collects what routers gave at most, mixture by mixture, in
    the order of the plan: [1, 1] each; `chosen` the experts that they chose, uint32 [rows, used].
    """

    inputs: Inputs
    views: Mapping[int, Sequence[View]] = field(default_factory=dict)
    start: mx.array | None = None
    caches: Sequence[LayerCache] = ()
    runs: Sequence[Run] = ()
    states: Sequence[mx.array] = ()
    tables: mx.array | None = None
    peaks: list[mx.array] = field(default_factory=list)
    chosen: list[mx.array] = field(default_factory=list)


Function = Callable[..., mx.array]
"""function(step, *values) -> value: runs one op."""
