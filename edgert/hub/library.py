"""The models in the hub's cache: which there are, whether they run, and how to be rid of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgert_models.errors import EdgertError, HubError, RequestError
from edgert_models.registry import spec_from_config
from edgert_quant.checkpoint.documents import read_json
from edgert_quant.hub import HUB_ID, hub_cache, repository_folder, snapshots

from edgert.description import describe
from edgert.hub.cached import cached_sets, names_in
from edgert.hub.files import GgufSet, HubReference, checkpoint_files, choose, name_of

if TYPE_CHECKING:
    from huggingface_hub import CachedFileInfo, CachedRepoInfo, HFCacheInfo

CHECKPOINT = "checkpoint"
"""The quantization of what has none."""


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model in the cache. `name` is what commands take; `problem` says why it does not run, "" if it does; `size` is
    bytes; `modified` is seconds since 1970; `path` is the GGUF file or the checkpoint's folder.
    """

    name: str
    quantization: str
    size: int
    architecture: str
    problem: str
    modified: float
    path: Path


def list_models() -> list[CachedModel]:
    """The GGUF models and checkpoints in the cache, by name."""
    found = []
    for folder in sorted(hub_cache().glob("models--*--*/")):
        repository = folder.name.removeprefix("models--").replace("--", "/", 1)
        if not HUB_ID.fullmatch(repository):
            continue
        sets = cached_sets(repository)
        found += [_gguf(repository, one, place, list(sets)) for one, place in sets.items()]
        place = next((place for place in snapshots(repository) if checkpoint_files(names_in(place))), None)
        if place is not None and not sets:
            found.append(_checkpoint(repository, place))
    return found


def _gguf(repository: str, one: GgufSet, folder: Path, others: list[GgufSet]) -> CachedModel:
    path = folder / one.first
    said = describe(path)
    lacks = f"{one.missing} of {len(one.files) + one.missing} shards are missing"
    return CachedModel(
        name=f"{repository}:{name_of(one, others)}",
        quantization=one.tag if one.tag != one.first else "?",
        size=sum((folder / name).stat().st_size for name in one.files),
        architecture=said.architecture,
        problem=lacks if one.missing else said.problem,
        modified=said.modified,
        path=path,
    )


def _checkpoint(repository: str, folder: Path) -> CachedModel:
    architecture, problem = "?", ""
    try:
        config: Any = read_json(folder / "config.json", max_bytes=4 << 20, max_values=500_000)
        classes = config.get("architectures") if isinstance(config, Mapping) else None
        architecture = str(classes[0]) if isinstance(classes, list) and classes else "?"
        spec_from_config(config if isinstance(config, Mapping) else {})
        problem = f"to be converted: edgert convert {repository} model.gguf"
    except EdgertError as error:
        problem = str(error)
    names = checkpoint_files(names_in(folder))
    return CachedModel(
        name=repository,
        quantization=CHECKPOINT,
        size=sum((folder / name).stat().st_size for name in names),
        architecture=architecture,
        problem=problem,
        modified=(folder / "config.json").stat().st_mtime,
        path=folder,
    )


class Removal:
    """What deleting a model means: the names that go, and how many bytes that frees; `execute` does it.

    `org/name` is everything that the cache has of the repository, `org/name:QUANTIZATION` that model in all revisions.
    Bytes that another revision has too stay. RequestError where the cache has no such model.
    """

    def __init__(self, reference: str) -> None:
        from huggingface_hub import CacheNotFound, scan_cache_dir

        wanted = HubReference.parse(reference)
        self._folder = repository_folder(wanted.repository)
        nothing = f"'{wanted}' is not in the Hugging Face cache ({hub_cache()})"
        try:
            found = scan_cache_dir(hub_cache())
        except CacheNotFound:
            raise RequestError(nothing, parameter="model") from None
        repository = next((repo for repo in found.repos if repo.repo_path == self._folder.absolute()), None)
        if repository is None:
            broken = next((str(w) for w in found.warnings if str(self._folder) in str(w)), None)
            raise RequestError(f"{nothing}: {broken}" if broken else nothing, parameter="model")
        self.names, self._strategy = _planned(wanted, found, repository)
        self.freed = self._strategy.expected_freed_size + self._partial()

    def _partial(self) -> int:
        """Bytes of pulls that were interrupted, which go with the repository."""
        if not self._strategy.repos:
            return 0
        return sum(path.stat().st_size for path in self._folder.glob("blobs/*.incomplete"))

    def execute(self) -> None:
        """Delete them; HubError where the system does not let us."""
        try:
            self._strategy.execute()
        except OSError as error:
            raise HubError(f"{self._folder}: {error.strerror}") from error
        left = [path for path in (*self._strategy.repos, *self._strategy.files, *self._strategy.blobs) if path.exists()]
        if left:  # huggingface_hub only logs it
            raise HubError(f"{left[0]} could not be deleted; is it another user's?")


def _planned(wanted: HubReference, found: HFCacheInfo, repository: CachedRepoInfo) -> tuple[list[str], Any]:
    """The names that go, and how."""
    found = replace(found, repos=frozenset({repository}))  # copies of a repository have the same commits
    files: dict[CachedFileInfo, str] = {
        file: file.file_path.relative_to(revision.snapshot_path).as_posix()
        for revision in repository.revisions
        for file in revision.files
    }
    names = sorted(set(files.values()))
    if wanted.wanted:
        names = list(choose(list(cached_sets(wanted.repository)), wanted).files)
    if not wanted.wanted or set(names) == set(files.values()):
        revisions = (revision.commit_hash for revision in repository.revisions)
        return names, found.delete_revisions(*revisions)
    return names, found.delete_files(*(file for file, name in files.items() if name in names))
