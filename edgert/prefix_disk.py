"""Where a model's prefixes are kept on disk, and what they are bound to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from edgert_models.errors import RequestError, UnsupportedError
from edgert_models.graph import Plan
from edgert_quant.gguf import GgufFile, weights_sha256
from edgert_quant.gguf.output import write_whole
from edgert_quant.jit.cache import cache_folder
from edgert_runtimes.base import Progress, Session, StoringSession

from edgert.adapters import LoadedAdapters
from edgert.engine.prefixes.shelf import Shelf
from edgert.engine.prefixes.store import Store


def open_shelf(
    capacity: int, file: GgufFile, plan: Plan, session: Session, adapters: LoadedAdapters, progress: Progress | None
) -> Shelf:
    """Prefixes of this model on disk, in the folder that all models share: `capacity` bytes for all of them together.

    Their names depend on the weights, the plan, the adapter, the session's backend, instruction set, precision and
    cache type, and edgert's version: what was computed otherwise is not found. RequestError where there is no folder
    for them, UnsupportedError where the backend cannot give them.
    """
    from edgert import __version__

    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
        raise RequestError(f"prefix_disk is a number of bytes from 1 on, not {capacity!r}", parameter="prefix_disk")
    if not isinstance(session, StoringSession):
        reason = f"the backend {session.report.backend!r} cannot give its cache to a disk; leave out prefix_disk"
        raise UnsupportedError(reason)
    try:
        folder = cache_folder().parent / "prefixes"
    except RuntimeError as error:
        raise RequestError(f"prefixes have no place on disk: {error}", parameter="prefix_disk") from None
    store = Store(folder, capacity)
    report, limits = session.report, session.limits
    model = _digest(
        __version__,
        _weights(file, folder, progress),
        plan.ops,
        plan.caches,
        plan.states,
        report.backend,
        report.instruction_set,
        report.precision,
        limits.kv_type,
        limits.block_size,
        limits.window_blocks > 0,
    )
    return Shelf(store, [model, *_adapted(model, adapters)])


def _adapted(model: bytes, adapters: LoadedAdapters) -> Sequence[bytes]:
    """Names for what is computed with each adapter."""
    if not adapters.names:
        return []
    weights = adapters.weights
    tensors = [(name, hashlib.blake2b(weights.read(name).tobytes()).hexdigest()) for name in sorted(weights.weights)]
    return [_digest(model, index, tensors) for index in range(len(adapters.names))]


def _weights(file: GgufFile, folder: Path, progress: Progress | None) -> str:
    """What a file's weights are, by their SHA-256. That of a large file takes a while, so it is remembered for as long
    as the file is not written.
    """
    told = [(str(path.resolve()), *_status(path)) for path in file.paths]
    memo = folder / "models" / _digest(*told).hex()
    try:
        known = memo.read_text()
    except (OSError, ValueError):
        known = ""
    if len(known) == 64:
        return known
    found = weights_sha256(file, None if progress is None else lambda done, total: progress("digest", done, total))
    memo.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(memo, found.encode())
    return found


def _status(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b("\n".join(map(repr, parts)).encode(), digest_size=32).digest()
