"""Blocks taken apart and put together again."""

import numpy as np
import pytest
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.compensation.grids import GRIDS, put_together, take_apart

from tests.support.ggml import samples

each = pytest.mark.parametrize("kind", list(GRIDS), ids=lambda kind: kind.name)


@each
@pytest.mark.parametrize("name", ["gaussian", "outliers", "zero"])
def test_blocks_come_back_to_the_bit(kind: BlockType, name: str) -> None:
    data = quantize(samples(4, 1024)[name], kind).reshape(-1, kind.block_bytes)
    parts = take_apart(data, kind)
    np.testing.assert_array_equal(put_together(parts, kind), data)
    np.testing.assert_array_equal(parts.weights(kind), dequantize(data, kind))


@each
def test_any_integers_and_codes_are_stored(kind: BlockType) -> None:
    random, grid = np.random.default_rng(3), GRIDS[kind]
    parts = take_apart(quantize(samples(8, 1024)["gaussian"], kind).reshape(-1, kind.block_bytes), kind)
    parts.codes[:] = random.integers(0, len(grid.values), parts.codes.shape)
    for i, (low, high) in enumerate((grid.scales, grid.floors)):
        parts.integers[:, i] = random.integers(low, high + 1, parts.integers[:, i].shape)
    np.testing.assert_array_equal(dequantize(put_together(parts, kind), kind), parts.weights(kind))
