"""What a model has to read and multiply for a trial: the numbers behind shares of bandwidth and peak, and rooflines.

It is a property of model and trial, not of a program: weights once a step (of experts those that a step's rows are
expected to choose, if each row chose at random), keys and values once a step, and two operations for every product.
What a program reads twice, or does besides, is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edgert_models import build_plan, ops, spec_from_gguf
from edgert_models.graph import Plan
from edgert_quant.gguf import GgufFile
from edgert_runtimes.base import WeightProvider
from edgert_runtimes.weights import GgufWeights

from edgert.measure import Phase, Trial

ROWS = 512
"""Of a prompt in one step: edgert's `rows`, llama.cpp's `ubatch`."""
KV_BYTES = 2
"""Of a number in the cache: F16, the default of all programs."""


@dataclass(frozen=True)
class Work:
    """Of one run of a trial."""

    bytes: float
    operations: float


def work_of(path: Path, trial: Trial) -> Work:
    """Of a trial of the model in a GGUF file."""
    with GgufFile.open(path) as file:
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        plan = build_plan(spec_from_gguf(file.metadata, shapes))
        return work(plan, GgufWeights(file), trial)


def work(plan: Plan, weights: WeightProvider, trial: Trial) -> Work:
    """Of a trial; see `Work`."""
    read = operations = 0.0
    for rows, sequences, position in _steps(trial):
        for op in plan.ops:
            if isinstance(op, ops.Linear):
                elements, nbytes = _size(weights, op.weight)
                read += nbytes
                operations += 2 * elements * (sequences if op.out.picked else rows)
            elif isinstance(op, ops.HeadLinear):
                elements, nbytes = _size(weights, op.weight)
                read += nbytes
                operations += 2 * elements * rows
            elif isinstance(op, ops.Moe):
                touched = 1 - (1 - op.used / op.experts) ** rows
                for name in (op.gate, op.up, op.down):
                    elements, nbytes = _size(weights, name)
                    read += nbytes * touched
                    operations += 2 * elements / op.experts * op.used * rows
            elif isinstance(op, ops.Attend):
                each = rows // sequences
                seen = np.arange(position + 1, position + each + 1)
                if op.window is not None:
                    seen = np.minimum(seen, op.window)
                read += sequences * seen[-1] * plan.caches[op.layer].width * KV_BYTES
                operations += sequences * float(seen.sum()) * 2 * (op.q.width + op.out.width)
    return Work(read, operations)


def _steps(trial: Trial) -> list[tuple[int, int, int]]:
    """(rows, sequences, first position) of every step."""
    if trial.phase in (Phase.PREFILL, Phase.FIRST_TOKEN):
        starts = range(0, trial.tokens, ROWS)
        return [(min(ROWS, trial.tokens - start), 1, trial.depth + start) for start in starts]
    return [(trial.batch, trial.batch, trial.depth + step) for step in range(trial.tokens)]


def _size(weights: WeightProvider, name: str) -> tuple[int, int]:
    """Elements and bytes."""
    stored = weights.weights[name]
    elements = int(np.prod(stored.shape, dtype=np.int64))
    return elements, elements // stored.shape[-1] * stored.type.row_bytes(stored.shape[-1])
