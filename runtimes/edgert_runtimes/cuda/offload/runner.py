"""Keeps pools of experts on the GPU, and takes part in every mixture whose experts are not all there.

`choose` comes once the router has chosen: it brings experts in, tells the kernels which slots to use, and leaves the
rest to `finish`, which computes it on the host while the GPU does its part. Every pair of a row and an expert is
computed, by one or the other. What the host had to compute is copied too if it is used more than what it displaces,
but nobody waits for that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from edgert_models import ops
from edgert_models.graph import Plan
from numpy.typing import NDArray

from edgert_runtimes.base import Float32, Int32, Limits
from edgert_runtimes.cuda.device import Arrays, Device, Event, Queue
from edgert_runtimes.cuda.offload.division import Rates, Task, divide
from edgert_runtimes.cuda.offload.host import HostWeights
from edgert_runtimes.cuda.offload.pools import Pool, tensors_of
from edgert_runtimes.cuda.offload.slots import NONE, Slots
from edgert_runtimes.cuda.program import Exchange
from edgert_runtimes.cuda.weights import SLACK
from edgert_runtimes.experts import ExpertUse, HostExperts, mixtures_of


@dataclass(frozen=True)
class _Mixture:
    """One mixture: its op, its pool and which of the pool's it is; products of one pair."""

    op: ops.Moe
    pool: Pool
    slots: Slots
    number: int
    bases: tuple[int, ...]
    arriving: dict[int, Event]

    @property
    def products(self) -> int:
        return self.op.hidden * (2 * self.op.x.width + self.op.out.width)


@dataclass(frozen=True)
class _Rest:
    """What the host has to compute: pairs sorted by expert, and the experts as tasks."""

    x: Float32
    rows: NDArray[np.intp]
    ids: Int32
    shares: Float32
    tasks: list[Task]


