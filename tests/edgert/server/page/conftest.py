"""A browser, and servers for it to look at: the demo model's, and one whose model says what it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.edgert.server.conftest import Served, serve
from tests.support.browser import Browser, open_browser

if TYPE_CHECKING:
    from tests.edgert.scripted import Say


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """As wide as a desk's; nothing may have gone wrong at the end."""
    chromium.resize(1280, 800)
    yield chromium
    assert chromium.logs() == []
    chromium.open("about:blank")


@pytest.fixture(scope="package")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Say]]:
    from tests.edgert.scripted import open_scripted

    with pytest.MonkeyPatch.context() as patch:
        llm, say = open_scripted(tmp_path_factory.mktemp("scripted"), patch)
    with llm:
        for served in serve(llm):
            yield served, say


@pytest.fixture(scope="package")
def demo() -> Iterator[Served]:
    from edgert import LLM

    with LLM(threads=1, seed=1) as llm:
        yield from serve(llm)
