"""How much a weight counts beside its inputs, where types have few bits."""

import numpy as np
import pytest
from edgert_quant.blocks import BlockType
from edgert_quant.imatrix.magnitude import with_magnitudes


@pytest.mark.parametrize("kind", [BlockType.IQ3_S, BlockType.Q4_K, BlockType.Q4_0, BlockType.Q8_0])
def test_types_of_more_bits_count_inputs_alone(kind: BlockType) -> None:
    importance = np.linspace(1, 2, 512, dtype=np.float32)
    assert with_magnitudes(importance, np.ones((3, 512), np.float32), kind) is importance


@pytest.mark.parametrize("kind", [BlockType.IQ3_XXS, BlockType.Q2_K, BlockType.IQ2_S, BlockType.IQ1_M])
def test_types_of_few_bits_count_the_weight_too(kind: BlockType) -> None:
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((3, 512)).astype(np.float32)
    weights[:, :256] *= 10
    importance = rng.uniform(0.5, 2, 512).astype(np.float32)
    found = with_magnitudes(importance, weights, kind)
    for row in range(3):
        for block in (slice(0, 256), slice(256, 512)):
            w = weights[row, block].astype(np.float64)
            expected = importance[block] * np.sqrt((w**2).mean() + w**2)
            assert found[row, block] == pytest.approx(expected, rel=1e-5)


def test_weights_stay_as_they_are() -> None:
    weights = np.full((1, 256), 3, np.float32)
    with_magnitudes(np.ones(256, np.float32), weights, BlockType.IQ2_S)
    assert (weights == 3).all()
