"""Models and data sets that a model comes from, as GGUF keys: `general.base_model.*` and `general.dataset.*` (the GGUF
specification), and under `edgert.distill.` what a user says of a distillation. Nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edgert_models.errors import RequestError

from edgert_quant.convert.source import MetadataEntry
from edgert_quant.files import quoted

HUB = "https://huggingface.co/"
_DATASETS = "datasets/"
_ADDRESS = re.compile(r"https?://[^\s/]+(/\S*)?")
_MOST = 1024


def origin_metadata(kind: str, place: int, model: str) -> dict[str, str]:
    """The keys for a model ("base_model") or data set ("dataset"), given its name, hub id or address."""
    key, found = f"general.{kind}.{place}", dict[str, str]()
    prefix = HUB + (_DATASETS if kind == "dataset" else "")
    if model.startswith(prefix):
        model = model.removeprefix(prefix).strip("/")
    organization, slash, name = model.rstrip("/").rpartition("/")
    found[f"{key}.name"] = name.replace("-", " ")
    if _ADDRESS.fullmatch(model):
        found[f"{key}.repo_url"] = model
    elif slash:
        found[f"{key}.organization"] = organization
        found[f"{key}.repo_url"] = prefix + model
    return found


def with_origins(
    metadata: Mapping[str, MetadataEntry], teachers: Sequence[str], datasets: Sequence[str]
) -> dict[str, MetadataEntry]:
    """`metadata`, and after the models and data sets that are there already the teachers of a distillation and its data
    sets. RequestError for a name that cannot be one.
    """
    found = dict(metadata)
    for option, kind, key, names in (
        ("distilled_from", "base_model", "teachers", teachers),
        ("dataset", "dataset", "datasets", datasets),
    ):
        for name in names:
            if not name.strip("/ ") or not name.isprintable():
                raise RequestError(f"{quoted(name)} is no name, hub id or address", parameter=option)
        if not names:
            continue
        found[f"edgert.distill.{key}"] = MetadataEntry(list(names))
        entry = found.pop(f"general.{kind}.count", None)
        count = entry.value if entry is not None and isinstance(entry.value, int) else 0
        if not 0 <= count <= _MOST:
            raise RequestError(f"general.{kind}.count is {count} in the source, which cannot be", parameter="source")
        there = [_without_place(found, f"general.{kind}.{i}.") for i in range(count)]
        for name in names:
            new = {key: MetadataEntry(text) for key, text in origin_metadata(kind, count, name).items()}
            if _without_place(new, f"general.{kind}.{count}.") not in there:
                found |= new
                count += 1
        found[f"general.{kind}.count"] = MetadataEntry(count)
    return found


def _without_place(metadata: Mapping[str, MetadataEntry], prefix: str) -> dict[str, object]:
    names = ("name", "organization", "repo_url")
    return {name: metadata[prefix + name].value for name in names if prefix + name in metadata}
