"""One number for all weights of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from edgert_quant.gguf.reader import GgufFile

_PIECE = 4 << 20  # bytes


def weights_sha256(file: GgufFile, progress: Callable[[int, int], None] | None = None) -> str:
    """SHA-256 over the tensors in the order of their names, as hexadecimal digits.

    For each tensor: a line `NAME TYPE DIMENSIONS` (outermost first, with × between), then its bytes. It does not depend
    on metadata, on the order of tensors, nor on how a model is split over files. `progress(done, total)` counts bytes.
    """
    digest = hashlib.sha256()
    tensors = [file.tensors[name] for name in sorted(file.tensors)]
    done, total = 0, sum(tensor.nbytes for tensor in tensors)
    for tensor in tensors:
        digest.update(f"{tensor.name} {tensor.type.name} {'×'.join(map(str, tensor.shape))}\n".encode())
        step = max(1, _PIECE // tensor.row_bytes)
        for start in range(0, tensor.rows, step):
            rows = file.read(tensor.name, start, min(step, tensor.rows - start))
            digest.update(rows.data)
            done += rows.nbytes
            if progress is not None:
                progress(done, total)
    return digest.hexdigest()
