"""A source some of whose tensors are quantized already, by more than `quantize` does: see `edgert.tuning`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType
from edgert_quant.convert.source import MetadataEntry, Source


class ReadySource:
    """Implements `Source`: another one, but for the tensors in `ready`, uint8 [rows, row bytes] in their final type."""

    def __init__(self, source: Source, ready: Mapping[str, NDArray[np.uint8]]) -> None:
        self._source = source
        self._ready = ready
        self.paths, self.spec, self.weights = source.paths, source.spec, source.weights
        self.fixed_types, self.warnings = source.fixed_types, source.warnings

    def metadata(self) -> dict[str, MetadataEntry]:
        """See `Source`."""
        return self._source.metadata()

    def row_group(self, name: str) -> int:
        """See `Source`."""
        return 1 if name in self._ready else self._source.row_group(name)

    def read(self, name: str, start: int, count: int, kind: BlockType) -> NDArray[np.float32] | NDArray[np.uint8]:
        """See `Source`."""
        if name in self._ready:
            return np.ascontiguousarray(self._ready[name][start : start + count])
        return self._source.read(name, start, count, kind)

    @property
    def default_type(self) -> str:
        """See `Source`."""
        return self._source.default_type

    def native_types(self) -> Mapping[str, BlockType]:
        """See `Source`."""
        return self._source.native_types()

    def forms(self, types: Mapping[str, BlockType]) -> Mapping[str, tuple[str, str]]:
        """See `Source`: of what is not ready."""
        return {name: form for name, form in self._source.forms(types).items() if name not in self._ready}

    def close(self) -> None:
        """See `Source`."""
        self._source.close()
