"""Memory that loading takes beside the weights themselves."""

import sys

import pytest

from tests.support.budget import run_limited

pytest.importorskip("mlx.core", reason="the mlx package is not installed")
pytestmark = pytest.mark.mlx

SCRIPT = """
import numpy as np
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import StoredWeight
from edgert_runtimes.conformance.tiny import limits, tiny_spec
from edgert_runtimes.mlx.backend import MlxBackend

class Made:
    # Rows of zeros, which take no memory of their own.
    def __init__(self, plan, kind):
        types = {w.name: BlockType.F32 if w.role.stays_float else kind for w in plan.weights.values()}
        self.weights = {w.name: StoredWeight(types[w.name], w.shape) for w in plan.weights.values()}
    def read(self, name, start=0, count=None):
        stored = self.weights[name]
        rows = int(np.prod(stored.shape[:-1])) if count is None else count
        return np.zeros((rows, stored.type.row_bytes(stored.shape[-1])), np.uint8)
    def map(self, name):
        return None
    def check(self):
        pass

def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

sizes = dict(width=1024, layers=2, expert_feed_forward=1024, experts=24, vocabulary=4096, head_size=64)
plan = build_plan(tiny_spec(**sizes))
MlxBackend().load(build_plan(tiny_spec()), Made(build_plan(tiny_spec()), BlockType.F32), limits()).close()
before = peak()
session = MlxBackend().load(plan, Made(plan, BlockType[sys.argv[1]]), limits(blocks=16))
print(json.dumps([peak() - before, session.report.weight_bytes, session.report.cache_bytes]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "F16"])
def test_loading_takes_little_more_than_the_weights(kind: str) -> None:
    taken, weights, cache = run_limited(SCRIPT, kind)  # type: ignore[misc]
    assert weights > 100 << 20
    assert weights < taken <= 1.2 * weights + cache
