"""What a covariance says about rounding: how errors that were made are best made up for by the weights to come.

The error of a matrix's outputs is tr(E H Eᵀ), where E is the error of the weights and H the covariance of inputs. With
H = Mᵀ M, M lower triangular, that is the sum over columns j and rows of

    (M[j, j] · (e[j] + Σ over i < j of F[j, i] e[i]))²,    F[j, i] = M[j, i] / M[j, j].

So once columns before j are rounded, column j is best rounded to what comes nearest to w[j] + Σ F[j, i] e[i], and what
is left counts M[j, j]² times. That is GPTQ (arXiv:2210.17323; in this form LDLQ of arXiv:2307.13304), without an
inverse of H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from edgert_models.errors import ConversionError, RequestError
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]]
Floats = NDArray[np.float32]

DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it."""

PANEL = 256
"""Columns that are rounded before their errors reach the others, by one product: a block of the types with the largest
blocks, and whole blocks of all.
"""

ASYMMETRY = 1e-3
"""Of the greatest number on the diagonal: more than sums in float32 leave."""


@dataclass(frozen=True)
class Panel:
    """Columns start..stop - 1, given the errors before them.

    `curvature`, float32 [size, size], is what errors in the panel cost once later columns make up for them as well as
    they can: e · curvature · eᵀ. `carry`, float32 [size, size]: what rows of F make of earlier errors, times `carry`,
    is how much the best weights of the panel differ from the original ones.
    """

    curvature: Floats
    carry: Floats


class Feedback:
    """A covariance prepared for `compensate`: made once, used for every matrix with the same inputs.

    `covariance` is float [n, n], the sum or mean of the inputs' outer products; its scale does not matter. `damping`
    times the mean of its diagonal is added to the diagonal. A column without inputs (a zero on the diagonal) is rounded
    as if it were alone.

    Raises `ConversionError` that names the element if the covariance is not finite, not symmetric or has a negative
    diagonal, or if it is not positive definite in spite of the damping; `RequestError` for another shape.
    """

    def __init__(self, covariance: Numbers, *, damping: float = DAMPING) -> None:
        if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
            raise RequestError(
                f"a covariance is a square matrix, not of shape {list(covariance.shape)}", parameter="covariance"
            )
        if not 0 <= damping < np.inf:
            raise RequestError(f"damping is {damping}; it must be finite and not negative", parameter="damping")
        h = _normalized(covariance)
        self.n = len(h)
        """Columns."""
        self.importance: Floats = np.ascontiguousarray(h.diagonal(), np.float32)
        """The covariance's diagonal, of mean 1, before damping: float32 [n]."""
        diagonal = h.diagonal() + damping
        np.fill_diagonal(h, np.where(diagonal > 0, diagonal, 1.0))
        self.covariance: Floats = np.ascontiguousarray(h, np.float32)
        """The damped covariance, of mean diagonal 1 + damping: float32 [n, n]."""
        try:
            lower = np.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1].T
        except np.linalg.LinAlgError:
            raise ConversionError(
                f"the covariance is not positive definite, damped by {damping:g} of its mean diagonal; "
                "raise the damping, or add up outer products in float64"
            ) from None
        root = lower.diagonal()
        self.variance: Floats = np.asarray(root**2, np.float32)
        """M[j, j]²: how much an error in column j costs once later columns make up for it. float32 [n]."""
        self.factor: Floats = np.ascontiguousarray(lower / root[:, None], np.float32)
        """F, with ones on its diagonal: float32 [n, n]."""
        self.panels = [self._panel(start, min(start + PANEL, self.n)) for start in range(0, self.n, PANEL)]
        """All columns, `PANEL` at a time (the last may be fewer)."""

    def _panel(self, start: int, stop: int) -> Panel:
        factor = self.factor[start:stop, start:stop].astype(np.float64)
        curvature = factor.T @ (self.variance[start:stop, None] * factor)
        carry = np.linalg.inv(factor).T
        return Panel(np.ascontiguousarray(curvature, np.float32), np.ascontiguousarray(carry, np.float32))

    def errors(self, difference: Floats) -> NDArray[np.float64]:
        """e H eᵀ of every row of weights less what is read back, [rows, n]; float64 [rows]."""
        return output_errors(difference, self.covariance)


def output_errors(difference: Numbers, covariance: Numbers) -> NDArray[np.float64]:
    """The squared error of each output, e H eᵀ, for errors of weights [rows, n]; float64 [rows]. Rounding noise, which
    could be negative, is cut off at 0.
    """
    product = difference @ covariance
    return np.asarray(np.maximum(np.einsum("rn,rn->r", product, difference, dtype=np.float64), 0.0))


def _normalized(covariance: Numbers) -> NDArray[np.float64]:
    """A checked copy, float64, with a diagonal of mean 1 (or all zero)."""
    n = len(covariance)
    bad = np.flatnonzero(~np.isfinite(covariance))
    if len(bad):
        row, column = divmod(int(bad[0]), n)
        raise ConversionError(f"covariance [{row}, {column}] is {covariance[row, column]}; it must be finite")
    h = covariance.astype(np.float64)
    diagonal = h.diagonal()
    negative = np.flatnonzero(diagonal < 0)
    if len(negative):
        place = int(negative[0])
        raise ConversionError(f"covariance [{place}, {place}] is {diagonal[place]:g}; a mean square is not negative")
    difference = np.abs(h - h.T)
    if n and difference.max() > ASYMMETRY * diagonal.max():
        row, column = divmod(int(difference.argmax()), n)
        raise ConversionError(
            f"covariance [{row}, {column}] is {h[row, column]:g} but [{column}, {row}] is {h[column, row]:g}; "
            "it must be symmetric"
        )
    h += h.T
    mean = h.diagonal().mean() if n else 0.0
    return np.asarray(h / mean if mean > 0 else h)
