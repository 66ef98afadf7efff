"""Fetching a model: its files come to the cache whole and checked, or not at all.

Bytes go to `blobs/HASH.incomplete`, and the next pull goes on where they end. A file whose hash is right gets its name
in `blobs`; the names in `snapshots/COMMIT` appear once all of a model's files are there. The layout is that of
huggingface_hub (its guide "Understand caching").
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgert_models.errors import HubError, RequestError
from edgert_quant.files import human_bytes
from edgert_quant.hub import hub_cache, repository_folder

from edgert.hub.cached import cached_sets
from edgert.hub.files import HubReference, checkpoint_files, choose, gguf_sets, matching
from edgert.hub.remote import MAIN, OFFLINE, Listing, RemoteFile, is_offline, listing, receive

if TYPE_CHECKING:
    from edgert_runtimes.base import Progress


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull brought: `path` is the GGUF file to open, or the folder of a checkpoint; sizes in bytes."""

    model: str
    commit: str
    path: Path
    files: tuple[str, ...]
    size: int
    downloaded: int


def pull(reference: str, *, revision: str | None = None, progress: Progress | None = None) -> Pulled:
    """Fetch a model from the hub into its cache, or what is missing of it.

    `reference` is `org/name[:QUANTIZATION]` (see HubReference; default Q4_K_M, or the only one there is), or a file's
    name after the colon. A repository without GGUF files is fetched as a checkpoint, for `edgert convert`.
    `revision` is a branch, a tag or a commit. Where HF_HUB_OFFLINE is set, what the cache has is all there is.

    Raises RequestError for what the hub does not have, HubError for what goes wrong on the way; what has come so far is
    kept, and the next pull goes on. Stages of `progress` are "download" and "verify", in bytes.
    """
    wanted = HubReference.parse(reference)
    if is_offline():
        return _here(wanted)
    found = listing(wanted.repository, revision or MAIN)
    names = _chosen(found, wanted)
    files = [found.files[name] for name in names]
    folder = repository_folder(wanted.repository)
    _check_sizes(files)
    missing = {file.digest: file for file in files if not (folder / "blobs" / file.digest).is_file()}
    try:
        _check_room(wanted, missing.values(), folder)
        downloaded = _fetch(found, list(missing.values()), folder, progress or _ignore)
        snapshot = folder / "snapshots" / found.commit
        for file in reversed(files):  # the first shard, which stands for all, last
            _point(snapshot / file.name, folder / "blobs" / file.digest)
        if revision != found.commit:
            _note(folder / "refs" / _branch(revision or MAIN), found.commit)
    except OSError as error:
        full = "; HF_HUB_CACHE names another folder" if error.errno == errno.ENOSPC else ""
        raise HubError(f"'{wanted}' cannot be kept in {folder}: {error.strerror}{full}") from error
    path = snapshot / names[0] if names[0].endswith(".gguf") else snapshot
    return Pulled(str(wanted), found.commit, path, names, sum(file.size for file in files), downloaded)


def _here(wanted: HubReference) -> Pulled:
    """What the cache has of it; HubError if that is nothing."""
    sets = cached_sets(wanted.repository)
    if not matching(list(sets), wanted):
        reason = f"it is not in the cache, and {OFFLINE} forbids to ask the hub"
        raise HubError(f"'{wanted}' cannot be fetched: {reason}")
    chosen = choose(list(sets), wanted)
    folder = sets[chosen]
    size = sum((folder / name).stat().st_size for name in chosen.files)
    return Pulled(str(wanted), folder.name, folder / chosen.first, chosen.files, size, downloaded=0)


def _chosen(found: Listing, wanted: HubReference) -> tuple[str, ...]:
    """The names of the files that are wanted."""
    sets = gguf_sets(found.files)
    if sets:
        return choose(sets, wanted).files
    if wanted.wanted:
        reason = f"'{wanted.repository}' has no GGUF files, so none of {wanted.wanted}"
        raise RequestError(f"{reason}; edgert pull {wanted.repository} and convert it", parameter="model")
    names = checkpoint_files(found.files)
    if not names:
        reason = f"'{wanted.repository}' has neither GGUF files nor a checkpoint in safetensors"
        raise RequestError(reason, parameter="model")
    return tuple(names)


