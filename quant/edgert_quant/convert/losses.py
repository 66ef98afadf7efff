"""What is lost where a checkpoint that is quantized already is stored in a type that does not hold its weights."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.convert.pipeline import Piece
from edgert_quant.convert.report import TypeLoss


class LossMeter:
    """Knows of tensors that lose (`Source.forms`), and if `measured` how much, once they are written."""

    def __init__(self, forms: Mapping[str, tuple[str, str]], types: Mapping[str, BlockType], *, measured: bool) -> None:
        self._forms = forms if measured else {}
        self._again = set() if measured else {form for name, (form, _) in forms.items() if types[name].block_size > 1}
        self._sums: dict[tuple[str, BlockType, str], tuple[set[str], float, float]] = {}

    def note(self, piece: Piece, rows: NDArray[np.float32], data: NDArray[np.uint8], kind: BlockType) -> None:
        """What has become of rows; see `pipeline.Noting`."""
        if piece.name not in self._forms:
            return
        form, reason = self._forms[piece.name]
        names, error, total = self._sums.get((form, kind, reason), (set(), 0.0, 0.0))
        names.add(piece.name)
        lost = dequantize(data, kind)
        lost -= rows
        error += float(np.einsum("ij,ij->", lost, lost, dtype=np.float64))
        total += float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
        self._sums[form, kind, reason] = names, error, total

    def warnings(self) -> list[str]:
        """What the user should know."""
        if not self._again:
            return [str(loss) for loss in self.losses()]
        again = "quantizing again loses more than quantizing the original checkpoint, or than the type native"
        return [f"the source is quantized already ({', '.join(sorted(self._again))}): {again}"]

    def losses(self) -> tuple[TypeLoss, ...]:
        """By form and type, in the order of the file."""
        return tuple(
            TypeLoss(
                form=form,
                type=kind.name,
                tensors=len(names),
                relative_rms=sqrt(error / total) if total else 0.0,
                reason=reason,
            )
            for (form, kind, reason), (names, error, total) in self._sums.items()
        )
