"""Experts alone give what the reference gives when it computes a mixture whose rows have one expert each."""

from __future__ import annotations

import numpy as np
import pytest
from edgert_models import ops
from edgert_models.errors import BackendError
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_runtimes.conformance.tiny import normalized_error, random_weights, tiny_spec, type_of_role
from edgert_runtimes.cpu.backend import CpuBackend
from edgert_runtimes.cpu.experts import PAIRS
from edgert_runtimes.reference.ops import Weights, activate


def expected(op: ops.Moe, weights: Weights, x: np.ndarray, ids: np.ndarray) -> np.ndarray:
    out = np.empty((len(x), op.out.width))
    for i, expert in enumerate(ids):
        row = x[i : i + 1].astype(np.float64)
        gate = weights.expert(row, op.gate, op.gate_bias, int(expert), op.hidden)
        up = weights.expert(row, op.up, op.up_bias, int(expert), op.hidden)
        out[i] = weights.expert(activate(gate, up, op.kind), op.down, op.down_bias, int(expert), op.out.width)
    return out


@pytest.mark.parametrize("block_type", [BlockType.F32, BlockType.Q8_0, BlockType.Q4_K])
@pytest.mark.parametrize("architecture", ["qwen3moe", "gpt-oss"])
@pytest.mark.parametrize("pairs", [1, 3, 40, PAIRS + 7])
def test_each_pair_has_its_expert(architecture: str, block_type: BlockType, pairs: int) -> None:
    plan = build_plan(tiny_spec(architecture, width=256, head_size=64, expert_feed_forward=256))
    provider = random_weights(plan, 1, type_of_role(block_type))
    experts = CpuBackend().load_experts(plan, provider, threads=2)
    rng = np.random.default_rng(0)
    places = [index for index, op in enumerate(plan.ops) if isinstance(op, ops.Moe)]
    for index in [*places, places[0]]:
        op = plan.ops[index]
        assert isinstance(op, ops.Moe)
        x = rng.standard_normal((pairs, op.x.width), dtype=np.float32)
        ids = rng.integers(0, op.experts, pairs).astype(np.int32)
        found = experts.compute(index, x, ids)
        assert normalized_error(found, expected(op, Weights(provider), x, ids)) < (
            1e-9 if block_type is BlockType.F32 else 5e-4
        )
    experts.close()
    experts.close()
    with pytest.raises(BackendError, match="the experts are closed"):
        experts.compute(places[0], x, ids)
