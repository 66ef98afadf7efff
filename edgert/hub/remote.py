"""The hub at the other end: what a repository has, and its files' bytes, with every failure as an error of ours.

Its protocol is huggingface_hub's: `GET /api/models/ID/revision/REVISION?blobs=true` tells files with sizes and hashes,
`GET /ID/resolve/COMMIT/FILE` gives one, in part where `Range` asks for it. huggingface_hub brings the session, the
token and the errors; its own downloads begin anew when they are interrupted, and compare no hash.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from edgert_models.errors import EdgertError, HubError, RequestError

MAIN = "main"
ATTEMPTS = 5
"""How often in a row a file may stop coming without a byte."""
PAUSE = 1.0
"""Seconds before another attempt; each next one waits twice as long, and no more than a minute."""

_GIT_HASH, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_TRY_AGAIN = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository. `digest` is its SHA-256 or, of small ones, the SHA-1 that git calls it by: what the cache
    names it by too.
    """

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    repository: str
    commit: str
    files: dict[str, RemoteFile]


OFFLINE = "--offline or HF_HUB_OFFLINE"
"""What `is_offline` has from a user, for messages."""


def is_offline() -> bool:
    """Whether the environment forbids to ask the hub (huggingface_hub's variable)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def endpoint() -> str:
    """The hub's address."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def listing(repository: str, revision: str) -> Listing:
    """What a repository has. RequestError where there is none of that name or revision, HubError for the rest."""
    from huggingface_hub import HfApi

    with _told(repository, revision):
        info = HfApi(endpoint=endpoint()).model_info(repository, revision=revision, files_metadata=True, timeout=30)
        files = {}
        for found in info.siblings or ():
            digest = found.lfs.sha256 if found.lfs is not None else found.blob_id
            size = found.lfs.size if found.lfs is not None else found.size
            files[found.rfilename] = _checked(RemoteFile(found.rfilename, size or 0, digest or ""))
        if not _GIT_HASH.fullmatch(info.sha or ""):
            raise ValueError("no commit")
        return Listing(repository, info.sha or "", files)


def _checked(file: RemoteFile) -> RemoteFile:
    """ValueError for what cannot be the name of a file below a folder, a size, a hash."""
    parts = file.name.split("/")
    if PurePosixPath(file.name).is_absolute() or {"", ".", ".."} & set(parts) or "\\" in file.name or "\0" in file.name:
        raise ValueError(f"a file named {file.name!r}")
    if not isinstance(file.size, int) or file.size < 0:
        raise ValueError(f"a size of {file.size!r}")
    if not (_SHA256.fullmatch(file.digest) or _GIT_HASH.fullmatch(file.digest)):
        raise ValueError(f"a hash of {file.digest!r}")
    return file


def receive(of: Listing, file: RemoteFile, target: Path, on_bytes: Callable[[int], None]) -> None:
    """Fetch a file, or what `target` has not of it yet; `on_bytes` is told how much is there."""
    failures = 0
    while True:
        before = _have(target, file.size)
        on_bytes(before)
        if before == file.size:
            target.touch()
            return
        try:
            with _told(of.repository, of.commit):
                _receive_more(of, file, target, before, on_bytes)
            stopped = None
        except _InterruptedError as error:
            stopped = error
        if _have(target, file.size) > before:
            failures = 0
            continue
        failures += 1
        if failures >= ATTEMPTS:
            there = f"{before} of {file.size} bytes of {file.name} are here, and edgert pull goes on from there"
            raise HubError(f"{stopped or f'{_site()} sends nothing'}; {there}")
        time.sleep(min(60.0, max(PAUSE * 2 ** (failures - 1), stopped.after if stopped else 0.0)))


def _have(target: Path, size: int) -> int:
    """Bytes of it that are there; what is longer than it should be is none of it."""
    if not target.exists():
        return 0
    if (found := target.stat().st_size) > size:
        target.unlink()
        return 0
    return found


def _receive_more(of: Listing, file: RemoteFile, target: Path, start: int, on_bytes: Callable[[int], None]) -> None:
    """One request for what comes after `start`."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, and exported lazily
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    url = hf_hub_url(of.repository, file.name, revision=of.commit, endpoint=endpoint())
    headers = {**build_hf_headers(library_name="edgert"), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    # The session follows redirects, and leaves the token out where they lead to another host.
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        if response.status_code == 416:  # a file of that commit does not change: what is here is none of it
            target.unlink()
            return
        hf_raise_for_status(response)
        continued = response.status_code == 206
        if continued and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ValueError("another part of the file than it was asked for")
        with target.open("ab" if continued else "wb") as out:
            there = start if continued else 0
            for piece in response.iter_raw():  # as they come: what is grouped would be lost with the connection
                there += len(piece)
                if there > file.size:
                    raise ValueError(f"more than the {file.size} bytes of {file.name}")
                out.write(piece)
                on_bytes(there)


class _InterruptedError(HubError):
    """Something that may go better the next time, after so many seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        self.after = after
        super().__init__(message)


@contextmanager
def _told(repository: str, revision: str) -> Iterator[None]:
    """What can go wrong with the hub, in words of ours: no address but its own, and never a token."""
    import httpx2
    from huggingface_hub import errors, get_token
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    where = _site()
    try:
        yield
    except EdgertError:
        raise
    except errors.GatedRepoError:
        first = "this token (HF_TOKEN) has no access" if get_token() else "it wants a token, in HF_TOKEN"
        raise HubError(f"'{repository}' is gated: {first}; accept its terms at {where}/{repository}") from None
    except errors.RepositoryNotFoundError:
        reason = f"there is no model '{repository}' on {where}, or it is private and HF_TOKEN gives no access"
        raise RequestError(reason, parameter="model") from None
    except errors.RevisionNotFoundError:
        raise RequestError(f"'{repository}' has no revision '{revision}'", parameter="revision") from None
    except errors.HfHubHTTPError as error:
        raise _answered(error.response.status_code, error.response.headers.get("Retry-After", ""), where) from None
    except httpx2.TransportError as error:
        raise _InterruptedError(f"{where} cannot be reached ({type(error).__name__})") from None
    except OSError as error:
        raise HubError(f"fetching '{repository}': {error.strerror or type(error).__name__}") from None
    except (ValueError, TypeError, KeyError, AttributeError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = " ".join(str(error).split())[:120]
        raise HubError(f"{where} is no hub, or a damaged one: it answered with {reason}") from None


def _answered(status: int, after: str, where: str) -> HubError:
    """The error for a status."""
    if status == 401:
        return HubError(f"{where} wants a token, in HF_TOKEN, or takes not the one that it was given")
    if status == 403:
        return HubError(f"{where} refuses access (403)")
    if status in _TRY_AGAIN:
        what = "asks for fewer requests" if status == 429 else "has failed"
        return _InterruptedError(f"{where} {what} ({status})", float(after) if after.isdecimal() else 0.0)
    return HubError(f"{where} answered with {status}")


def _site() -> str:
    """The hub's address without names and passwords."""
    parts = urlsplit(endpoint())
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"
