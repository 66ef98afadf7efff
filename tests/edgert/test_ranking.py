"""Models that judge how well documents answer a query."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from edgert_models.errors import FileFormatError, UnsupportedError
from edgert_quant.blocks import dequantize
from edgert_quant.gguf import GgufFile

from edgert import LLM, gathering
from tests.edgert.server.conftest import serve
from tests.edgert.tiny_gguf import write_tiny

TEMPLATE = "<|im_start|>user\nQ: {query}\nD: {document}<|im_end|>\n<|im_start|>assistant\n"
LABELS = {"qwen3.classifier.output_labels": ["yes", "no"]}  # llama.cpp wants them
KEYS = {"qwen3.pooling_type": 4, **LABELS, "tokenizer.chat_template.rerank": TEMPLATE}
YES, NO = 70, 71
DOCUMENTS = ["hello", "world", "hello world, hello"]


def write(folder: Path, head: np.ndarray | None = None, **changes: Any) -> Path:
    """A model whose head has the rows of two tokens of its embedding, as Qwen3-Reranker's has those of yes and no."""
    dense = {"qk_norm": "head", "experts": 0, "experts_used": 0, "expert_feed_forward": 0}
    options = {"tied": True, "metadata": KEYS, **dense, **changes}
    path = write_tiny(folder / "model.gguf", "qwen3", **options)
    if head is None:
        with GgufFile.open(path) as file:
            rows = dequantize(file.read("token_embd.weight"), file.tensors["token_embd.weight"].type)
        head = rows[[YES, NO]]
    return write_tiny(folder / "ranker.gguf", "qwen3", **options, more={"cls.output.weight": head})


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_scores_are_the_probability_of_yes(tmp_path: Path, backend: str) -> None:
    with LLM(write(tmp_path), backend=backend, threads=1) as llm:
        found = llm.rank("hello", DOCUMENTS)
        for document, score in zip(DOCUMENTS, found, strict=True):
            ids = llm.tokenize(TEMPLATE.replace("{query}", "hello").replace("{document}", document), add_special=False)
            yes, no = llm.logits(ids)[-1][[YES, NO]].astype(np.float64)
            assert score == pytest.approx(1 / (1 + np.exp(no - yes)), rel=1e-4)
        assert len(set(found.tolist())) == 3


def test_texts_are_text(tmp_path: Path) -> None:
    with LLM(write(tmp_path), backend="reference") as llm:
        end = llm.tokenizer.eos_id
        ids = llm._opened.ranker().prompt("a <|im_end|> {document}", "\U00100000 <|im_end|>")
        assert ids.count(end or -1) == 1
        assert llm.detokenize(ids).count("{document}") == 1


def test_a_head_of_one_class_gives_its_score(tmp_path: Path) -> None:
    path = write(tmp_path, np.full((1, 64), 0.5, np.float32))
    with LLM(path, backend="reference") as llm:
        assert llm.spec.width == 64
        hidden = gathering.rows([llm._evaluation(llm._opened.ranker().prompt("a", "b"))])[0][-1]
        assert llm.rank("a", ["b"])[0] == pytest.approx(0.5 * hidden.sum(), rel=1e-5)


def test_what_cannot_rank(tmp_path: Path) -> None:
    with (
        LLM(write_tiny(tmp_path / "plain.gguf"), backend="reference") as llm,
        pytest.raises(UnsupportedError, match=r"is no model for ranking: .*pooling_type 4 and cls\.output\.weight"),
    ):
        llm.rank("a", ["b"])
    with (
        LLM(write(tmp_path, metadata={"qwen3.pooling_type": 4}), backend="reference") as llm,
        pytest.raises(UnsupportedError, match=r"ranking needs tokenizer\.chat_template\.rerank"),
    ):
        llm.rank("a", ["b"])
    with (
        LLM(write(tmp_path, np.zeros((2, 32), np.float32)), backend="reference") as llm,
        pytest.raises(FileFormatError, match=r"the shape is \[2, 32\], not \[classes, 64\]"),
    ):
        llm.rank("a", ["b"])


def post(url: str, path: str = "/rerank", **body: Any) -> httpx.Response:
    return httpx.post(url + path, json={"query": "hello", "documents": DOCUMENTS, **body}, timeout=60)


def test_rerank(tmp_path: Path) -> None:
    with LLM(write(tmp_path), backend="reference") as llm:
        scores = llm.rank("hello", DOCUMENTS)
        for served in serve(llm):
            ask = partial(post, served.url)
            found = ask().json()
            assert [result["index"] for result in found["results"]] == np.argsort(-scores).tolist()
            assert [result["relevance_score"] for result in found["results"]] == pytest.approx(-np.sort(-scores))
            tokens = sum(len(llm._opened.ranker().prompt("hello", document)) for document in DOCUMENTS)
            assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
            best = int(np.argmax(scores))
            (first,) = ask("/v1/rerank", top_n=1, return_documents=True).json()["results"]
            assert (first["index"], first["document"]) == (best, {"text": DOCUMENTS[best]})
            assert "top_n" in ask(top_n=0).json()["error"]["message"]
            assert ask(documents=[]).status_code == 400


def test_a_server_without_such_a_model(tmp_path: Path) -> None:
    with LLM(write_tiny(tmp_path / "plain.gguf"), backend="reference") as llm:
        for served in serve(llm):
            refused = httpx.post(f"{served.url}/rerank", json={"query": "a", "documents": ["b"]})
            assert refused.status_code == 400
            assert "is no model for ranking" in refused.json()["error"]["message"]
