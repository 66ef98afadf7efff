"""The two matrices whose product is added to one of a model's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pair:
    """a [rank, in] and b [out, rank], with the adapter's own scale in b."""

    a: NDArray[np.float32]
    b: NDArray[np.float32]
