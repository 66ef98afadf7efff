"""What the page is served as, without a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

import edgert.server.page
from edgert.server.page.routes import PAGE_PATHS
from tests.edgert.server.conftest import serve

if TYPE_CHECKING:
    from tests.edgert.scripted import Say
    from tests.edgert.server.conftest import Served

FILES = {file.name: file.read_text() for file in (Path(edgert.server.page.__file__).parent / "static").iterdir()}


def test_every_file_is_served_without_a_key_and_under_the_policy(talking: tuple[Served, Say]) -> None:
    assert {"/", *(f"/page/{name}" for name in FILES if name != "index.html")} == PAGE_PATHS
    for served in serve(talking[0].llm, api_keys=["secret"]):
        with httpx.Client(base_url=served.url) as client:
            _check(client)


def _check(client: httpx.Client) -> None:
    for path in PAGE_PATHS:
        response = client.get(path)
        assert response.status_code == 200, path
        policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in str(policy)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        again = client.get(path, headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in ("/live", "/page/", "/page/none.js", "/page/index.html", "/page/..%2froutes.py"):
        assert client.get(path).status_code == 401, path


def test_types(talking: tuple[Served, Say]) -> None:
    served, _ = talking
    for path, kind in (("/", "text/html"), ("/page/app.js", "text/javascript"), ("/page/style.css", "text/css")):
        assert httpx.get(served.url + path).headers["content-type"] == f"{kind}; charset=utf-8"
    assert httpx.get(f"{served.url}/page/icon.svg").headers["content-type"] == "image/svg+xml"
    assert httpx.get(f"{served.url}/page/none.js").status_code == 404


def test_nothing_is_inline_or_from_elsewhere() -> None:
    page = FILES["index.html"]
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]* src=)", page)
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(address.startswith(("page/", "#")) for address in addresses)
    for name in re.findall(r'"page/([^"]*)"', page):
        assert name in FILES
    for name, text in FILES.items():
        outside = re.findall(r"https?://[\w.]+", text)
        assert set(outside) <= {"http://www.w3.org", "https://spec.commonmark.org", "https://github.github.com"}, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
        assert "url(" not in text
        assert "@import" not in text
