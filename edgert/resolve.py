"""From what a user calls a model to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from edgert_models.errors import RequestError
from edgert_quant.files import expanded
from edgert_quant.hub import HUB_ID, hub_cache, snapshot

from edgert.hub.cached import cached_sets, names_in
from edgert.hub.files import PREFIXES, HubReference, checkpoint_files, choose, matching

if TYPE_CHECKING:
    from edgert_runtimes.base import Progress


def as_reference(model: str | None) -> str | None:
    """What `resolve_model` and LLM call the model that users name so: 'demo' is the bundled one."""
    return None if model == "demo" else model


def resolve_model(reference: str | Path | None, *, download: bool = True, progress: Progress | None = None) -> Path:
    """The GGUF file that `reference` means; RequestError says why there is none.

    A path (or file:// address) to a GGUF, of a split one the first file; None for the bundled demo model; or a hub id
    `org/name[:QUANTIZATION]` (also with hf:// before it), looked up in the Hugging Face cache on this machine, and
    fetched where that has nothing of it, unless `download` is false or HF_HUB_OFFLINE is set (see `edgert.hub.pull`).
    """
    if reference is None:
        return _demo()
    text = str(reference)
    if text.startswith("file://"):
        return _file(Path(unquote(urlsplit(text).path)), text)
    if text.startswith(PREFIXES):
        return _fetched(HubReference.parse(text), download, progress)
    path, hub = expanded(text), text.partition(":")[0]
    if path.exists() or not HUB_ID.fullmatch(hub) or isinstance(reference, Path) or hub.endswith(".gguf"):
        return _file(path, text)
    return _fetched(HubReference.parse(text), download, progress)


def _demo() -> Path:
    path = Path(__file__).parent / "demo" / "model.gguf"
    if not path.is_file():
        raise RequestError("this installation has no demo model; name a GGUF file", parameter="model")
    return path


def _file(path: Path, text: str) -> Path:
    if not text:
        raise RequestError("the model's name is empty; 'demo' is the bundled one", parameter="model")
    if path.is_dir():
        if (path / "config.json").is_file():
            reason = f"'{text}' is a checkpoint; convert it first: edgert convert {text} model.gguf"
        else:
            reason = f"'{text}' is a folder, not a GGUF file; edgert serve takes one with --models-dir"
        raise RequestError(reason, parameter="model")
    if not path.exists():
        raise RequestError(f"there is no file '{text}'", parameter="model")
    return path


def _fetched(wanted: HubReference, download: bool, progress: Progress | None) -> Path:
    """The model's file in the hub's cache, which it is fetched to where that is allowed."""
    from edgert.hub.pull import pull  # not at the top: models that are files start without it
    from edgert.hub.remote import OFFLINE, is_offline

    sets = cached_sets(wanted.repository)
    if not matching(list(sets), wanted):
        folder = snapshot(wanted.repository)
        if not sets and folder is not None and checkpoint_files(names_in(folder)):
            raise RequestError(_to_convert(wanted.repository), parameter="model")
        if download and not is_offline():
            try:
                path = pull(str(wanted), progress=progress).path
            except RequestError as error:
                raise RequestError(f"there is no file '{wanted}', and {error}", parameter="model") from None
            if path.is_dir():
                raise RequestError(_to_convert(wanted.repository), parameter="model")
            return path
        if not sets:
            why = f"{OFFLINE} forbids to fetch it" if is_offline() else f"edgert pull {wanted} fetches it"
            reason = f"'{wanted}' is neither a file nor in the Hugging Face cache ({hub_cache()}); {why}"
            raise RequestError(reason, parameter="model")
    chosen = choose(list(sets), wanted)
    return sets[chosen] / chosen.first


def _to_convert(name: str) -> str:
    return f"'{name}' is a checkpoint without GGUF files; convert it first: edgert convert {name} model.gguf"
