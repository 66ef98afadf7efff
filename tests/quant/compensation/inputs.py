"""Inputs whose columns are correlated, and what an exact GPTQ does with them."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def weights(rows: int, n: int, seed: int = 0) -> Floats:
    return (np.random.default_rng(seed).standard_normal((rows, n)) * 0.02).astype(np.float32)


def inputs(tokens: int, n: int, decay: float = 0.5, seed: int = 1) -> Floats:
    """Tokens [tokens, n]; the k-th principal component has a standard deviation of k^-decay."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((n, n)) * np.arange(1, n + 1)[:, None] ** -decay
    return np.asarray(random.standard_normal((tokens, n)) @ mixing, np.float32)


def covariance(tokens: int, n: int, decay: float = 0.5, seed: int = 1) -> Doubles:
    x = inputs(tokens, n, decay, seed).astype(np.float64)
    return x.T @ x
