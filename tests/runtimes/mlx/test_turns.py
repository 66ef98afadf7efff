"""Rotations on MLX: by angles that are found once a step, and on a GPU by MLX's own kernel."""

# ruff: noqa: E402

import numpy as np
import pytest
from edgert_models.graph import Graph
from edgert_models.ops import Rope as RopeOp
from edgert_models.ops import Value
from edgert_models.rope import Rope, RopeLayout
from edgert_runtimes.conformance import CASES, Case, compare
from edgert_runtimes.conformance.cases import plan_of

mx = pytest.importorskip("mlx.core", reason="the mlx package is not installed")
pytestmark = pytest.mark.mlx

from edgert_runtimes.mlx import turns
from edgert_runtimes.mlx.backend import MlxBackend
from edgert_runtimes.mlx.weights import Weights


@pytest.mark.parametrize("case", [case for case in CASES if case.op == "rope"], ids=str)
def test_by_positions(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU; the conformance cases are turned by angles where there is none."""
    monkeypatch.setattr(turns, "on_metal", lambda: True)
    monkeypatch.setenv("EDGERT_MLX_DTYPE", "float32")
    error, bound = compare(MlxBackend(), case)
    assert error <= bound


def test_layers_share_their_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "on_metal", lambda: False)
    slow = Rope(dims=8, base=1e6, layout=RopeLayout.HALVES)

    def wire(g: Graph, x: Value) -> Value:
        for rope in (None, slow, None, slow):
            x = g.rope(x, 4, rope or g.spec.rope)
        return x

    plan = plan_of(wire)
    shared = turns.Turns(plan, Weights({}, {}, {}))
    assert [shared.number(op) for op in plan.ops if isinstance(op, RopeOp)] == [0, 1, 0, 1]
    found = shared.at(mx.array([3, 70]), compiled=False)
    assert [cosines.shape for cosines, _ in found] == [(2, 1, 1, 8), (2, 1, 1, 4)]
    own = np.outer([3, 70], 1e6 ** -(np.arange(4) / 4))
    np.testing.assert_allclose(np.asarray(found[1][0])[:, 0, 0], np.cos(own), atol=1e-5)
    np.testing.assert_allclose(np.asarray(found[1][1])[:, 0], np.stack([-np.sin(own), np.sin(own)], 1), atol=1e-5)
    monkeypatch.setattr(turns, "on_metal", lambda: True)
    assert shared.at(mx.array([3]), compiled=False) == []
