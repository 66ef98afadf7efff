"""A lowered plan: what each op launches, for any number of rows, and the memory that this needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from edgert_models.ops import Value
from numpy.typing import NDArray

from edgert_runtimes.cuda.device import Launch
from edgert_runtimes.cuda.kernels.kernel import Kernel


@dataclass(frozen=True, slots=True)
class Shape:
    """What launches depend on: rows of the batch, rows picked (from `first_pick` on), and how attention is divided: its
    positions into `splits` for every row by itself, or its rows into `tiles`, if there are any. Recurrent states go
    through `runs` of rows.
    """

    rows: int
    picked: int
    first_pick: int = 0
    splits: int = 1
    tiles: int = 0
    runs: int = 0

    def count(self, picked: bool) -> int:
        """Rows of a value."""
        return self.picked if picked else self.rows


@dataclass(frozen=True)
class Memory:
    """Where everything is on the GPU: addresses of the workspace, the cache, the states and the counts of experts, and
    by name of a batch's arrays, weights and constants.
    """

    workspace: int
    cache: int
    inputs: Mapping[str, int]
    weights: Mapping[str, int]
    constants: Mapping[int, int]
    states: int = 0
    loads: int = 0


@dataclass(frozen=True, slots=True)
class Exchange:
    """Where the host takes part in the mixture `op`, whose experts are not all on the GPU: offsets in the workspace
    of what it reads (inputs x [rows, width], ids and shares [rows, used]), and of what it writes: the same ids and
    shares as slots of the pool (-1 and 0 for those that the host computes), and sums [rows, width] of the experts
    that it computed.
    """

    op: int
    x: int
    ids: int
    shares: int
    slot_ids: int
    slot_shares: int
    sums: int


Launches = Callable[[Shape, Memory], Iterable[Launch]]


@dataclass(frozen=True, slots=True)
class Work:
    """What one op, or a part of it, launches. `picked` says which rows it works on. Before it is launched the host
    does its part in an exchange: it chooses (`before`), or what it computed must be there (`needs`). `ids` is where a
    mixture keeps its choice, for profiles.
    """

    op: int
    picked: bool
    launches: Launches
    before: Exchange | None = None
    needs: Exchange | None = None
    ids: int | None = None


@dataclass
class Program:
    """Works in order. `ends[v]` is the number of works after which value v is complete, `places[v]` its offset in the
    workspace.
    """

    works: list[Work] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    constants: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    workspace_bytes: int = 0
    cache_bytes: int = 0
    state_bytes: int = 0
    failed: int = 0
    """Offset of int32 [ops]: not 0 where the router of a mixture gave NaN."""

    def up_to(self, value: Value) -> list[Work]:
        """The works that a value needs."""
        return self.works[: self.ends[value.id]]

    def kernels(self, shapes: Iterable[Shape]) -> list[Kernel]:
        """Every kernel that steps of these shapes launch."""
        somewhere: defaultdict[Any, int] = defaultdict(lambda: 1)
        memory = Memory(1, 1, somewhere, somewhere, somewhere)
        found = {
            launch.kernel.name: launch.kernel
            for shape in shapes
            for work in self.works
            for launch in work.launches(shape, memory)
        }
        return list(found.values())
