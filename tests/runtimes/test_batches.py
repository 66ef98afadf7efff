"""Batches that do not fit their session."""

from dataclasses import replace

import numpy as np
import pytest
from edgert_models.errors import RequestError
from edgert_runtimes.base import Batch
from edgert_runtimes.batches import check_batch
from edgert_runtimes.conformance.tiny import batch, limits

GOOD = batch([([1, 2, 3], 14, range(16)), ([9], 20, range(16, 32))])


def changed(name: str, index: int | tuple[int, int], value: int) -> Batch:
    array = getattr(GOOD, name).copy()
    array[index] = value
    return replace(GOOD, **{name: array})


def test_what_fits() -> None:
    check_batch(GOOD, limits(), 96)
    check_batch(replace(GOOD, pick=GOOD.pick[:0]), limits(), 96)
    check_batch(changed("tables", (1, 2), 1 << 30), limits(), 96)  # beyond what the sequence has


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
        check_batch(changed(name, index, value), limits(), 96)
    assert caught.value.parameter == name


def test_positions_beyond_the_tables() -> None:
    with pytest.raises(RequestError, match=r"^positions\[2\] is out of range: 16$"):
        check_batch(replace(GOOD, tables=GOOD.tables[:, :1]), limits(), 96)


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
        check_batch(replace(GOOD, **changes), limits(), 96)
