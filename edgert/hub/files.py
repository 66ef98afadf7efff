"""Which of a repository's files make a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgert_models.errors import RequestError
from edgert_quant.hub import HUB_ID

PREFIXES = ("hf://", "hf.co/", "huggingface.co/", "https://hf.co/", "https://huggingface.co/")
"""What may stand before a hub id, and says that it is one."""

DEFAULT_QUANTIZATION = "Q4_K_M"

_SHARD = re.compile(r"(?s)(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_NO_MODEL = re.compile(r"(?i)^mmproj|imatrix")  # what lies beside models: vision encoders, importance matrices
_TAG = re.compile(r"(?i)(?<![a-z0-9])(UD-)?(I?Q\d_[a-z0-9_]+|TQ\d_\d|MXFP4(_MOE)?|BF16|F16|F32)(?![a-z0-9])")
_BESIDE = re.compile(r"[^/]+\.(json|txt|model|jinja|tiktoken|md)")


@dataclass(frozen=True, slots=True)
class HubReference:
    """`org/name`, and after a colon which of its files: a quantization, or a file's name; "" for the default."""

    repository: str
    wanted: str = ""

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Reads `org/name[:WANTED]`, also with one of PREFIXES; RequestError for anything else."""
        prefix = next((one for one in PREFIXES if text.startswith(one)), "")
        repository, _, wanted = text.removeprefix(prefix).partition(":")
        if not HUB_ID.fullmatch(repository):
            raise RequestError(f"'{text}' is not of the form org/name[:QUANTIZATION]", parameter="model")
        return cls(repository, wanted)

    def __str__(self) -> str:
        return f"{self.repository}:{self.wanted}" if self.wanted else self.repository


@dataclass(frozen=True, slots=True)
class GgufSet:
    """A GGUF file, or all shards of one; the first stands for it."""

    files: tuple[str, ...]
    missing: int = 0  # shards that are not there

    @property
    def first(self) -> str:
        """The file to open."""
        return self.files[0]

    @property
    def stem(self) -> str:
        """Its name without the ending, and without the shard's number."""
        match = _SHARD.fullmatch(self.first)
        return match["stem"] if match else self.first.removesuffix(".gguf")

    @property
    def tag(self) -> str:
        """The quantization that its name tells, else the name."""
        found = _TAG.findall(self.first.rpartition("/")[2]) or _TAG.findall(self.first)
        return "".join(found[-1][:2]).upper() if found else self.first

    def is_called(self, wanted: str) -> bool:
        """Whether `wanted` is a quantization that is named in its name, in any case."""
        return re.search(rf"(?i)(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9_])", self.first) is not None


def gguf_sets(names: Iterable[str]) -> list[GgufSet]:
    """The models among a repository's files, in order of their names."""
    shards: dict[tuple[str, int], list[str]] = {}
    sets = []
    for name in sorted(names):
        if not name.endswith(".gguf") or _NO_MODEL.search(name.rpartition("/")[2]):
            continue
        match = _SHARD.fullmatch(name)
        if match:
            shards.setdefault((match["stem"], int(match["count"])), []).append(name)
        else:
            sets.append(GgufSet((name,)))
    sets += [GgufSet(tuple(files), count - len(files)) for (_, count), files in shards.items()]
    return sorted(sets, key=lambda found: found.first)


def matching(found: Sequence[GgufSet], reference: HubReference) -> list[GgufSet]:
    """Those that a reference may mean; one that is alone needs no name."""
    wanted = reference.wanted or DEFAULT_QUANTIZATION
    named = [one for one in found if wanted in one.files]
    if named:
        return named
    called = [one for one in found if one.is_called(wanted)]
    exact = [one for one in called if one.tag.lower() == wanted.lower()]  # Q4_K_M rather than UD-Q4_K_M
    if len(exact) == 1:
        return exact
    return list(found) if len(found) == 1 and not reference.wanted else called


def name_of(one: GgufSet, found: Sequence[GgufSet]) -> str:
    """The shortest that means this one of them: its quantization, or its file's name."""
    return one.tag if matching(found, HubReference("", one.tag)) == [one] else one.first


def choose(found: Sequence[GgufSet], reference: HubReference) -> GgufSet:
    """The one that a reference means; RequestError lists what there is where that is none, or several."""
    meant = matching(found, reference)
    if len(meant) == 1 and not meant[0].missing:
        return meant[0]
    if len(meant) == 1:
        count = len(meant[0].files) + meant[0].missing
        reason = f"lacks {meant[0].missing} of {count} shards of {meant[0].first}; edgert pull {reference}"
    else:
        names = ", ".join(one.first for one in found)
        kind = "more than one file" if meant else "no file"
        reason = f"has {kind} of {reference.wanted or DEFAULT_QUANTIZATION}; there are: {names}"
    raise RequestError(f"'{reference.repository}' {reason}", parameter="model")


def checkpoint_files(names: Iterable[str]) -> list[str]:
    """The files of a checkpoint that `edgert convert` reads; none where there are no config.json and safetensors."""
    there = set(names)
    weights = {name for name in there if name.endswith(".safetensors") and "/" not in name}
    if len(rest := {name for name in weights if not name.startswith("consolidated")}):
        weights = rest  # the same weights once more, in Mistral's own form
    if not weights or "config.json" not in there:
        return []
    return sorted(weights | {name for name in there if _BESIDE.fullmatch(name)})
