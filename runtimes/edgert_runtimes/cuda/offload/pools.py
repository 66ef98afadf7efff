"""How many experts of which kind the GPU's memory has room for.

Experts whose tensors have the same types and shapes are of one *kind*, and share a pool: each of their tensors (gate,
up, down and biases, in this order) has a stretch of memory with one place for every slot. Slot s of a pool is what
kernels take for expert s of a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgert_models import ops
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan

from edgert_runtimes.cuda.weights import Tensor
from edgert_runtimes.experts import mixtures_of
from edgert_runtimes.memory import check_memory


def tensors_of(op: ops.Moe) -> tuple[str, ...]:
    """The names of a mixture's tensors: of one without gates, whose gate is its up matrix, that name once."""
    names = (op.gate, op.up, op.down, op.gate_bias, op.up_bias, op.down_bias)
    return tuple(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class Pool:
    """Experts of one kind: `mixtures` are indices in the plan, each of `experts` experts, `sizes` are the bytes of each
    tensor of one of them; `slots` of them fit.
    """

    mixtures: tuple[int, ...]
    experts: int
    sizes: tuple[int, ...]
    slots: int

    @property
    def expert_bytes(self) -> int:
        """Of one expert."""
        return sum(self.sizes)

    @property
    def everyone(self) -> int:
        """How many there are in all mixtures."""
        return self.experts * len(self.mixtures)

    @property
    def bytes(self) -> int:
        """On the GPU."""
        return self.slots * self.expert_bytes


def plan_pools(plan: Plan, tensors: Mapping[str, Tensor], fixed: Mapping[str, int], allowed: int) -> list[Pool]:
    """Pools that share what `fixed` (bytes by what takes them) leaves of the GPU's memory, in proportion to what their
    experts take in all. MemoryBudgetError where there is no room for one expert of each kind,
    UnsupportedError for experts whose type has no kernels.
    """
    mixtures = mixtures_of(plan)
    kinds: dict[object, list[int]] = {}
    for index, op in mixtures.items():
        kind = tuple((tensors[name].stored.type, tensors[name].stored.shape) for name in tensors_of(op))
        kinds.setdefault((kind, op.kind), []).append(index)
        for name in (op.gate, op.up, op.down):
            if tensors[name].type is not tensors[name].stored.type:
                raise UnsupportedError(
                    f"tensor {name}: experts of type {tensors[name].stored.type.name} have no kernel, and can only be "
                    "computed where all of them fit in the GPU's memory"
                )
    pools = []
    for indices in kinds.values():
        op = mixtures[indices[0]]
        sizes = tuple(tensors[name].nbytes // op.experts for name in tensors_of(op))
        pools.append(Pool(tuple(indices), op.experts, sizes, 1))
    least = {"an expert of each kind": sum(pool.bytes for pool in pools)}
    check_memory({**fixed, **least}, allowed, "the GPU's memory")
    left = allowed - sum(fixed.values()) - sum(least.values())
    whole = sum(pool.expert_bytes * pool.everyone for pool in pools)
    return [replace(pool, slots=min(1 + left * pool.everyone // whole, pool.everyone)) for pool in pools]
