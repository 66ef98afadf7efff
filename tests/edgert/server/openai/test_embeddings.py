"""POST /v1/embeddings through the official client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import openai
import pytest

from tests.edgert.answers import quiet

if TYPE_CHECKING:
    from tests.edgert.server.conftest import Served


def test_texts_and_tokens(client: openai.OpenAI, served: Served) -> None:
    texts = ["hello world", "hello"]
    ids = [served.llm.tokenize(text) for text in texts]
    expected = served.llm.embed(texts)
    for given, rows in ((texts, expected), (ids, expected), (texts[0], expected[:1]), (ids[1], expected[1:])):
        answer = client.embeddings.create(model=served.llm.name, input=given)
        assert [entry.index for entry in answer.data] == list(range(len(rows)))
        assert np.allclose([entry.embedding for entry in answer.data], rows, atol=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == len(ids[1])


def test_forms(client: openai.OpenAI, served: Served) -> None:
    whole = served.llm.embed("hello")[0]
    plain = client.embeddings.create(model=served.llm.name, input="hello", encoding_format="float")
    coded = client.embeddings.create(model=served.llm.name, input="hello")  # base64, which the client decodes
    assert plain.data[0].embedding == pytest.approx(coded.data[0].embedding)
    short = client.embeddings.create(model=served.llm.name, input="hello", dimensions=3)
    assert short.data[0].embedding == pytest.approx(whole[:3] / np.linalg.norm(whole[:3]), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"input": ""}, "input", "at least 1 character"),
        ({"input": []}, "input", "at least 1 item"),
        ({"input": ["x", 1]}, "input", ""),
        ({"input": "x" * 500}, "prompt", "501 tokens do not fit the context of 128"),
        ({"input": [10**6]}, "prompt", "outside the vocabulary"),
        ({"dimensions": 0}, "dimensions", "greater than or equal to 1"),
        ({"dimensions": 10**4}, "dimensions", "the model's vectors have"),
        ({"encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused(served: Served, change: dict[str, Any], param: str, message: str) -> None:
    response = httpx.post(f"{served.url}/v1/embeddings", json={"model": served.llm.name, "input": "x", **change})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert message in response.json()["error"]["message"]


def test_a_client_that_leaves_frees_everything(served: Served) -> None:
    body = {"model": served.llm.name, "input": ["x" * 120] * 1000}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{served.url}/v1/embeddings", json=body, timeout=0.5)
    assert quiet(served.llm)
