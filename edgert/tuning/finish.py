"""Tuning what is left of freedom once codes are fixed: the scales of blocks, norms, routers and biases.

Each half-precision number of a block (`d`, `dmin`, `m`) times a factor near 1, and each float, goes down the slope of
the divergence from the reference by Adam (arXiv:1412.6980). The forward pass sees the bytes that the file would have;
halves are rounded there and kept exact here. What the held-out windows like best is kept: on them the result is never
worse.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.blocks.layout import LAYOUTS
from edgert_runtimes.base import Progress
from edgert_runtimes.layerwise import Floats, Layerwise
from numpy.typing import NDArray

from edgert.tuning.kept import Arrays, Kept
from edgert.tuning.material import Material
from edgert.tuning.packed import Bytes, Packed

Floats32 = NDArray[np.float32]
HALVES = ("d", "dmin", "m")

SCALE_RATE, FLOAT_RATE = 5e-4, 5e-5
"""Of a step, relative to the number itself for scales; the norms' and routers' own for floats."""
FIRST_DECAY, SECOND_DECAY = 0.9, 0.98
WARM_UP = 10
PATIENCE = 4
"""Checks without a gain, after which there is nothing more to come."""


class Scales:
    """The scales of one tensor's blocks. `factors` float32 [fields, blocks] start at 1."""

    def __init__(self, kind: BlockType, rows: Bytes) -> None:
        self.kind = kind
        self._row_bytes = rows.shape[-1]
        self._blocks = np.ascontiguousarray(rows).reshape(-1, kind.block_bytes).view(LAYOUTS[kind])[:, 0]
        self.fields = [field for field in HALVES if field in LAYOUTS[kind].names]  # type: ignore[operator]
        self.factors = np.ones((len(self.fields), len(self._blocks)), np.float32)

    @staticmethod
    def apply_to(kind: BlockType) -> bool:
        """Whether a type has such numbers where they can be found."""
        return kind in LAYOUTS and any(field in HALVES for field in LAYOUTS[kind].names or ())

    def rows(self) -> Bytes:
        """The tensor with its scales as they are now."""
        blocks = self._blocks.copy()
        for field, factor in zip(self.fields, self.factors, strict=True):
            blocks[field] = np.clip(self._blocks[field].astype(np.float32) * factor, -65504, 65504)
        return blocks.view(np.uint8).reshape(-1, self._row_bytes)

    def slope(self, gradient: NDArray[np.floating[Any]], first: int) -> Floats32:
        """By the factors of blocks from `first` on, [fields, blocks], given that by the weights."""
        g = np.asarray(gradient, np.float32).reshape(-1, self.kind.block_size)
        part = self._blocks[first : first + len(g)].copy()
        whole = self._dequantized(part)
        if len(self.fields) == 1:
            return np.asarray(np.einsum("bk,bk->b", g, whole)[None])
        part[self.fields[1]] = 0
        scaled = self._dequantized(part)
        return np.array([np.einsum("bk,bk->b", g, scaled), np.einsum("bk,bk->b", g, whole - scaled)])

    def _dequantized(self, blocks: NDArray[np.void]) -> Floats32:
        return dequantize(blocks.view(np.uint8).reshape(len(blocks), -1), self.kind)


@dataclass
class Moments:
    """What Adam remembers of one array."""

    first: Floats32
    second: Floats32

    def step(self, gradient: Floats32, count: int) -> Floats32:
        """The direction, of about unit size."""
        self.first += (1 - FIRST_DECAY) * (gradient - self.first)
        self.second += (1 - SECOND_DECAY) * (gradient * gradient - self.second)
        first = self.first / (1 - FIRST_DECAY**count)
        second = self.second / (1 - SECOND_DECAY**count)
        return np.asarray(first / (np.sqrt(second) + np.float32(1e-12)))


