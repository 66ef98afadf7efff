"""How many experts of which shape the GPU's memory has room for.

Experts whose matrices have the same types and shapes are of one *kind*, and share a pool: their tensors (gate, up, down
and biases, in this order) each have a stretch of memory with one place for every slot. Slot s of a pool is what kernels
take for expert s of a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from edgert_models import ops
from edgert_models.errors import MemoryBudgetError
from edgert_models.graph import Plan

from edgert_runtimes.memory import gibibytes

Sizes = tuple[int, ...]
"""Bytes of each tensor of one expert."""


def tensors_of(op: ops.Moe) -> tuple[str, ...]:
    """The names of a mixture's tensors."""
    names = (op.gate, op.up, op.down, op.gate_bias, op.up_bias, op.down_bias)
    return tuple(name for name in names if name is not None)


@dataclass(frozen=True)
class Pool:
    """Experts of one kind: `mixtures` are indices in the plan, each of `experts` experts; `slots` of them fit."""

    mixtures: tuple[int, ...]
    experts: int
    sizes: Sizes
    slots: int

    @property
    def expert_bytes(self) -> int:
        """Of one expert, each tensor from a multiple of 16 on."""
        return sum(self.sizes)

    @property
    def bytes(self) -> int:
        """On the GPU."""
        return self.slots * self.expert_bytes


def plan_pools(plan: Plan, tensor_bytes: Mapping[str, int], kinds: Mapping[str, str], budget: int) -> list[Pool]:
    """Pools that share `budget` bytes in proportion to what their experts take. `tensor_bytes` are whole tensors',
    `kinds` what else tells two tensors apart (their type). MemoryBudgetError where a kind gets no slot.
    """
    groups: dict[tuple[tuple[int, str], ...], list[int]] = {}
    for index, op in enumerate(plan.ops):
        if isinstance(op, ops.Moe):
            key = tuple((tensor_bytes[name] // op.experts, kinds[name]) for name in tensors_of(op))
            groups.setdefault((*key, (op.experts, op.kind)), []).append(index)
    whole = sum(tensor_bytes[name] for index in _all(groups.values()) for name in tensors_of(_moe(plan, index)))
    pools = []
    for (*tensors, (experts, _)), mixtures in groups.items():
        sizes = tuple(size for size, _ in tensors)
        share = budget * (sum(sizes) * experts * len(mixtures)) // whole
        slots = min(share // sum(sizes), experts * len(mixtures))
        if slots < 1:
            least = whole // (experts * len(mixtures))
            raise MemoryBudgetError(
                f"the GPU has {gibibytes(max(budget, 0))} left for experts, which is less than one of each kind "
                f"({gibibytes(sum(sizes))} of {gibibytes(whole)} in all); allow more memory or a shorter context",
                needed=least,
                available=max(budget, 0),
            )
        pools.append(Pool(tuple(mixtures), experts, sizes, slots))
    return pools


def _all(groups: Sequence[list[int]] | np.ndarray) -> list[int]:
    return [index for group in groups for index in group]


def _moe(plan: Plan, index: int) -> ops.Moe:
    op = plan.ops[index]
    assert isinstance(op, ops.Moe)
    return op
