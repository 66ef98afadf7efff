"""Pools fill what they are given, and no more."""

from __future__ import annotations

import pytest
from edgert_models.errors import MemoryBudgetError, UnsupportedError
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import StoredWeight
from edgert_runtimes.conformance.tiny import tiny_spec
from edgert_runtimes.cuda.offload.pools import plan_pools, tensors_of
from edgert_runtimes.cuda.weights import Tensor
from hypothesis import given
from hypothesis import strategies as st

PLAN = build_plan(tiny_spec("gpt-oss", layers=3, experts=16, experts_used=4))
LAST = "blk.2.ffn_down_exps.weight"


def tensors(last: BlockType = BlockType.F16) -> dict[str, Tensor]:
    """All in F32, but for one tensor, whose layer is of a kind of its own then."""
    kinds = {name: last if name == LAST else BlockType.F32 for name in PLAN.weights}
    return {
        name: Tensor(name, StoredWeight(kinds[name], weight.shape), kinds[name])
        for name, weight in PLAN.weights.items()
    }


@given(room=st.integers(0, 4 << 20))
def test_pools_take_what_they_are_given(room: int) -> None:
    least = sum(pool.expert_bytes for pool in plan_pools(PLAN, tensors(), {}, 1 << 30))
    if room < least:
        with pytest.raises(MemoryBudgetError, match="an expert of each kind") as caught:
            plan_pools(PLAN, tensors(), {"weights": 1000}, 1000 + room)
        assert (caught.value.needed, caught.value.available) == (1000 + least, 1000 + room)
        return
    pools = plan_pools(PLAN, tensors(), {"weights": 1000}, 1000 + room)
    assert [len(pool.mixtures) for pool in pools] == [2, 1]
    assert sum(pool.bytes for pool in pools) <= room
    assert all(1 <= pool.slots <= pool.everyone for pool in pools)
    full = all(pool.slots == pool.everyone for pool in pools)
    assert full or room - sum(pool.bytes for pool in pools) < 2 * sum(pool.expert_bytes for pool in pools)


def test_every_tensor_of_an_expert_counts() -> None:
    (first, _) = plan_pools(PLAN, tensors(), {}, 1 << 30)
    assert first.sizes == (64 * 32 * 4, 64 * 32 * 4, 64 * 32 * 4, 32 * 4, 32 * 4, 64 * 4)
    names = tensors_of(PLAN.ops[first.mixtures[0]])  # type: ignore[arg-type]
    assert len(names) == len(first.sizes)


def test_types_without_kernels_are_refused() -> None:
    odd = tensors()
    odd[LAST] = Tensor(LAST, StoredWeight(BlockType.F64, odd[LAST].stored.shape), BlockType.F32)
    with pytest.raises(UnsupportedError, match=rf"tensor {LAST}: experts of type F64 have no kernel"):
        plan_pools(PLAN, odd, {}, 1 << 30)
