"""Drawing tokens where the logits are: the next step begins with them, and where they are certain that is all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgert_runtimes.base import Draw, Int32
from edgert_runtimes.cuda.device import Arrays, Device, Launch
from edgert_runtimes.cuda.kernels import catalogue

_FIELDS = {
    "temperatures": ("temperature", np.float32),
    "top_ks": ("top_k", np.int32),
    "top_ps": ("top_p", np.float32),
    "min_ps": ("min_p", np.float32),
    "numbers": ("number", np.float64),
}
"""The kernel's arrays [rows], and what each is of a Draw."""


class Drawing:
    """`tokens` is where the tokens of the last draw are on the GPU. `drawn` [2, rows] has them on the host, then those
    that are certain (see `Drawn`), once what was put into the queue is done.
    """

    def __init__(self, device: Device, rows: int, vocabulary: int) -> None:
        self._device = device
        self._vocabulary = vocabulary
        sizes = [(name, rows * np.dtype(kind).itemsize) for name, (_, kind) in _FIELDS.items()]
        places = Arrays([*sizes, ("tokens", 8 * rows)])
        self._staged = device.pinned(places.offsets["tokens"])
        self._arrays = {
            name: self._staged[places.offsets[name] :][:size].view(_FIELDS[name][1]) for name, size in sizes
        }
        self._memory = device.allocate(places.size)
        self._places = {name: self._memory + start for name, start in places.offsets.items()}
        self.tokens = self._places["tokens"]
        self._found: Int32 = device.pinned(8 * rows).view(np.int32)
        self.drawn = self._found[:0].reshape(2, 0)

    def draw(self, logits: int, draws: Sequence[Draw]) -> None:
        """A token for each of the first rows of logits. The last draw's uploads must be done."""
        rows = len(draws)
        common = {"logits": logits, "tokens": self.tokens, "certain": self.tokens + 4 * rows}
        sizes = {"rows": rows, "vocabulary": self._vocabulary}
        if all(draw.temperature == 0 for draw in draws):
            self._device.launch(Launch(catalogue.argmax(), **common, **sizes))
        else:
            for name, (field, _) in _FIELDS.items():
                self._arrays[name][:rows] = [getattr(draw, field) for draw in draws]
            self._device.upload(self._memory, self._staged)
            given = {name: self._places[name] for name in _FIELDS}
            self._device.launch(Launch(catalogue.sample(), **common, **given, **sizes))
        found = self._found[: 2 * rows]
        self.drawn = found.reshape(2, rows)
        self._device.download(found.view(np.uint8), self.tokens)
