"""What a checkpoint says about itself outside its weights: the model card, and the folder's name on the hub.

Cards are README.md files with a YAML header. Only the plain forms that cards use are read (`key: value`,
`key: [a, b]`, and lists of `- item`); whatever else stands there is passed over, so no YAML parser meets foreign text.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgert_quant.convert.provenance import origin_metadata

_LARGEST_CARD = 1 << 20
_ENTRY = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*):(?:\s+(.*))?")
_ITEM = re.compile(r"\s*-\s+(.+)")
_PLAIN = re.compile(r"[^&*!|>%@`{}#\x00-\x1f]{1,256}")


def read_card(folder: Path) -> dict[str, list[str]]:
    """The header of a folder's README.md, each value as a list; empty where there is none."""
    path = folder / "README.md"
    if not path.is_file() or path.stat().st_size > _LARGEST_CARD:
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    entries: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines[1:]:
        if line.strip() in ("---", "..."):
            return entries
        if match := _ENTRY.fullmatch(line):
            current = entries.setdefault(match[1], [])
            current.extend(_values(match[2] or ""))
        elif (match := _ITEM.fullmatch(line)) and current is not None:
            current.extend(_values(match[1]))
        elif line.strip() and not line.lstrip().startswith("#"):
            current = None
    return {}  # the header never ends


def _values(text: str) -> list[str]:
    text = text.partition(" #")[0].strip()
    parts = text[1:-1].split(",") if text.startswith("[") and text.endswith("]") else [text]
    plain = (part.strip().strip("\"'").strip() for part in parts)
    return [part for part in plain if part and _PLAIN.fullmatch(part)]


def card_metadata(card: dict[str, list[str]]) -> dict[str, str | int | list[str]]:
    """The card as GGUF keys: licence, base models, languages, tags and data sets."""
    entries: dict[str, str | int | list[str]] = {}
    for key in ("license", "license_name", "license_link"):
        if card.get(key):
            entries["general." + key.replace("_", ".")] = card[key][0]
    for kind, models in (("base_model", card.get("base_model", [])), ("dataset", card.get("datasets", []))):
        if models:
            entries[f"general.{kind}.count"] = len(models)
        for i, model in enumerate(models):
            entries |= origin_metadata(kind, i, model)
    if card.get("language"):
        entries["general.languages"] = card["language"]
    if card.get("tags") or card.get("pipeline_tag"):
        entries["general.tags"] = [*card.get("tags", []), *card.get("pipeline_tag", [])]
    return entries
