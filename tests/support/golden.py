"""The golden checkpoints: what `transformers` computes for them, and what a backend does with a file made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from edgert_models.registry import build_plan, spec_from_gguf
from edgert_quant.gguf import GgufFile
from edgert_runtimes.base import Backend, Limits
from edgert_runtimes.conformance.tiny import batch, in_rings, limits
from edgert_runtimes.weights import GgufWeights
from numpy.typing import NDArray

FOLDER = Path(__file__).parents[1] / "golden"
NAMES = tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))
REFUSED_BY: dict[str, tuple[str, ...]] = {}
"""Backends that refuse a checkpoint at load, by its name: docs/models.md is made of it."""


def expected(name: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Tokens [sequences, length] and logits [sequences, length, vocabulary] of a checkpoint."""
    with np.load(FOLDER / name / "logits.npz") as arrays:
        return arrays["tokens"], arrays["logits"]


def logits_of(backend: Backend, path: Path, tokens: NDArray[np.int64], **changes: object) -> NDArray[np.float32]:
    """Logits [sequences, length, vocabulary] of a GGUF file, all sequences in one step."""
    own: Limits = limits(**changes)
    blocks = -(-tokens.shape[1] // own.block_size)
    with GgufFile.open(path) as file:
        spec = spec_from_gguf(file.metadata, {name: tensor.shape for name, tensor in file.tensors.items()})
        session = backend.load(build_plan(spec, own.context), GgufWeights(file), own)
        try:
            step = batch([(list(row), 0, list(range(i * blocks, (i + 1) * blocks))) for i, row in enumerate(tokens)])
            return session.step(step).reshape(*tokens.shape, -1)
        finally:
            session.close()


def logits_in_steps(
    backend: Backend, path: Path, tokens: NDArray[np.int64], *, rings: bool = False
) -> NDArray[np.float32]:
    """The same of two sequences: some of the first, its next token beside some of the second, then both in step. With
    `rings` layers with a window have as few blocks of their own as can be, each of a single position.
    """
    size, length = 1 if rings else 16, tokens.shape[1]
    first, second = range(40, 40 + -(-length // size)), range(1, 1 + -(-length // size))
    steps = [batch([(list(tokens[0, :7]), 0, first)], block_size=size)]
    for i in range(7, length):
        start = 0 if i == 7 else i
        new = [(list(tokens[0, i : i + 1]), i, first), (list(tokens[1, start : i + 1]), start, second)]
        steps.append(batch(new, block_size=size))
    with GgufFile.open(path) as file:
        spec = spec_from_gguf(file.metadata, {name: tensor.shape for name, tensor in file.tensors.items()})
        plan, own = build_plan(spec, limits().context), limits(block_size=size)
        if rings:
            steps, blocks = in_rings(steps, plan.reach, size)
            own = limits(block_size=size, window_blocks=blocks)
        session = backend.load(plan, GgufWeights(file), own)
        try:
            alone, *both = [session.step(step) for step in steps]
        finally:
            session.close()
    rows = [np.concatenate([alone, *(out[:1] for out in both)]), np.concatenate([out[1:] for out in both])]
    return np.stack(rows)


def relative_error(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> tuple[float, float]:
    """The norm of the difference over the norm of what is wanted, and the same of the largest absolute values."""
    difference = found.astype(np.float64) - wanted
    largest = float(np.abs(difference).max() / np.abs(wanted).max())
    return float(np.linalg.norm(difference) / np.linalg.norm(wanted.astype(np.float64))), largest
