"""An importance matrix in a conversion: whether it is of this model, what it knows, which of it is for which rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePath

import numpy as np
from edgert_models.graph import Weight
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType
from edgert_quant.convert.pipeline import Piece
from edgert_quant.convert.source import MetadataEntry, some
from edgert_quant.gguf import ValueType
from edgert_quant.imatrix import Importance, rare_experts, read_imatrix, require_coverage


@dataclass(frozen=True)
class UsedImportance:
    """The importance of a model's weights, and what else was in its file."""

    path: Path
    importance: Importance
    weights: Mapping[str, Weight]
    entries: int
    strangers: Sequence[str]

    @classmethod
    def open(cls, path: str | Path, weights: Mapping[str, Weight], least: int | None) -> UsedImportance:
        """Read it and hold it against the model. ConversionError names the first weight that does not fit, or the
        first expert that has seen fewer tokens than `least`.
        """
        found = read_imatrix(path)
        fitted = found.fitted(weights.values())
        if least is not None:
            require_coverage(fitted, least, remedy="calibrate with more text")
        strangers = [name for name in found.sums if name not in fitted.sums]
        return cls(Path(path), fitted, weights, len(found.sums), strangers)

    def metadata(self) -> dict[str, MetadataEntry]:
        """llama.cpp's keys (`tools/quantize/quantize.cpp`). Of files only the names: paths are nobody else's."""
        entries = {"quantize.imatrix.file": MetadataEntry(self.path.name)}
        if self.importance.datasets:
            name = PurePath(self.importance.datasets[0].replace("\\", "/")).name
            entries["quantize.imatrix.dataset"] = MetadataEntry(name)
        entries["quantize.imatrix.entries_count"] = MetadataEntry(self.entries, ValueType.UINT32)
        if self.importance.chunk_count:
            entries["quantize.imatrix.chunks_count"] = MetadataEntry(self.importance.chunk_count, ValueType.UINT32)
        return entries

    def warnings(self, types: Mapping[str, BlockType]) -> list[str]:
        """What the user should know of it."""
        found = []
        if not any(types[name].block_size > 1 for name in self.importance.sums):
            found.append("the importance matrix changes nothing: all weights it is about are stored as floats")
        if self.strangers:
            found.append(f"the importance matrix has entries that this model has no use for: {some(self.strangers)}")
        if (rare := rare_experts(self.importance)) is not None:
            found.append(rare)
        return found

    def rows(self, piece: Piece) -> NDArray[np.float32] | None:
        """How much errors in the columns of a piece count, [in], if that is known."""
        by_expert = self._of(piece.name)
        if by_expert is None:
            return None
        expert = piece.start // self.weights[piece.name].shape[1] if len(by_expert) > 1 else 0
        own: NDArray[np.float32] = by_expert[expert]
        return own

    @cached_property
    def _of(self) -> Callable[[str], NDArray[np.float32] | None]:
        return lru_cache(maxsize=1)(self.importance.of)  # pieces of a tensor come one after another
