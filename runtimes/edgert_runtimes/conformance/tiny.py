"""Tiny models with random weights, and the batches that run them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from edgert_models.graph import Plan, Role, Weight
from edgert_models.rope import Rope, RopeLayout
from edgert_models.spec import ModelSpec
from edgert_quant.blocks import BlockType, quantize

from edgert_runtimes.base import Batch, Limits
from edgert_runtimes.batches import blocks_seen, with_rings
from edgert_runtimes.weights import MemoryWeights


def tiny_spec(architecture: str = "qwen3moe", **changes: Any) -> ModelSpec:
    """A small model of each architecture; `changes` are ModelSpec fields."""
    layout = RopeLayout.INTERLEAVED if architecture == "llama" else RopeLayout.HALVES
    sizes: dict[str, Any] = {
        "architecture": architecture,
        "vocabulary": 96,
        "context": 256,
        "width": 64,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_size": 16,
        "norm_eps": 1e-6,
        "feed_forward": 96,
        "qk_norm": {"qwen3moe": "head", "olmoe": "all"}.get(architecture),
    }
    if architecture != "llama":
        sizes.update(experts=8, experts_used=2, expert_feed_forward=32, shared_gate=architecture == "qwen2moe")
    sizes.update(changes)
    sizes.setdefault("rope", Rope(dims=sizes["head_size"], layout=layout))
    return ModelSpec(**sizes)


def type_of_role(matrices: BlockType) -> Callable[[Weight], BlockType]:
    """Matrices, experts and embedding in one type, all else in F32."""
    stored = (Role.MATRIX, Role.EXPERTS, Role.HEADS, Role.EMBEDDING)
    return lambda weight: matrices if weight.role in stored else BlockType.F32


ALL_F32 = type_of_role(BlockType.F32)


def random_weights(plan: Plan, seed: int = 0, type_of: Callable[[Weight], BlockType] = ALL_F32) -> MemoryWeights:
    """Weights that keep activations near 1: matrices scaled by 1/√in, norms between 0.5 and 1.5."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for weight in plan.weights.values():
        x = rng.standard_normal((int(np.prod(weight.shape[:-1])), weight.shape[-1]), dtype=np.float32)
        if weight.role is Role.VECTOR:
            x = 0.5 + rng.random(x.shape, dtype=np.float32)
        elif weight.role is not Role.EMBEDDING:
            x *= np.float32(weight.shape[-1] ** -0.5)
        block_type = type_of(weight)
        tensors[weight.name] = (block_type, weight.shape, quantize(x, block_type))
    return MemoryWeights(tensors)


def limits(**changes: Any) -> Limits:
    """Room for four sequences of 256 positions, with the cache in F32."""
    sizes: dict[str, Any] = {"context": 256, "rows": 256, "sequences": 4, "blocks": 64, "states": 64}
    sizes |= {"kv_type": "f32", "threads": 2}
    return Limits(**{**sizes, **changes})


def batch(
    sequences: Sequence[tuple[Sequence[int], int, Sequence[int]]],
    *,
    block_size: int = 16,
    pick: Sequence[int] | None = None,
) -> Batch:
    """A batch of (new tokens, position of the first, blocks) for each sequence; picks all rows, or `pick`. A sequence's
    states are in the slot with the number of its first block.
    """
    tokens, positions, owner, slots = [], [], [], []
    for i, (new, start, blocks) in enumerate(sequences):
        for position, token in enumerate(new, start):
            tokens.append(token)
            positions.append(position)
            owner.append(i)
            slots.append(blocks[position // block_size] * block_size + position % block_size)
    tables = np.zeros((len(sequences), max(len(blocks) for *_, blocks in sequences)), np.int32)
    for i, (*_, blocks) in enumerate(sequences):
        tables[i, : len(blocks)] = blocks
    lengths = [start + len(new) for new, start, _ in sequences]
    picked = range(len(tokens)) if pick is None else pick
    states = [blocks[0] for *_, blocks in sequences]
    arrays = (tokens, positions, owner, slots, tables, lengths, list(picked), states, states)
    return Batch(*(np.array(array, np.int32) for array in arrays))


def in_rings(steps: Sequence[Batch], reach: int, block_size: int = 16) -> tuple[list[Batch], int]:
    """The same steps, where layers with a window have as few blocks of their own as can be, and how many these are. A
    sequence is known by its first block in all steps.
    """
    owners = list(dict.fromkeys(int(table[0]) for step in steps for table in step.tables))
    most = max(int(np.bincount(step.sequence).max()) for step in steps)
    each = blocks_seen(reach, most, block_size)
    own = np.arange(each * len(owners), dtype=np.int32)[::-1].reshape(-1, each)
    rings = [own[[owners.index(int(table[0])) for table in step.tables]] for step in steps]
    return [with_rings(step, ring, block_size) for step, ring in zip(steps, rings, strict=True)], own.size


def normalized_error(x: np.ndarray, reference: np.ndarray) -> float:
    """Squared error over squared reference."""
    x, reference = x.astype(np.float64), reference.astype(np.float64)
    return float(((x - reference) ** 2).sum() / max((reference**2).sum(), 1e-300))
