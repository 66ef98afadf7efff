"""What a session keeps of sequences, as bytes: rows of arrays that lie in the host's memory, put side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from edgert_models.errors import RequestError
from numpy.typing import NDArray

from edgert_runtimes.base import Limits

Bytes = NDArray[np.uint8]


def gather(parts: Sequence[Bytes], rows: Sequence[int]) -> Bytes:
    """These rows of all parts [any, bytes of one]: uint8 [rows, bytes of all]."""
    if not parts:
        return np.empty((len(rows), 0), np.uint8)
    return np.concatenate([part[list(rows)] for part in parts], axis=1)


def scatter(parts: Sequence[Bytes], rows: Sequence[int], content: Bytes) -> None:
    """The way back; RequestError for content of another size."""
    check_content(content, len(rows), sum(part.shape[1] for part in parts))
    start = 0
    for part in parts:
        part[list(rows)] = content[:, start : start + part.shape[1]]
        start += part.shape[1]


def check_content(content: Bytes, rows: int, size: int) -> None:
    """RequestError for content that is not `rows` rows of `size` bytes."""
    if content.shape != (rows, size) or content.dtype != np.uint8:
        reason = f"content is {content.dtype} {list(content.shape)}, not uint8 [{rows}, {size}]"
        raise RequestError(reason, parameter="content")


def check_rows(rows: Iterable[int], count: int, what: str) -> None:
    """RequestError for blocks or slots of states that do not exist."""
    for row in rows:
        if not 0 <= row < count:
            reason = f"{what} {row}: the cache has {what}s 0 to {count - 1}"
            raise RequestError(reason, parameter=f"{what}s")


def check_blocks(blocks: Iterable[int], limits: Limits, *, windows: bool = False) -> None:
    """The same for blocks of the pool of layers with a window that has blocks of its own, or of the other."""
    check_rows(blocks, limits.window_blocks if windows else limits.blocks, "block")
