"""One answer on its way through a grammar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from edgert_models.errors import RequestError
from numpy.typing import NDArray

from edgert.constraints.messages import plain

if TYPE_CHECKING:
    from llguidance import LLMatcher


class TokenConstraint:
    """The tokens that may come next in one answer. See `edgert.engine.sampling.Constraint`.

    `vocabulary` is how many tokens there are, `never_first` are those that the answer must not begin with, and
    `parameter` is what errors call the form.
    """

    def __init__(
        self, matcher: LLMatcher, vocabulary: int, parameter: str, never_first: NDArray[np.int64] | None = None
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._parameter = parameter
        self._never = never_first
        self._bits = np.zeros(4 * -(-(vocabulary + 1) // 32), dtype=np.uint8)
        self._address = self._bits.ctypes.data

    @property
    def finished(self) -> bool:
        """Whether nothing more may come: the answer is whole."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [vocabulary], at least one; RequestError where the grammar asks for too much."""
        self._matcher.unsafe_compute_mask_ptr(self._address, self._bits.size)
        self._check()
        bits = np.unpackbits(self._bits, count=self._vocabulary, bitorder="little").view(np.bool_)
        if self._never is not None:
            bits[self._never] = False
            if not bits.any():
                raise self._error("no token of this model can begin it")
        return bits

    def accept(self, token: int) -> bool:
        """`token` comes next, unless it may not; whether it does."""
        if self._never is not None:
            if token in self._never:
                return False
            self._never = None
        if self._matcher.try_consume_tokens([token]):
            return True
        self._check()
        return False

    def possible(self, tokens: Sequence[int]) -> int:
        """How many of `tokens` may come next, one after the other."""
        if self._never is not None and len(tokens) and tokens[0] in self._never:
            return 0
        return int(self._matcher.validate_tokens(list(tokens)))

    def copy(self, parameter: str, never_first: NDArray[np.int64] | None = None) -> TokenConstraint:
        """For another answer."""
        return TokenConstraint(self._matcher.deep_copy(), self._vocabulary, parameter, never_first)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise self._error(plain(self._matcher.get_error()))

    def _error(self, reason: str) -> RequestError:
        return RequestError(f"{self._parameter}: {reason}", parameter=self._parameter)
