"""Packing, unpacking and multiplying, for every packed type and instruction set."""

import numpy as np
import pytest
from edgert_quant.blocks import BlockType
from edgert_runtimes.cpu.formats import LANES, PANEL_ALIGNMENT, Format, available, format_for, packed_types

from tests.support.packed import Packed, decode_activations, every_format, random_rows

every = pytest.mark.parametrize("packed_format", every_format())


def lengths(block_type: BlockType) -> list[int]:
    """Row lengths: odd ones where the type allows them, blocks in odd and even number."""
    if block_type.block_size == 1:
        return [1, 3, 15, 16, 17, 64, 77, 200]
    return [n * block_type.block_size for n in ((1, 2, 3, 13) if block_type.block_size == 32 else (1, 2, 3, 8))]


def inputs(tokens: int, k: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng([seed, tokens, k]).standard_normal((tokens, k), dtype=np.float32)


def normalized_error(result: np.ndarray, exact: np.ndarray) -> float:
    return float(np.sum((result - exact) ** 2) / np.sum(exact**2))


@every
@pytest.mark.parametrize("extreme", [False, True])
def test_a_row_unpacks_to_exactly_what_its_type_defines(packed_format: Format, extreme: bool) -> None:
    for k in lengths(packed_format.type):
        packed = Packed(packed_format, random_rows(packed_format.type, 19, k, extreme=extreme), k)
        unpacked = np.stack([packed.unpack(row) for row in range(packed.rows)])
        np.testing.assert_array_equal(unpacked.view(np.int32), packed.weights.view(np.int32))


@every
@pytest.mark.parametrize("rows", [1, 15, 16, 17])
def test_lanes_beyond_the_rows_hold_the_first(packed_format: Format, rows: int) -> None:
    k = lengths(packed_format.type)[2]
    packed = Packed(packed_format, random_rows(packed_format.type, rows, k), k)
    for lane in range(rows, packed.n_panels * LANES):
        np.testing.assert_array_equal(packed.unpack(lane), packed.unpack(rows // LANES * LANES))
    assert packed.multiply(packed.activations(inputs(3, k))).all()


@every
def test_rows_may_lie_apart(packed_format: Format) -> None:
    k = lengths(packed_format.type)[-1]
    raw = random_rows(packed_format.type, 32, k)
    apart = Packed(packed_format, raw[::2], k)
    together = Packed(packed_format, np.ascontiguousarray(raw[::2]), k)
    used = lengths_in_panel(together)
    np.testing.assert_array_equal(apart.data[:used], together.data[:used])


def lengths_in_panel(packed: Packed) -> int:
    """Bytes of one panel that mean something: the rest only fills the last cache line."""
    return int(packed.panel_bytes) // PANEL_ALIGNMENT * PANEL_ALIGNMENT - PANEL_ALIGNMENT


@every
def test_products_are_as_good_as_the_type(packed_format: Format) -> None:
    limit = 1e-7 if packed_format.activation.direct else 5e-4
    for k in (*lengths(packed_format.type), 1024):
        packed = Packed(packed_format, random_rows(packed_format.type, 50, k), k)
        x = inputs(5, k)
        result = packed.multiply(packed.activations(x))
        assert normalized_error(result, x.astype(np.float64) @ packed.weights.T.astype(np.float64)) < limit


@every
@pytest.mark.parametrize("extreme", [False, True])
def test_products_are_exact_up_to_float32_sums(packed_format: Format, extreme: bool) -> None:
    """Against float64 with the same stored inputs, relative to the size of what is summed."""
    for k in (lengths(packed_format.type)[1], 2048):
        packed = Packed(packed_format, random_rows(packed_format.type, 35, k, extreme=extreme), k)
        stored = packed.activations(inputs(7, k))
        x = decode_activations(packed_format.activation, stored, k)
        weights = packed.weights.astype(np.float64)
        result = packed.multiply(stored)
        blocks = np.abs(weights).reshape(35, -1, packed_format.type.block_size).max(axis=2)
        sizes = np.abs(x).reshape(7, blocks.shape[1], -1).sum(axis=2) @ blocks.T
        assert np.all(np.abs(result - x @ weights.T) <= 1e-6 * sizes)


@every
def test_results_do_not_depend_on_tiles_or_company(packed_format: Format) -> None:
    k = lengths(packed_format.type)[-1]
    packed = Packed(packed_format, random_rows(packed_format.type, 75, k), k)
    stored = packed.activations(inputs(27, k))
    whole = packed.multiply(stored)
    assert np.isfinite(whole).all()
    for tokens in range(1, 27):
        np.testing.assert_array_equal(packed.multiply(stored[:tokens]), whole[:tokens])
        np.testing.assert_array_equal(packed.multiply(stored[tokens:]), whole[tokens:])
    for first in (0, 1, 16, 37):
        for count in (1, 2, 15, 16, 17, 32, 38):
            for tokens in (1, 2, 27):
                columns = whole[:tokens, first : first + count]
                np.testing.assert_array_equal(packed.multiply(stored[:tokens], first, count), columns)


@every
def test_nothing_to_do(packed_format: Format) -> None:
    k = lengths(packed_format.type)[0]
    packed = Packed(packed_format, random_rows(packed_format.type, 16, k), k)
    stored = packed.activations(inputs(1, k))
    assert packed.multiply(stored, 0, 0).shape == (1, 0)
    assert packed.multiply(stored[:0]).shape == (0, 16)


@every
def test_an_input_that_is_no_number_shows(packed_format: Format) -> None:
    k = 256
    packed = Packed(packed_format, random_rows(packed_format.type, 16, k), k)
    for bad in (np.nan, np.inf, -np.inf):
        x = inputs(2, k)
        x[0, 33] = bad
        result = packed.multiply(packed.activations(x))
        assert not np.isfinite(result[0]).any()
        assert np.isfinite(result[1]).all()


def test_every_type_of_weights_is_packed() -> None:
    others = ["F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K"]
    assert {t.name for t in BlockType} - {t.name for t in packed_types()} == set(others)
    assert format_for(BlockType.F64) is None
    assert format_for(BlockType.Q4_K) is format_for(BlockType.Q4_K)


def test_kernels_have_names_of_their_own() -> None:
    """A cache that mixed two of them up would be silent."""
    formats = [format_for(block_type, isa) for isa in available() for block_type in packed_types()]
    keys: dict[tuple[str, str], set[str]] = {}
    for each in formats:
        assert each is not None
        for kernel in each.kernels():
            keys.setdefault((kernel.name, "gemm" * ("gemm" in kernel.name)), set()).add(kernel.cache_key())
    assert all(len(found) == 1 for found in keys.values())
    gemms = [each.gemm.name for each in formats if each is not None]
    assert len(set(gemms)) == len(gemms)