class Offload:
    """The pools of a session. `weights` are their addresses, by the names of the tensors whose experts they hold."""

    def __init__(
        self, device: Device, plan: Plan, pools: list[Pool], weights: HostWeights, host: HostExperts, limits: Limits
    ) -> None:
        self.rates = Rates()
        self.weights: dict[str, int] = {}
        self._device = device
        self._host_weights = weights
        self._host = host
        self._mixtures: dict[int, _Mixture] = {}
        for pool in pools:
            self._add_pool(pool, mixtures_of(plan))
        found = [mixture.op for mixture in self._mixtures.values()]
        width, pairs = max(max(op.x.width, op.out.width) for op in found), limits.rows * max(op.used for op in found)
        sizes = {"x": 4 * limits.rows * width, "sums": 4 * limits.rows * width}
        sizes |= dict.fromkeys(("ids", "shares", "slot_ids", "slot_shares"), 4 * pairs)
        places = Arrays(list(sizes.items()))
        memory = device.pinned(places.size)
        self._bytes = {name: memory[start : start + sizes[name]] for name, start in places.offsets.items()}
        self._rest: _Rest | None = None
        self._hits = self._fetched = self._on_host = 0
        self._seconds = 0.0
        self._fill()
        self._try_host()

    def use(self) -> ExpertUse:
        """See OffloadingSession."""
        mixtures = self._mixtures.values()
        return ExpertUse(
            experts=sum(mixture.op.experts for mixture in mixtures),
            resident=sum({id(mixture.pool): mixture.pool.slots for mixture in mixtures}.values()),
            hits=self._hits,
            fetched=self._fetched,
            on_host=self._on_host,
            seconds_on_host=self._seconds,
        )

    def choose(self, exchange: Exchange, workspace: int, rows: int, padded: int) -> None:
        """Decide for the `rows` of a batch, which is padded to more."""
        mixture = self._mixtures[exchange.op]
        used, width = mixture.op.used, mixture.op.x.width
        x = self._download("x", workspace + exchange.x, rows * width).view(np.float32).reshape(rows, width)
        ids = self._download("ids", workspace + exchange.ids, rows * used).view(np.int32)
        shares = self._download("shares", workspace + exchange.shares, rows * used).view(np.float32)
        self._device.synchronize(self._device.record())
        ids = np.clip(ids, 0, mixture.op.experts - 1)  # whatever a router without numbers chose
        needed, pairs = np.unique(ids, return_counts=True)
        on_host = self._bring(mixture, needed, pairs)
        slot = mixture.slots.slot[mixture.number][ids]
        missing = slot == NONE
        slot_ids = self._bytes["slot_ids"].view(np.int32)[: padded * used]
        slot_shares = self._bytes["slot_shares"].view(np.float32)[: padded * used]
        slot_ids[:], slot_shares[:] = NONE, 0
        slot_ids[: len(ids)] = slot
        slot_shares[: len(ids)] = np.where(missing, np.float32(0), shares)
        self._device.upload(workspace + exchange.slot_ids, slot_ids.view(np.uint8))
        self._device.upload(workspace + exchange.slot_shares, slot_shares.view(np.uint8))
        order = np.flatnonzero(missing)
        order = order[np.argsort(ids[order], kind="stable")]
        self._rest = _Rest(x, order // used, ids[order], shares[order].copy(), on_host)

    def finish(self, exchange: Exchange, workspace: int, padded: int) -> None:
        """Compute the rest, and give the GPU its sums."""
        mixture, rest = self._mixtures[exchange.op], self._rest
        assert rest is not None
        self._rest = None
        sums = self._bytes["sums"].view(np.float32)[: padded * mixture.op.out.width].reshape(padded, -1)
        sums[:] = 0
        if len(rest.ids):
            start = time.perf_counter()
            x, shares = rest.x[rest.rows], rest.shares[:, None]
            if mixture.op.router.weighs_inputs:
                x, shares = shares * x, np.ones_like(shares)
            np.add.at(sums, rest.rows, shares * self._host.compute(exchange.op, x, rest.ids))
            seconds = time.perf_counter() - start
            self.rates.computed(rest.tasks, seconds)
            self._seconds += seconds
        self._device.upload(workspace + exchange.sums, sums.reshape(-1).view(np.uint8))
        self._promote(mixture, rest.tasks)

    def close(self) -> None:
        """Give back what the host has."""
        self._host.close()

    def _add_pool(self, pool: Pool, mixtures: Mapping[int, ops.Moe]) -> None:
        slots = Slots(pool.slots, len(pool.mixtures), pool.experts)
        bases = tuple(self._device.allocate(pool.slots * size + SLACK) for size in pool.sizes)
        arriving: dict[int, Event] = {}
        for number, index in enumerate(pool.mixtures):
            self._mixtures[index] = _Mixture(mixtures[index], pool, slots, number, bases, arriving)
            self.weights |= dict(zip(tensors_of(mixtures[index]), bases, strict=True))

    def _fill(self) -> None:
        """Begin with the first experts of every mixture, and measure how fast they are copied."""
        start, size = self._device.record(Queue.COPY), 0
        for expert in range(max(mixture.op.experts for mixture in self._mixtures.values())):
            for mixture in self._mixtures.values():
                if expert < mixture.op.experts and (mixture.slots.slot != NONE).sum() < mixture.pool.slots:
                    self._copy(mixture, expert, mixture.slots.place(mixture.number, expert))
                    size += mixture.pool.expert_bytes
        end = self._device.record(Queue.COPY)
        self._device.synchronize()
        self.rates.copied(size, self._device.seconds(start, end), weight=1.0)

    def _try_host(self) -> None:
        """Measure how fast the host computes one row's experts; the first time does not count."""
        index, mixture = next(iter(self._mixtures.items()))
        ids = np.arange(mixture.op.used, dtype=np.int32)
        x = np.zeros((len(ids), mixture.op.x.width), np.float32)
        tasks = [self._task(mixture, int(expert), 1) for expert in ids]
        for _ in range(2):
            start = time.perf_counter()
            self._host.compute(index, x, ids)
            seconds = time.perf_counter() - start
        self.rates.computed(tasks, seconds, weight=1.0)

    def _download(self, name: str, source: int, count: int) -> NDArray[np.uint8]:
        target = self._bytes[name][: 4 * count]
        self._device.download(target, source)
        return target

    def _bring(self, mixture: _Mixture, needed: NDArray[np.int32], pairs: NDArray[np.intp]) -> list[Task]:
        """Have experts in their slots before the kernels read them; those that are left to the host."""
        slots, number = mixture.slots, mixture.number
        slots.use(number, needed)
        places = slots.slot[number][needed]
        kept = {int(place) for place in places[places != NONE]}
        for place in kept & mixture.arriving.keys():
            self._device.wait(mixture.arriving.pop(place), Queue.COMPUTE)
        missing = np.flatnonzero(places == NONE)
        tasks = [self._task(mixture, int(needed[i]), int(pairs[i])) for i in missing]
        copied, on_host = divide(tasks, self.rates, slots.count - len(kept))
        for task in copied:
            place = slots.place(number, task.expert, kept)
            kept.add(place)
            self._copy(mixture, task.expert, place)
            mixture.arriving.pop(place, None)
        if copied:
            self._device.wait(self._device.record(Queue.COPY), Queue.COMPUTE)
        self._hits += len(needed) - len(tasks)
        self._fetched += len(copied)
        self._on_host += len(on_host)
        return on_host

    def _promote(self, mixture: _Mixture, tasks: list[Task]) -> None:
        """Copy the most used of what the host had to compute, if it is used more than what has to go for it."""
        if not tasks:
            return
        expert = max((task.expert for task in tasks), key=lambda expert: mixture.slots.score(mixture.number, expert))
        score = mixture.slots.score(mixture.number, expert)
        place = mixture.slots.place(mixture.number, expert, above=score)
        if place != NONE:
            self._copy(mixture, expert, place)
            mixture.arriving[place] = self._device.record(Queue.COPY)

    def _copy(self, mixture: _Mixture, expert: int, place: int) -> None:
        """Once all that is launched, which may read what was there, is done."""
        self._device.wait(self._device.record(), Queue.COPY)
        for name, base, size in zip(tensors_of(mixture.op), mixture.bases, mixture.pool.sizes, strict=True):
            self._device.upload(base + place * size, self._host_weights.of_expert(name, expert), Queue.COPY)

    def _task(self, mixture: _Mixture, expert: int, pairs: int) -> Task:
        return Task(expert, mixture.pool.expert_bytes, pairs * mixture.products)
