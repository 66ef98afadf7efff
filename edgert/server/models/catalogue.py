"""Which models a server has: files that were named, those of a folder, those of the Hugging Face cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgert_models.errors import RequestError
from edgert_quant.hub import hub_cache
from edgert_runtimes.base import Progress

from edgert.description import Description, describe
from edgert.hub.cached import names_in
from edgert.hub.files import HubReference, gguf_sets
from edgert.hub.library import list_models
from edgert.resolve import as_reference, resolve_model


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that can be asked for: its file (of a split one the first), what it is called (by itself, if `own`), what
    else, and the adapters that can be named after it.
    """

    name: str
    path: Path
    aliases: frozenset[str] = frozenset()
    own: bool = False
    adapters: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Its own, and those of its adapters."""
        return self.name, *(f"{self.name}:{adapter}" for adapter in self.adapters)

    def adapter_of(self, name: str) -> str | None:
        """The adapter in a name that means this model with one."""
        model, _, adapter = name.removesuffix(":latest").rpartition(":")
        return adapter if adapter in self.adapters and model in (self.name, *self.aliases) else None

    def description(self) -> Description:
        """What its file says."""
        return describe(self.path)


def named(references: Sequence[str | None], progress: Progress | None = None) -> list[Entry]:
    """Entries for what was named: `[NAME=]MODEL`, MODEL as everywhere, None the bundled demo. Without NAME a hub id is
    called as it is written, a file as it calls itself, or by its file's name where several call themselves the same.

    RequestError where a model is not there, or two have one name.
    """
    entries = [_named(reference, progress) for reference in references]
    own = Counter(entry.name for entry in entries if entry.own)
    entries = [replace(one, name=one.path.stem) if one.own and own[one.name] > 1 else one for one in entries]
    check_names(entries)
    return entries


def _named(reference: str | None, progress: Progress | None) -> Entry:
    name, equals, rest = (reference or "").partition("=")
    if equals and "/" not in name and name and not Path(reference or "").exists():
        return Entry(name, _resolve(rest, progress))
    path = _resolve(reference, progress)
    called = describe(path).name
    if reference is not None and path.is_relative_to(hub_cache()) and not Path(reference).exists():
        return Entry(str(HubReference.parse(reference)), path, frozenset({called}))
    return Entry(called, path, own=True)


def _resolve(reference: str | None, progress: Progress | None) -> Path:
    return resolve_model(as_reference(reference), progress=progress)


def check_names(entries: Iterable[Entry]) -> None:
    """RequestError where two have one name."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        if (other := seen.setdefault(entry.name, entry)) is not entry:
            reason = f"{other.path} and {entry.path} are both called '{entry.name}'; give each another NAME=MODEL"
            raise RequestError(reason, parameter="model")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """`fixed` entries, those of `folder`, and with `cache` those of the Hugging Face cache, as they are now."""

    fixed: tuple[Entry, ...] = ()
    folder: Path | None = None
    cache: bool = False

    def __post_init__(self) -> None:
        if self.folder is not None and not self.folder.is_dir():
            raise RequestError(f"--models-dir {self.folder}: there is no such folder", parameter="models_dir")

    @property
    def changes(self) -> bool:
        """Whether what there is may change, so that it has to be looked for."""
        return self.cache or self.folder is not None

    def entries(self) -> dict[str, Entry]:
        """All of them by name; a name that is there already is not taken again. Files that do not run are left out."""
        found = {entry.name: entry for entry in self.fixed}
        for entry in (*self._in_folder(), *self._in_cache()):
            found.setdefault(entry.name, entry)
        return found

    def _in_folder(self) -> Iterable[Entry]:
        if self.folder is None:
            return
        for one in gguf_sets(names_in(self.folder)):
            path = self.folder / one.first
            if not one.missing and not describe(path).problem:
                yield Entry(one.stem, path)

    def _in_cache(self) -> Iterable[Entry]:
        if self.cache:
            yield from (Entry(model.name, model.path) for model in list_models() if not model.problem)
