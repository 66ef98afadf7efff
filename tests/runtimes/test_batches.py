"""Batches that do not fit their session."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_models.registry import build_plan
from edgert_runtimes.base import Batch
from edgert_runtimes.batches import blocks_seen, check_batch, first_seen, first_seen_at, with_rings
from edgert_runtimes.conformance.tiny import batch, limits, tiny_spec
from hypothesis import given
from hypothesis import strategies as st

PLAN = build_plan(tiny_spec())
GOOD = batch([([1, 2, 3], 14, range(16)), ([9], 20, range(16, 32))])


def changed(name: str, index: int | tuple[int, int], value: int) -> Batch:
    array = getattr(GOOD, name).copy()
    array[index] = value
    return replace(GOOD, **{name: array})


def test_what_fits() -> None:
    check_batch(GOOD, limits(), PLAN)
    check_batch(replace(GOOD, pick=GOOD.pick[:0]), limits(), PLAN)
    check_batch(changed("tables", (1, 2), 1 << 30), limits(), PLAN)  # beyond what the sequence has


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("tokens", 2, 96, r"tokens\[2\] is out of range: 96"),
        ("tokens", 0, -1, r"tokens\[0\] is out of range: -1"),
        ("positions", 3, 256, r"positions\[3\] is out of range: 256"),
        ("sequence", 3, 2, r"sequence\[3\] is out of range: 2"),
        ("slots", 1, 1024, r"slots\[1\] is out of range: 1024"),
        ("pick", 0, 4, r"pick\[0\] is out of range: 4"),
        ("tables", (0, 1), 64, r"tables\[0\] is out of range: \[0, 64\]"),
        ("tables", (1, 1), -1, r"tables\[1\] is out of range: \[16, -1\]"),
    ],
)
def test_numbers_out_of_range(name: str, index: int | tuple[int, int], value: int, message: str) -> None:
    with pytest.raises(RequestError, match=f"^{message}$") as caught:
        check_batch(changed(name, index, value), limits(), PLAN)
    assert caught.value.parameter == name


def test_positions_beyond_the_tables() -> None:
    with pytest.raises(RequestError, match=r"^positions\[2\] is out of range: 16$"):
        check_batch(replace(GOOD, tables=GOOD.tables[:, :1]), limits(), PLAN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": GOOD.slots[:2]}, r"slots has shape \(2,\), tokens has 4 rows"),
        ({"tables": GOOD.tables[0]}, r"tables has shape \(16,\); at most 4 sequences fit"),
        ({"pick": np.zeros(300, np.int32)}, r"pick has shape \(300,\); at most 256 rows fit"),
        ({"tokens": np.zeros(300, np.int32)}, "the batch has 300 rows, the session takes 256"),
    ],
)
def test_shapes(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(RequestError, match=f"^{message}$"):
        check_batch(replace(GOOD, **changes), limits(), PLAN)


WINDOWED = build_plan(tiny_spec("llama", windowed=(True, False), window=4))


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("window_slots", 1, 64, r"window_slots\[1\] is out of range: 64"),
        ("window_tables", (0, 1), 4, r"window_tables\[0\] is out of range: \[0, 4\]"),
        ("window_tables", (1, 1), -1, r"window_tables\[1\] is out of range: \[-1\]"),
        ("window_tables", (1, 0), -1, ""),  # before what the row at position 20 sees
    ],
)
def test_windows_out_of_range(name: str, index: int | tuple[int, int], value: int, message: str) -> None:
    good = with_rings(GOOD, np.arange(4).reshape(2, 2), 16)
    check_batch(good, limits(window_blocks=4), WINDOWED)
    array = getattr(good, name).copy()
    array[index] = value
    with pytest.raises(RequestError, match=f"^{message}$") if message else nullcontext():
        check_batch(replace(good, **{name: array}), limits(window_blocks=4), WINDOWED)


def test_windows_that_are_not_there() -> None:
    with pytest.raises(RequestError, match=r"^window_slots has shape \(0,\), slots has \(4,\)$"):
        check_batch(GOOD, limits(window_blocks=4), WINDOWED)
    check_batch(GOOD, limits(window_blocks=4), PLAN)  # has no windows


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 100), st.integers(1, 20), st.booleans())
def test_blocks_seen(window: int, rows: int, start: int, block_size: int, chunked: bool) -> None:
    reach = -window if chunked else window
    assert first_seen_at(start, reach) == first_seen(np.int32(start), reach)
    blocks = (start + rows - 1) // block_size + 1 - first_seen_at(start, reach) // block_size
    assert blocks <= blocks_seen(reach, rows, block_size)
    assert any(
        (first + window + rows - 2) // block_size + 1 - first // block_size == blocks_seen(reach, rows, block_size)
        for first in range(block_size)
    )
