"""Which covariance to trust: an expert's own is of few tokens, its layer's is of many tokens but not of its own.

Feedback from a covariance that does not hold for other tokens makes outputs worse than plain rounding. So candidates
between the expert's own covariance, its layer's and diagonals of them are tried, and what is best on tokens that none
of them was made from is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from edgert_models.errors import RequestError
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.compensation.feedback import DAMPING, Feedback, Numbers, output_errors
from edgert_quant.compensation.rounding import Bytes, compensate

Amounts = tuple[float, float]
"""Shares of the pool, and of the diagonal in what that gives; both in 0..1."""

POOLED: tuple[Amounts, ...] = ((0.8, 0.5), (0.5, 0.3))
"""What is tried with a pool: see the table in docs/quantization.md."""

ALONE: tuple[Amounts, ...] = ((0.0, 0.8), (0.0, 0.4))
"""What is tried without one."""


def shrunk(own: Numbers, pool: Numbers | None, amount: float, diagonal: float = 0.0) -> NDArray[np.float64]:
    """(1 - amount) · own + amount · pool, of which off the diagonal only 1 - `diagonal` is left; float64 [n, n].

    `own` and `pool` are sums or means of outer products: the pool is scaled to the trace of `own` first. Where `own`
    has no tokens (is all zero), the pool stands for it; without a pool (None), `own` for the pool. `RequestError` for
    amounts outside 0..1 or for different shapes.
    """
    for name, value in (("amount", amount), ("diagonal", diagonal)):
        if not 0 <= value <= 1:
            raise RequestError(f"{name} is {value}; it must be in 0..1", parameter=name)
    mixed = own.astype(np.float64)
    if pool is not None:
        if pool.shape != own.shape:
            raise RequestError(
                f"the pool is of shape {list(pool.shape)}, the covariance of {list(own.shape)}", parameter="pool"
            )
        trace, pooled = float(np.trace(mixed)), float(np.trace(pool))
        if trace == 0:
            mixed = pool.astype(np.float64)
        elif pooled > 0:
            mixed = (1 - amount) * mixed + (amount * trace / pooled) * pool
    kept = mixed.diagonal().copy()
    mixed *= 1 - diagonal
    np.fill_diagonal(mixed, kept)
    return mixed


@dataclass(frozen=True)
class Candidate:
    """A covariance to try, prepared; `amounts` say what it was made of."""

    amounts: Amounts
    feedback: Feedback


def candidates(
    own: Numbers, pool: Numbers | None = None, *, amounts: Iterable[Amounts] | None = None, damping: float = DAMPING
) -> list[Candidate]:
    """Covariances between `own`, `pool` and their diagonals (`shrunk`), prepared: one Cholesky factorization each. They
    serve every matrix with these inputs, such as an expert's gate and up.

    A candidate of the pool alone, (1, …), is the same for all experts of a layer: make it once, add it to each list.
    """
    chosen = amounts if amounts is not None else POOLED if pool is not None else ALONE
    return [Candidate(item, Feedback(shrunk(own, pool, *item), damping=damping)) for item in chosen]


@dataclass(frozen=True)
class Choice:
    """The bytes of a matrix; what covariance they were made with, None for plain rounding; and tr(E H Eᵀ) on held-out
    tokens, of these bytes and of plain rounding.
    """

    data: Bytes
    amounts: Amounts | None
    error: float
    plain_error: float


def choose_shrink(
    x: Numbers,
    type: BlockType,  # noqa: A002
    tried: Sequence[Candidate],
    held_out: Numbers,
    *,
    importance: Numbers | None = None,
    threads: int | None = None,
) -> Choice:
    """The bytes of weights `x` [rows, n] whose outputs are nearest to right on held-out tokens, of which `held_out`
    [n, n] is the covariance (sum or mean of outer products): plain rounding, or compensated by one of the candidates.
    The earlier wins ties, plain rounding first. So on these tokens the result is never worse than without compensation.

    `importance` is that of plain rounding, default the diagonal of the first candidate's covariance; `compensate` gets
    it as well if it is given. Without tokens (`held_out` all zero) everything ties, and rounding is plain.

    Raises what `compensate` raises; `RequestError` without candidates, or for a `held_out` that is not
    finite or of another width.
    """
    if not tried:
        raise RequestError("choose_shrink needs at least one candidate", parameter="tried")
    held = np.asarray(held_out, np.float64)
    if held.shape != (x.shape[-1], x.shape[-1]):
        raise RequestError(
            f"held_out is of shape {list(held.shape)}; the weights have {x.shape[-1]} columns", parameter="held_out"
        )
    if not np.isfinite(held).all():
        place = [int(i) for i in np.argwhere(~np.isfinite(held))[0]]
        raise RequestError(f"held_out {place} is {held[tuple(place)]}; it must be finite", parameter="held_out")
    scale = float(np.abs(held).max(initial=0.0)) or 1.0
    scaled = np.asarray(held / scale, np.float32)

    def error(data: Bytes) -> float:
        return scale * float(output_errors(np.asarray(x, np.float32) - dequantize(data, type), scaled).sum())

    plain = quantize(
        x, type, importance=tried[0].feedback.importance if importance is None else importance, threads=threads
    )
    best = Choice(plain, None, plain_error := error(plain), plain_error)
    for candidate in tried:
        data = compensate(x, type, candidate.feedback, importance=importance, threads=threads)
        if (found := error(data)) < best.error:
            best = Choice(data, candidate.amounts, found, plain_error)
    return best
