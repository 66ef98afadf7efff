"""Drawing tokens where the logits are, so that the next step can begin before the host has seen them."""

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
    """`tokens` is where the tokens of the last draw are on the GPU, `drawn` where they are on the host, once what was
    put into the queue is done.
    """

    def __init__(self, device: Device, rows: int, vocabulary: int) -> None:
        self._device = device
        self._vocabulary = vocabulary
        sizes = [(name, rows * np.dtype(kind).itemsize) for name, (_, kind) in _FIELDS.items()]
        places = Arrays([*sizes, ("tokens", 4 * rows), ("failed", 4)])
        self._staged = device.pinned(places.offsets["tokens"])
        self._arrays = {
            name: self._staged[places.offsets[name] :][:size].view(_FIELDS[name][1]) for name, size in sizes
        }
        self._memory = device.allocate(places.size)
        self._places = {name: self._memory + start for name, start in places.offsets.items()}
        self.tokens = self._places["tokens"]
        self.drawn: Int32 = device.pinned(4 * rows).view(np.int32)

    def draw(self, logits: int, draws: Sequence[Draw]) -> None:
        """A token for each of the first rows of logits. The last draw's uploads must be done."""
        rows = len(draws)
        common = {"logits": logits, "tokens": self.tokens, "failed": self._places["failed"]}
        sizes = {"rows": rows, "vocabulary": self._vocabulary}
        if all(draw.temperature == 0 for draw in draws):
            self._device.launch(Launch(catalogue.argmax(), **common, **sizes))
        else:
            for name, (field, _) in _FIELDS.items():
                self._arrays[name][:rows] = [getattr(draw, field) for draw in draws]
            self._device.upload(self._memory, self._staged)
            given = {name: self._places[name] for name in _FIELDS}
            self._device.launch(Launch(catalogue.sample(), **common, **given, **sizes))
        self._device.download(self.drawn[:rows].view(np.uint8), self.tokens)
