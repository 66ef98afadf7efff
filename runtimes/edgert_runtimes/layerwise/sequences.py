"""Whole sequences of tokens as one batch of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgert_runtimes.base import Int32


@dataclass(frozen=True)
class Sequences:
    """Rows of all sequences, one after another: `tokens` and `positions` int32 [rows]; sequence s has the rows
    `bounds[s]` … `bounds[s + 1]`. `pick` int32: the rows whose logits are wanted.
    """

    tokens: Int32
    positions: Int32
    bounds: tuple[int, ...]
    pick: Int32

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], *, second_half: bool = False) -> Sequences:
        """From token ids; picked are all rows, or with `second_half` those of each sequence's second half but the last
        (as `edgert.evaluation` counts predictions).
        """
        lengths = [len(text) for text in texts]
        bounds = (0, *(int(end) for end in np.cumsum(lengths)))
        positions = [np.arange(length) for length in lengths]
        picked = [
            np.arange(start + length // 2, start + length - 1) if second_half else np.arange(start, start + length)
            for start, length in zip(bounds, lengths, strict=False)
        ]
        tokens = [np.asarray(text) for text in texts]
        return cls(_joined(tokens), _joined(positions), bounds, _joined(picked))

    def targets(self) -> Int32:
        """The token that follows each picked row, int32 [picked]; -1 after the last of a sequence."""
        following = np.append(self.tokens[1:], -1).astype(np.int32)
        following[np.array(self.bounds[1:]) - 1] = -1
        return following[self.pick]


def _joined(parts: Sequence[NDArray[np.integer[Any]]]) -> Int32:
    return np.concatenate([*parts, np.empty(0, np.int32)]).astype(np.int32)
