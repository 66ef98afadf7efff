"""Amounts of memory as people write them."""

import pytest
from edgert_models.errors import RequestError

from edgert.cli.console import size
from edgert.cli.options import byte_count


@pytest.mark.parametrize(
    ("text", "count"),
    [(None, None), ("0", 0), ("17", 17), ("4GiB", 4 << 30), ("1.5 g", 3 << 29), ("512M", 512 << 20), (" 2kb ", 2048)],
)
def test_byte_count(text: str | None, count: int | None) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "-1", "four", "4 GiB of it", "1e999", "NaN", "4PiB"])
def test_bad_byte_count(text: str) -> None:
    with pytest.raises(RequestError, match=f"--memory: '{text}' is not an amount of memory; write it like 4GiB"):
        byte_count(text)


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5120.0 GiB")])
def test_size(count: int, text: str) -> None:
    assert size(count) == text
