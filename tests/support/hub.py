"""A server that speaks the protocol of the Hugging Face hub, with faults to order."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LFS = (".gguf", ".safetensors")


@dataclass
class Fault:
    """What is done once with a request for bytes, in place of the answer."""

    status: int = 0  # answer with this status
    cut: int | None = None  # close the connection after so many bytes
    code: str = ""  # X-Error-Code
    headers: dict[str, str] = field(default_factory=dict)
    whole: bool = False  # ignore Range


@dataclass
class Seen:
    """A request that came."""

    method: str
    host: str
    path: str
    range: str | None
    authorization: str | None


class Hub:
    """What the hub has: `repositories[ID][NAME]` are bytes, by revision `commits`. `listing_faults` answer requests for
    what a repository has, `faults` those for a file's bytes, each once; `listed` changes what is told of a file.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits = {"main": COMMIT, COMMIT: COMMIT}
        self.listing_faults: deque[Fault] = deque()
        self.faults: deque[Fault] = deque()
        self.listed: dict[str, dict[str, Any]] = {}
        self.token: str | None = None  # what requests for files must carry
        self.seen: list[Seen] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bytes_asked(self) -> list[str | None]:
        """The Range of each request for bytes."""
        return [seen.range for seen in self.seen if seen.path.startswith("/cdn/")]

    def listing(self, repository: str, commit: str) -> dict[str, Any]:
        siblings = []
        for name, data in self.repositories[repository].items():
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
            if name.endswith(LFS):
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
            siblings.append({**entry, **self.listed.get(name, {})})
        return {
            "id": repository,
            "modelId": repository,
            "sha": commit,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port. Files are redirected to another host name, as the real one does."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
            host = self.headers["Host"].partition(":")[0]
            hub.seen.append(Seen(self.command, host, self.path, self.headers["Range"], self.headers["Authorization"]))
            match parts:
                case ["api", "models", *rest]:
                    self.list(rest)
                case ["cdn", organization, name, *file]:
                    self.give(hub.repositories[f"{organization}/{name}"]["/".join(file)])
                case [organization, name, "resolve", _, *file]:
                    self.resolve(f"{organization}/{name}", "/".join(file))
                case _:
                    self.refuse(404)

        def list(self, rest: list[str]) -> None:
            repository, revision = "/".join(rest[:2]), rest[3] if len(rest) > 3 else "main"
            if hub.listing_faults:
                fault = hub.listing_faults.popleft()
                self.refuse(fault.status, fault.code, fault.headers)
            elif repository not in hub.repositories:
                self.refuse(401, "RepoNotFound")
            elif revision not in hub.commits:
                self.refuse(404, "RevisionNotFound")
            else:
                body = json.dumps(hub.listing(repository, hub.commits[revision])).encode()
                self.answer(200, {"Content-Type": "application/json"}, body)

        def resolve(self, repository: str, file: str) -> None:
            if hub.token is not None and self.headers["Authorization"] != f"Bearer {hub.token}":
                self.refuse(403 if self.headers["Authorization"] else 401, "GatedRepo")
                return
            place = f"http://localhost:{hub.port}/cdn/{repository}/{file}"
            self.answer(302, {"Location": place, "X-Repo-Commit": COMMIT}, b"")

        def give(self, data: bytes) -> None:
            fault = hub.faults.popleft() if hub.faults else Fault()
            if fault.status:
                self.refuse(fault.status, fault.code, fault.headers)
                return
            asked = None if fault.whole else self.headers["Range"]
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
            part = data[start:]
            self.send_response(206 if asked else 200)
            for key, value in {**headers, "Content-Length": str(len(part))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(part if fault.cut is None else part[: fault.cut])
            self.close_connection = fault.cut is not None

        def refuse(self, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
            self.answer(status, {**({"X-Error-Code": code} if code else {}), **(headers or {})}, b"{}")

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
