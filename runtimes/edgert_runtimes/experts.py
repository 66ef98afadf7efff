"""Experts: what sessions tell of them, and the contract between a backend that keeps only some experts of a mixture in
its memory, and one that computes the others on the host. Backends do not know each other: the registry hands one to
the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from edgert_models import ops
from edgert_models.graph import Plan
from numpy.typing import NDArray

from edgert_runtimes.base import Float32, Int32, Progress, WeightProvider


class HostExperts(Protocol):
    """The experts of every mixture of a plan, on the host. One thread at a time may call it."""

    def compute(self, op: int, x: Float32, ids: Int32) -> Float32:
        """What experts give before they are weighed: row i is down_e f(gate_e x[i], up_e x[i]), with their biases, of
        expert e = ids[i] of the Moe `plan.ops[op]`. x [pairs, width], ids [pairs] → [pairs, width]. Pairs of one
        expert that follow one another read its matrices once.
        """

    def close(self) -> None:
        """Give back memory and threads; calling it again does nothing."""


class ExpertBackend(Protocol):
    """A backend whose kernels can do that."""

    def load_experts(
        self, plan: Plan, weights: WeightProvider, *, threads: int | None = None, progress: Progress | None = None
    ) -> HostExperts:
        """The experts as they lie in the provider's memory, which is mapped where it can be. Errors as in
        `Backend.load`.
        """


@dataclass(frozen=True, slots=True)
class ExpertUse:
    """How often a session's experts were where they were needed, counted once for each expert of a layer and step: in
    the device's memory (`hits`), copied to it (`fetched`), or computed on the host (`on_host`). `resident` of `experts`
    fit in the device's memory; `seconds_on_host` is what the host took.
    """

    experts: int
    resident: int
    hits: int
    fetched: int
    on_host: int
    seconds_on_host: float

    @property
    def hit_rate(self) -> float:
        """Share of hits; 1 where nothing was asked for."""
        asked = self.hits + self.fetched + self.on_host
        return self.hits / asked if asked else 1.0


def expert_counts(plan: Plan) -> NDArray[np.int64]:
    """Zeros [mixtures, experts] to count in: a row for each mixture of a plan, as wide as the largest."""
    mixtures = mixtures_of(plan).values()
    return np.zeros((len(mixtures), max((op.experts for op in mixtures), default=0)), np.int64)


def load_offset(plan: Plan, index: int) -> int:
    """Bytes before the row of `expert_counts` that is for the mixture `plan.ops[index]`."""
    mixtures = mixtures_of(plan)
    widest = max(op.experts for op in mixtures.values())
    return list(mixtures).index(index) * widest * np.dtype(np.int64).itemsize


def mixtures_of(plan: Plan) -> dict[int, ops.Moe]:
    """The mixtures of a plan by index."""
    return {index: op for index, op in enumerate(plan.ops) if isinstance(op, ops.Moe)}


def layer_of(op: ops.Moe) -> int:
    """The layer that a mixture is in, by the names of its tensors (`blk.N.…`)."""
    return int(op.gate.split(".")[1])


@runtime_checkable
class CountingSession(Protocol):
    """A session that counts which experts its routers choose."""

    def expert_load(self) -> NDArray[np.int64]:
        """How many rows each expert has had since the session was made: [mixtures, experts], a copy. From any thread,
        also during a step, whose counts may then be there in part.
        """


@runtime_checkable
class OffloadingSession(Protocol):
    """A session that may keep experts elsewhere than in the device's memory."""

    def expert_use(self) -> ExpertUse | None:
        """Since the session was made; None where all experts are in the device's memory."""
