"""How far each tensor alone, in each type, moves the model's predictions."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.gguf.output import write_whole
from edgert_quant.imatrix import Importance
from edgert_runtimes.base import Progress
from edgert_runtimes.layerwise.run import State

from edgert.tuning.material import BATCH, Material, Model
from edgert.tuning.packed import pack

if TYPE_CHECKING:
    from edgert_runtimes.layerwise import Layerwise

Costs = dict[str, dict[BlockType, float]]
"""Divergence in nats by tensor and type."""

_NAMES = "iq1_m iq2_xxs iq2_xs iq2_s q2_k iq3_xxs iq3_s q3_k iq4_xs iq4_nl q4_k q5_0 q5_k q6_k q8_0"
KINDS = tuple(map(BlockType.parse, _NAMES.split()))
"""Types to choose from, the smallest first."""

PROBES = (BlockType.Q2_K, BlockType.Q4_K, BlockType.IQ4_NL, BlockType.Q8_0)
"""Types that are measured where measuring all would take too long; others follow from their error in weights."""

MOST_WORK = 4e14
"""Multiplications, about; what is above is not measured type by type."""

ROWS = 8192
"""Tokens to measure on."""

SAVE_EVERY = 5.0
"""Seconds."""


def candidates(row: int) -> list[BlockType]:
    """Types that rows of so many weights can have and edgert can write."""
    from edgert_quant.blocks.quantizer import writable_types

    known = writable_types()
    return [kind for kind in KINDS if row % kind.block_size == 0 and kind in known]


def choices(model: Model, fixed: Mapping[str, BlockType]) -> dict[str, list[BlockType]]:
    """The types that each tensor which is quantized may have: its fixed one, or all candidates."""
    weights = model.plan.weights
    return {n: [fixed[n]] if n in fixed else candidates(weights[n].shape[-1]) for n in model.matrices}


class Sensitivities:
    """Measures, and keeps what was measured in a file so that a stopped run goes on from there."""

    def __init__(self, material: Material, importance: Importance, path: Path, *, threads: int | None = None) -> None:
        self._material, self._importance, self._path, self._threads = material, importance, path, threads
        self._batches = material.fit[: max(ROWS // (material.window * BATCH), 1)]
        self._saved = time.monotonic()
        self._known: dict[str, tuple[float | None, float]] = {}
        if path.exists():
            document = json.loads(path.read_text())
            self._known = {k: tuple(v) for k, v in document["found"].items()} if document["key"] == material.key else {}

    def measure(self, fixed: Mapping[str, BlockType], progress: Progress | None = None) -> Costs:
        """Of every tensor that is quantized; those of a fixed type in that alone."""
        try:
            return self._measured(fixed, progress)
        finally:
            self._save()

    def _measured(self, fixed: Mapping[str, BlockType], progress: Progress | None) -> Costs:
        material = self._material
        names, kinds = material.model.matrices, choices(material.model, fixed)
        probed = {name: self._probes(own, names) for name, own in kinds.items()}
        walk = material.model.walk()
        order = sorted(names, key=walk.first_use)
        total, done = sum(map(len, probed.values())), 0
        place, states = 0, [State() for _ in self._batches]
        costs: Costs = {}
        for name in order:
            cut = max(cut for cut in (0, *walk.cuts) if cut <= walk.first_use(name))
            if cut > place:
                states = [
                    walk.run(batch, state=state, first=place, end=cut)
                    for batch, state in zip(self._batches, states, strict=True)
                ]
                place = cut
            measured: dict[BlockType, float] = {}
            errors: dict[BlockType, float] = {}
            for kind in kinds[name]:
                divergence, errors[kind] = self._one(walk, name, kind, place, states, kind in probed[name])
                if divergence is not None:
                    measured[kind] = divergence
                    done += 1
                    if progress:
                        progress("measure", done, total)
            costs[name] = filled(measured, errors)
        return {name: costs[name] for name in names}

    def _probes(self, kinds: Sequence[BlockType], names: Sequence[str]) -> list[BlockType]:
        plan = self._material.model.plan
        weights = sum(int(np.prod(plan.weights[name].shape)) for name in names)
        if plan.spec.experts:
            weights = weights * max(plan.spec.experts_used, 1) // plan.spec.experts
        tokens = sum(len(batch.tokens) for batch in self._batches)
        if len(names) * len(kinds) * weights * tokens / 2 <= MOST_WORK:
            return list(kinds)
        return [kind for kind in kinds if kind in PROBES] or list(kinds[:1])

    def _one(
        self,
        walk: Layerwise,
        name: str,
        kind: BlockType,
        place: int,
        states: Sequence[State],
        run: bool,
    ) -> tuple[float | None, float]:
        """The divergence (None unless it is to be `run`), and the weighted squared error of the weights."""
        key = f"{name} {kind.name}"
        known = self._known.get(key)
        if known is not None and (known[0] is not None) == run:
            return known
        shape = walk.weights.weights[name].shape
        packed = pack(walk.weights, name, kind, self._importance, self._threads)
        tried = dequantize(packed, kind).reshape(shape)
        divergence, error = None, 0.0
        if run:
            walk.weights.replaced[name] = tried
            found = [
                self._material.targets(batch).divergence(walk.logits(batch, state=state, first=place))
                for batch, state in zip(self._batches, states, strict=True)
            ]
            del walk.weights.replaced[name]
            divergence = float(np.concatenate(found).mean())
        importance = self._importance.of(name)
        for i in range(shape[0] if len(shape) == 3 else 1):
            whole = walk.weights.expert(name, i) if len(shape) == 3 else walk.weights.whole(name)
            squares = (whole - (tried[i] if len(shape) == 3 else tried)) ** 2
            error += float((squares if importance is None else squares * importance[i]).sum())
        self._known[key] = (divergence, error)
        if time.monotonic() > self._saved + SAVE_EVERY:
            self._save()
        return divergence, error

    def _save(self) -> None:
        write_whole(self._path, json.dumps({"key": self._material.key, "found": self._known}).encode())
        self._saved = time.monotonic()


def filled(measured: Mapping[BlockType, float], errors: Mapping[BlockType, float]) -> dict[BlockType, float]:
    """Divergences of all types that `errors` has: where none was measured it goes with the error of the weights, to the
    power that fits those that were.
    """
    x = np.log(np.maximum([errors[kind] for kind in measured], 1e-30))
    y = np.log(np.maximum(list(measured.values()), 1e-9))
    power, base = np.polyfit(x, y, 1) if len(measured) > 1 else (1.0, y[0] - x[0])
    return {
        kind: measured[kind] if kind in measured else float(np.exp(base + power * np.log(max(error, 1e-30))))
        for kind, error in errors.items()
    }
