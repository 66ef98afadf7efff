"""From the hidden values of a text's tokens to one vector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from edgert_models.errors import UnsupportedError
from edgert_quant.gguf import GgufMetadata
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Pooling = Callable[[Vector], Vector]
"""From [tokens, width] to [width], of length 1."""


def pooling_of(metadata: GgufMetadata) -> Pooling:
    """What the file's `pooling_type` asks for: the last token's values, or else the mean over all tokens.

    The numbers are llama.cpp's `llama_pooling_type`. One that wants a token or a head that decoders do not have gives a
    function that raises UnsupportedError: such a model may still answer.
    """
    key = f"{metadata.string('general.architecture')}.pooling_type"
    kind = metadata.integer(key, 1, minimum=0)
    if kind in _POOLINGS:
        return _POOLINGS[kind]

    def refuse(_: Vector) -> Vector:
        raise UnsupportedError(f"{metadata.path}: {key} is {kind}; embeddings know {sorted(_POOLINGS)}")

    return refuse


def _mean(rows: Vector) -> Vector:
    return _unit(rows.mean(axis=0, dtype=np.float64))


def _last(rows: Vector) -> Vector:
    return _unit(rows[-1].astype(np.float64))


def _unit(vector: NDArray[np.float64]) -> Vector:
    return (vector / max(np.linalg.norm(vector), np.finfo(np.float64).tiny)).astype(np.float32)


_POOLINGS = {0: _mean, 1: _mean, 3: _last}
