"""Matrices of whole numbers: w = s (q - z), where some columns of a row share the scale s and the zero point z.

GPTQ, AWQ and compressed-tensors differ in how they put these numbers into tensors, not in what they mean. The same
weights are blocks of GGUF where a scale is a half: d = s, and c = q - z is a code of Q4_0, Q5_0 or Q8_0, whichever is
wide enough; or d = s and m = -s z in Q4_1, where that product is a half too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
from edgert_models.errors import FileFormatError
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType
from edgert_quant.blocks.assemble import CENTRED, centred, is_half, with_minimum
from edgert_quant.checkpoint.folder import Checkpoint
from edgert_quant.checkpoint.views import Bytes, Floats
from edgert_quant.files import quoted

BLOCK = 32
_SCANNED = 1 << 20  # scales looked at together


def unpack_words(words: NDArray[np.int32], bits: int) -> Bytes:
    """Codes of 2, 4 or 8 bits in words [..., n]: uint8 [..., n · 32 / bits], the lowest bits first."""
    data = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return data
    codes = np.empty((*data.shape, 8 // bits), np.uint8)
    for i in range(8 // bits):
        np.right_shift(data, bits * i, out=codes[..., i])
    codes &= (1 << bits) - 1
    return codes.reshape(*words.shape[:-1], -1)


def checked_order(checkpoint: Checkpoint, name: str, order: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """The number of each column's group; FileFormatError for one that is not there."""
    if order.size and not 0 <= order.min() <= order.max() < groups:
        reason = f"its order names groups {order.min()} to {order.max()}, and there are {groups}"
        raise FileFormatError(checkpoint.folder, reason, field=f"tensor {quoted(name)}")
    return order


class IntegerView(ABC):
    """Implements `View`; a method of quantization says how its codes, scales and zero points are read.

    `group` columns share a scale. With `order`, the column i has the scale number `order[i]` of its row instead.
    """

    quantized = True

    def __init__(
        self,
        name: str,
        shape: tuple[int, int],
        used: frozenset[str],
        *,
        method: str,
        bits: int,
        group: int,
        order: NDArray[np.int64] | None = None,
    ) -> None:
        self.name = name
        self.shape = shape
        self.used = used
        self.bits = bits
        self.group = group
        self.order = None if order is None or np.array_equal(order, np.arange(len(order)) // group) else order
        self.form = f"{method} int{bits}"

    @abstractmethod
    def codes(self, start: int, count: int) -> Bytes:
        """q, uint8 [count, in]."""

    @abstractmethod
    def scales(self, start: int, count: int) -> Floats:
        """s, float32 [count, groups]."""

    @abstractmethod
    def zeros(self, start: int, count: int) -> NDArray[np.int16]:
        """z, int16 [count, groups]."""

    def rows(self, start: int, count: int) -> Floats:
        """See `View`; exact where scales have up to 16 bits, rounded once where they are F32."""
        s, z = self.scales(start, count), self.zeros(start, count)
        weights = self.codes(start, count).astype(np.float32)
        if self.order is None and self.shape[1] % self.group == 0:
            parts, s, z = weights.reshape(count, -1, self.group), s[..., None], z[..., None]
        else:
            parts, s, z = weights, s[:, self._group_of], z[:, self._group_of]
        parts -= z
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number is found by whoever uses it
            parts *= s
        return weights

    @property
    def types(self) -> tuple[BlockType, ...]:
        """See `View`; reads all scales and zero points the first time."""
        return self._exact[0]

    @property
    def reason(self) -> str:
        """See `View`."""
        return self._exact[1]

    def packed(self, start: int, count: int, kind: BlockType) -> Bytes | None:
        """See `View`."""
        if kind not in (*CENTRED, BlockType.Q4_1) or kind not in self.types:
            return None
        of_block = self._group_of[::BLOCK]
        s = self.scales(start, count)[:, of_block]
        z = self.zeros(start, count)[:, of_block]
        q = self.codes(start, count).reshape(count, -1, BLOCK)
        if kind is BlockType.Q4_1:
            blocks = with_minimum(s, -s * z, q)
        else:
            c = q - z.astype(np.uint8)[..., None]  # modulo 256, of a number that fits in eight bits
            blocks = centred(s, c.view(np.int8), kind)
        return blocks.reshape(count, -1)

    @cached_property
    def _group_of(self) -> NDArray[np.int64]:
        """The number of each column's scale."""
        return np.arange(self.shape[1]) // self.group if self.order is None else self.order

    @cached_property
    def _exact(self) -> tuple[tuple[BlockType, ...], str]:
        """`types` and `reason`."""
        rows, width = self.shape
        if self.order is not None:
            return (), "columns are grouped by activation, not side by side"
        if width % BLOCK:
            return (), f"rows of {width} weights are no whole blocks of {BLOCK}"
        if self.group < width and self.group % BLOCK:
            return (), f"groups of {self.group} are no whole blocks of {BLOCK}"
        least, most, minimum = 255, 0, self.bits <= 4
        step = max(_SCANNED // -(-width // self.group), 1)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            s, z = self.scales(start, count), self.zeros(start, count)
            if not is_half(s):
                return (), "its scales are no numbers of half precision"
            least, most = min(least, int(z.min())), max(most, int(z.max()))
            minimum = minimum and is_half(-s * z)
        low, high = -most, (1 << self.bits) - 1 - least
        found = [kind for kind, (first, last) in CENTRED.items() if first <= low and high <= last]
        found += [BlockType.Q4_1] if minimum else []
        reason = "" if found else f"zero points of {least} to {most} make codes of more than eight bits"
        return tuple(sorted(found, key=lambda kind: kind.bits_per_weight)), reason
