"""The page's files. They hold nothing secret and are served without a key, which the page asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request, Response

_FILES = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action", "frame-ancestors", "trusted-types")),
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # kept, but asked for again: an update of edgert is seen at once
}

PAGE_PATHS = frozenset(
    {"/", *(f"/page/{file.name}" for file in _FILES.iterdir() if file.suffix in _TYPES and file.stem != "index")}
)
"""What is served here."""


def page_routes() -> APIRouter:
    """/ and /page/NAME."""
    router = APIRouter(include_in_schema=False)
    for path in sorted(PAGE_PATHS):
        file = _FILES / ("index.html" if path == "/" else path.removeprefix("/page/"))
        router.add_api_route(path, _serving(file.read_bytes(), _TYPES[file.suffix]), name=file.name)
    return router


def _serving(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    """A route that answers with a file, or that it is still the one the client has."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return serve
