"""OpenAI's client of the server that a test has: the scripted one, where it has that, else the tiny model's."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    scripted = "scripted" in request.fixturenames
    served = request.getfixturevalue("scripted")[0] if scripted else request.getfixturevalue("served")
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made
