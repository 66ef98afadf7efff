"""Where a server listens, and who may ask it."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgert_models.errors import BackendError, RequestError
from edgert_quant.files import read_text

from edgert.server.guard import is_loopback

_BACKLOG = 512
"""Connections that may wait until they are accepted: many come at once."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where to listen: `host` and `port`, or the Unix socket `path`; with TLS if there are `certificate` and `key`."""

    host: str = "127.0.0.1"
    port: int = 8080
    path: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def local(self) -> bool:
        """Whether only this machine's programs can reach it."""
        return self.path is not None or is_loopback(self.host)

    def check(self, api_keys: Sequence[str]) -> None:
        """Refuse to be reachable from other machines without a key, and half of what TLS needs."""
        if not api_keys and not self.local:
            raise RequestError(
                f"--host {self.host} can be reached from other machines: give --api-key, --api-key-file or "
                "EDGERT_API_KEY too",
                parameter="host",
            )
        if (self.certificate is None) != (self.key is None):
            raise RequestError("--tls-cert and --tls-key belong together", parameter="tls_cert")
        if self.certificate is not None and self.key is not None:
            try:  # a key with a passphrase would ask for it on the terminal
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, lambda: "")
            except (OSError, ssl.SSLError) as error:
                files = f"--tls-cert {self.certificate}, --tls-key {self.key}"
                raise RequestError(f"{files}: {error.strerror or error}", parameter="tls_cert") from None

    def url(self, listener: socket.socket) -> str:
        """What clients are given."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.certificate else ''}://{host}:{listener.getsockname()[1]}"

    def listen(self) -> socket.socket:
        """A socket that listens; BackendError says why there cannot be one."""
        where = f"{self.host} port {self.port}" if self.path is None else str(self.path)
        listener = None
        try:
            if self.path is not None:
                listener = _bound_to(self.path)
            else:
                family, *_, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
                listener = socket.socket(family)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
            listener.listen(_BACKLOG)  # who reads the address may connect at once, and waits until requests are taken
        except OSError as error:
            if listener is not None:
                listener.close()
            raise BackendError(f"cannot listen on {where}: {error.strerror or error}") from None
        return listener

    def leave(self) -> None:
        """Remove what `listen` has left in the file system."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()


def keys_of(api_keys: Sequence[str], file: Path | None) -> list[str]:
    """The keys of which requests must carry one: given, or the lines of a file (without empty ones, and those that
    begin with #); RequestError where there are both, or none in what should have them.
    """
    if file is None:
        if not all(key.strip() for key in api_keys):
            raise RequestError("--api-key is empty", parameter="api_key")
        return list(api_keys)
    if api_keys:
        raise RequestError("--api-key and --api-key-file (or EDGERT_API_KEY) are both given", parameter="api_key")
    lines = [line.strip() for line in read_text(file, "api_key_file", "--api-key-file").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise RequestError(f"--api-key-file {file} has no key", parameter="api_key_file")
    return found


def _bound_to(path: Path) -> socket.socket:
    """A Unix socket at a path, for this user alone; one that nobody listens at any more is replaced."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(0, "there is a file of that name")
        with socket.socket(socket.AF_UNIX) as other:
            try:
                other.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise FileExistsError(0, "another server listens there")
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener
