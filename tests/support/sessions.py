"""A tiny model whose session every backend's tests look at, and a prompt for it."""

from collections.abc import Mapping

import numpy as np
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Batch
from edgert_runtimes.conformance.tiny import batch, random_weights, tiny_spec
from edgert_runtimes.weights import MemoryWeights

PLAN = build_plan(tiny_spec())
WEIGHTS = random_weights(PLAN, 1)
PROMPT = [1, 2, 3, 4, 5, 6, 7]


def one(tokens: list[int] = PROMPT) -> Batch:
    """The beginning of one sequence, in the first blocks."""
    return batch([(tokens, 0, range(16))])


def changed_weights(changes: Mapping[str, np.ndarray | None], given: MemoryWeights = WEIGHTS) -> MemoryWeights:
    """With other values, or without a tensor."""
    tensors = {name: (s.type, s.shape, given.read(name)) for name, s in given.weights.items() if name not in changes}
    for name, values in changes.items():
        if values is not None:
            tensors[name] = (BlockType.F32, given.weights[name].shape, values.view(np.uint8))
    return MemoryWeights(tensors)