def _check_sizes(files: Iterable[RemoteFile]) -> None:
    """HubError for a file that is too large for plain HTTP; only huggingface_hub's own transfers fetch it."""
    from huggingface_hub import constants

    for file in files:
        if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
            reason = "the hub gives files above 50 GB to its own tools only; `hf download` brings it to the same cache"
            raise HubError(f"{file.name} has {human_bytes(file.size)}, and {reason}")


def _check_room(wanted: HubReference, files: Iterable[RemoteFile], folder: Path) -> None:
    """HubError unless the disk has room for what is missing."""
    needed = sum(file.size - _had(_partial(folder, file)) for file in files)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        room = f"{human_bytes(needed)} more, and {hub_cache()} has room for {human_bytes(free)}"
        raise HubError(f"'{wanted}' takes {room}; HF_HUB_CACHE names another folder, edgert rm frees this one")


def _fetch(found: Listing, files: list[RemoteFile], folder: Path, progress: Progress) -> int:
    """Bring files to `blobs`; how many bytes have come."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # exported lazily

    total, before, downloaded = sum(file.size for file in files), 0, 0
    for file in files:
        blob, partial = folder / "blobs" / file.digest, _partial(folder, file)
        lock = hub_cache() / ".locks" / folder.name / f"{file.digest}.lock"  # that of huggingface_hub
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not blob.is_file():  # nobody else has brought it meanwhile
                had = _had(partial)
                receive(found, file, partial, _within(progress, before, total))
                downloaded += file.size - min(had, file.size)
                _verify(file, partial, progress)
                partial.replace(blob)
        before += file.size
    return downloaded


def _within(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    """Progress of one file as a part of all."""
    return lambda there: progress("download", before + there, total)


def _partial(folder: Path, file: RemoteFile) -> Path:
    return folder / "blobs" / f"{file.digest}.incomplete"


def _had(partial: Path) -> int:
    """Bytes that an earlier pull has brought."""
    return partial.stat().st_size if partial.exists() else 0


def _verify(file: RemoteFile, path: Path, progress: Progress) -> None:
    """HubError, and the file is deleted, unless it has the hash that the hub tells."""
    is_git = len(file.digest) == 40
    digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if is_git else hashlib.sha256()
    with path.open("rb") as data:
        done = 0
        while piece := data.read(1 << 22):
            digest.update(piece)
            done += len(piece)
            progress("verify", done, file.size)
        os.fsync(data.fileno())
    if digest.hexdigest() != file.digest:
        path.unlink()
        kind = "git's hash" if is_git else "SHA-256"
        reason = f"{file.name} came damaged and was deleted: its {kind} is {digest.hexdigest()}, not {file.digest}"
        raise HubError(f"{reason}; pull it again")


def _point(name: Path, blob: Path) -> None:
    """A name in the snapshot, for what is in `blobs`: a link, or a copy where the file system has none."""
    if name.exists() and name.samefile(blob):
        return
    name.parent.mkdir(parents=True, exist_ok=True)
    new = name.with_name(f"{name.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    try:
        new.symlink_to(os.path.relpath(blob, name.parent))
    except OSError:
        shutil.copyfile(blob, new)
    new.replace(name)


def _branch(revision: str) -> str:
    if {"", ".", ".."} & set(revision.split("/")) or "\\" in revision:
        raise RequestError(f"'{revision}' is not the name of a revision", parameter="revision")
    return revision


def _note(ref: Path, commit: str) -> None:
    """Which commit a branch or tag is."""
    ref.parent.mkdir(parents=True, exist_ok=True)
    new = ref.with_name(f"{ref.name}.{os.getpid()}.new")
    new.write_text(commit, encoding="ascii")
    new.replace(ref)


def _ignore(stage: str, done: int, total: int) -> None:
    """Where nobody looks."""
