"""From what a user calls a model to a file."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgert_models.errors import RequestError
from edgert_quant.hub import HUB_ID, hub_cache, snapshot

DEFAULT_QUANTIZATION = "Q4_K_M"
_LATER_SHARD = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")


def resolve_model(reference: str | Path | None) -> Path:
    """The GGUF file that `reference` means; RequestError says why there is none.

    A path (or file:// address) to a GGUF, of a split one the first file; None for the bundled demo model; or a hub id
    `org/name[:QUANTIZATION]` (also with hf:// before it), looked up in the Hugging Face cache on this machine. Nothing
    is downloaded.
    """
    if reference is None:
        return _demo()
    text = str(reference)
    if text.startswith("file://"):
        return _file(Path(unquote(urlsplit(text).path)), text)
    hub, _, quantization = text.removeprefix("hf://").partition(":")
    is_hub_id = HUB_ID.fullmatch(hub) is not None
    if text.startswith("hf://"):
        if not is_hub_id:
            raise RequestError(f"'{text}' is not of the form hf://org/name", parameter="model")
        return _cached(hub, quantization)
    path = Path(text).expanduser()
    if path.exists() or not is_hub_id or isinstance(reference, Path) or hub.endswith(".gguf"):
        return _file(path, text)
    return _cached(hub, quantization)


def _demo() -> Path:
    path = Path(__file__).parent / "demo" / "model.gguf"
    if not path.is_file():
        raise RequestError("this installation has no demo model; name a GGUF file", parameter="model")
    return path


def _file(path: Path, text: str) -> Path:
    if path.is_dir():
        if (path / "config.json").is_file():
            reason = f"'{text}' is a checkpoint; convert it first: edgert convert {text} model.gguf"
        else:
            reason = f"'{text}' is a folder, not a GGUF file"
        raise RequestError(reason, parameter="model")
    if not path.exists():
        raise RequestError(f"there is no file '{text}'", parameter="model")
    return path


def _cached(hub: str, quantization: str) -> Path:
    """The model's file of the wanted quantization in the hub's cache."""
    folder = snapshot(hub)
    found = [] if folder is None else sorted(p for p in folder.rglob("*.gguf") if not _LATER_SHARD.search(p.name))
    if not found:
        if folder is not None and (folder / "config.json").exists():
            reason = f"'{hub}' is a checkpoint without GGUF files; convert it first: edgert convert {hub} model.gguf"
        else:
            reason = (
                f"'{hub}' is neither a file nor in the Hugging Face cache ({hub_cache()}); "
                "this version does not download models"
            )
        raise RequestError(reason, parameter="model")
    wanted = quantization or DEFAULT_QUANTIZATION
    matching = [path for path in found if wanted.lower() in path.name.lower()]
    if len(matching) == 1:
        return matching[0]
    if len(found) == 1 and not quantization:
        return found[0]
    names = ", ".join(path.name for path in found)
    reason = "more than one file" if matching else "no file"
    raise RequestError(f"'{hub}' has {reason} of {wanted}; there are: {names}", parameter="model")
