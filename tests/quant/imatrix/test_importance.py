"""Mean squares, the pool, and whether a matrix is of a model."""

import re

import numpy as np
import pytest
from edgert_models.errors import ConversionError, EdgertError
from edgert_models.graph import Role, Weight
from edgert_quant.imatrix import POOL_ROWS, Importance, Sums, coverage, require_coverage

from tests.quant.imatrix.samples import random_sums

EXPERTS = Weight("blk.0.ffn_up_exps.weight", (4, 8, 6), Role.EXPERTS)
MATRIX = Weight("blk.0.attn_q.weight", (8, 6), Role.MATRIX)


def test_a_single_matrix_has_the_mean() -> None:
    sums = random_sums(1, 6)
    found = Importance({"a": sums}).of("a")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, sums.in_sum2 / 1000, rtol=1e-6)


def test_experts_are_shrunk_toward_the_pool() -> None:
    mean = np.array([[1.0, 2.0], [3.0, 8.0], [5.0, 5.0]])
    counts = np.array([10_000, POOL_ROWS, 0])
    sums = Sums((mean * counts[:, None]).astype(np.float32), counts)
    found = Importance({"a": sums}).of("a")
    pool = sums.in_sum2.sum(axis=0) / counts.sum()
    np.testing.assert_allclose(found[0], mean[0], rtol=0.02)
    np.testing.assert_allclose(found[1], (mean[1] + pool) / 2, rtol=1e-6)  # as many rows of its own as of the pool
    np.testing.assert_allclose(found[2], pool, rtol=1e-6)


def test_where_nothing_was_seen_all_columns_count_alike() -> None:
    sums = Sums(np.zeros((3, 4), np.float32), np.zeros(3, np.int64))
    np.testing.assert_array_equal(Importance({"a": sums}).of("a"), np.ones((3, 4), np.float32))


def test_fitted_keeps_what_the_model_has() -> None:
    own = {EXPERTS.name: random_sums(4, 6), MATRIX.name: random_sums(1, 6), "blk.9.other.weight": random_sums(1, 3)}
    output = Weight("output.weight", (9, 6), Role.MATRIX)
    router = Weight("blk.0.ffn_gate_inp.weight", (4, 6), Role.ROUTER)
    norm = Weight("blk.0.attn_norm.weight", (6,), Role.VECTOR)
    fitted = Importance(own).fitted([MATRIX, EXPERTS, output, router, norm])
    assert list(fitted.sums) == [MATRIX.name, EXPERTS.name]


def test_one_count_for_all_experts() -> None:
    flat = Sums(np.arange(24, dtype=np.float32)[None], np.array([5]))
    fitted = Importance({EXPERTS.name: flat}).fitted([EXPERTS]).sums[EXPERTS.name]
    assert fitted.in_sum2.shape == (4, 6)
    assert fitted.counts.tolist() == [5, 5, 5, 5]


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        ({}, "x.gguf: has nothing about blk.0.attn_q.weight; is it of another model?"),
        ({MATRIX.name: random_sums(1, 7)}, "has 1 x 7 columns for blk.0.attn_q.weight, which has 1 x 6; is it of"),
        ({MATRIX.name: random_sums(1, 6)}, "has nothing about blk.0.ffn_up_exps.weight"),
        (
            {MATRIX.name: random_sums(1, 6), EXPERTS.name: random_sums(8, 6)},
            "has 8 x 6 columns for blk.0.ffn_up_exps.weight, which has 4 x 6",
        ),
    ],
)
def test_of_another_model(sums: dict[str, Sums], message: str) -> None:
    with pytest.raises(ConversionError, match=re.escape(message)):
        Importance(sums, path="x.gguf").fitted([MATRIX, EXPERTS])


def counted(*counts: int) -> Sums:
    return Sums(np.ones((len(counts), 2), np.float32), np.array(counts))


def test_coverage_by_layer() -> None:
    sums = {f"blk.{i}.ffn_{part}_exps.weight": counted(7, 0, 9 + i) for i in (10, 2) for part in ("up", "down")}
    sums["blk.2.ffn_gate_exps.weight"] = counted(8, 8, 4)
    sums["blk.2.attn_q.weight"] = counted(16)
    first, second = coverage(Importance(sums))
    assert (first.layer, first.tokens.tolist(), first.least, first.median) == ("blk.2", [7, 0, 4], 0, 4)
    assert (second.layer, second.tokens.tolist()) == ("blk.10", [7, 0, 19])
    assert first.below(5) == [1, 2]
    assert first.plain(5) == {"layer": "blk.2", "experts": 3, "least": 0, "median": 4.0, "below": [1, 2]}
    assert coverage(Importance(sums, counted=False)) == ()


def test_a_threshold() -> None:
    found = Importance({"blk.3.ffn_up_exps.weight": counted(7, 2, 9)}, path="i.gguf")
    require_coverage(found, 2)
    message = r"i\.gguf: expert 1 of blk\.3 has seen 2 tokens, fewer than 8 \(and 1 more of this layer\); add text"
    with pytest.raises(EdgertError, match=message):
        require_coverage(found, 8, EdgertError, "add text")
    with pytest.raises(ConversionError, match="does not say how many tokens each expert has seen"):
        require_coverage(Importance(found.sums, counted=False), 1)