class Tuner:
    """A packed model whose scales and floats can be moved. Implements `Sink` for the derivatives."""

    def __init__(self, material: Material, packed: Packed) -> None:
        self._material, self.packed = material, packed
        self.walk = Layerwise(material.model.plan, Floats(packed))  # nothing kept: the bytes change
        self._scales: dict[str, Scales] = {}
        self._floats: dict[str, Floats32] = {}
        plan = material.model.plan
        for name, weight in plan.weights.items():
            kind = packed.weights[name].type
            if weight.role.stays_float:
                if not name.startswith("rope_"):  # factors of frequencies, by which there is no derivative
                    self._floats[name] = self.walk.weights.whole(name).astype(np.float32)
            elif Scales.apply_to(kind):
                self._scales[name] = Scales(kind, packed.read(name))
        scales = {name: own.factors for name, own in self._scales.items()}
        self._arrays: dict[str, Floats32] = {**scales, **self._floats}
        self._moments = {name: Moments(np.zeros_like(own), np.zeros_like(own)) for name, own in self._arrays.items()}
        self._gradients: dict[str, Floats32] = {}
        self.count = 0
        """Steps done."""

    def wants(self, name: str) -> bool:
        """See `Sink`."""
        return name in self._arrays

    def take(self, name: str, gradient: NDArray[np.floating[Any]], expert: int | None = None) -> None:
        """See `Sink`."""
        held = self._gradients.setdefault(name, np.zeros_like(self._arrays[name]))
        if name in self._floats:
            own = held if expert is None else held[expert]
            own += gradient.astype(np.float32)
            return
        scales = self._scales[name]
        blocks = gradient.size // scales.kind.block_size
        first = 0 if expert is None else expert * blocks
        held[:, first : first + blocks] += scales.slope(gradient, first)

    def step(self, pace: float) -> None:
        """Move everything against its derivative, and put the bytes in place."""
        self.count += 1
        for name, gradient in self._gradients.items():
            rate = SCALE_RATE if name in self._scales else FLOAT_RATE
            self._arrays[name] -= np.float32(pace * rate) * self._moments[name].step(gradient, self.count)
        self._gradients = {}
        self.install()

    def install(self) -> None:
        """Put the bytes as they are now where the model reads them."""
        for name, scales in self._scales.items():
            self.packed.put(name, scales.kind, scales.rows())
        for name, values in self._floats.items():
            self.packed.put(name, BlockType.F32, values.reshape(-1, values.shape[-1]).view(np.uint8))

    def snapshot(self) -> Arrays:
        """All parameters, to come back to."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def restore(self, kept: Mapping[str, NDArray[Any]]) -> None:
        """Come back to a snapshot."""
        for name, array in self._arrays.items():
            array[...] = kept[name]
        self.install()

    def state(self) -> Arrays:
        """All that the next step depends on."""
        moments = self._moments.items()
        first, second = ({f"{part} {n}": getattr(m, part) for n, m in moments} for part in ("first", "second"))
        return {**self._arrays, **first, **second, "count": np.array(self.count)}

    def go_on(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Be as a tuner was when it gave its state."""
        for name, moments in self._moments.items():
            moments.first[...], moments.second[...] = state[f"first {name}"], state[f"second {name}"]
        self.count = int(state["count"])
        self.restore(state)


def finish(
    material: Material,
    packed: Packed,
    *,
    steps: int,
    check: int = 25,
    work: Path | None = None,
    progress: Progress | None = None,
) -> tuple[float, float]:
    """Tune `packed` in place for at most so many steps of one batch each. The divergence on the held-out windows before
    and after. With a `work` folder the state is kept there at every check, and a run that was stopped goes on from it.
    """
    tuner = Tuner(material, packed)
    depends = (material.key, material.taught_by, steps, check, *_digests(packed))
    store = None if work is None else Kept(work, "tuned", *depends)
    tuner.install()
    before = best = material.divergence(tuner.walk, material.held)
    kept, waited = tuner.snapshot(), 0
    if store and (state := store.get("state")):
        tuner.go_on(state)
        best, waited = float(state["divergence"]), int(state["waited"])
        kept = {name: state[f"best {name}"] for name in kept}
    order = _order(len(material.fit), steps)
    for count in range(tuner.count + 1, steps + 1):
        if waited == PATIENCE:
            break
        batch = material.fit[order[count - 1]]
        logits, marks = tuner.walk.forward(batch)
        tuner.walk.backward(batch, marks, material.targets(batch).slope(logits), tuner)
        tuner.step(min(1.0, count / WARM_UP) * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * count / steps))))
        if progress:
            progress("finish", count, steps)
        if count % check == 0 or count == steps:
            found = material.divergence(tuner.walk, material.held)
            waited = 0 if found < best else waited + 1
            if found < best:
                best, kept = found, tuner.snapshot()
            if store:
                bests = {f"best {name}": array for name, array in kept.items()}
                figures = {"divergence": np.array(best), "waited": np.array(waited)}
                store.put("state", {**tuner.state(), **bests, **figures})
    tuner.restore(kept)
    return before, best


def _order(batches: int, steps: int) -> list[int]:
    """Which batch each step takes: all in one order at random, then all in another."""
    rng = np.random.default_rng(0)
    rounds = [rng.permutation(batches)[::-1] for _ in range(-(-steps // batches))]
    return [int(batch) for batch in np.concatenate(rounds)[:steps]]


def _digests(packed: Packed) -> list[str]:
    """What tells the bytes of one model from those of another."""
    return [f"{name} {hashlib.sha256(rows.data).hexdigest()}" for name, rows in sorted(packed.rows.items())]
