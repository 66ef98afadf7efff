"""Perplexity and divergence, against their definitions."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import BackendError, RequestError

from edgert import LLM
from edgert.evaluation import evaluate, rows
from edgert.predictions import Predictions, record_predictions
from tests.edgert.tiny_gguf import tokenizer_entries, vocabulary, write_tiny

Open = Callable[..., LLM]
TEXT = "hello world, and the rest of what there is to say about it: nothing much. " * 4


def by_definition(llm: LLM, other: LLM, window: int) -> tuple[list[float], list[float], list[bool]]:
    """Losses, divergences, and whether the likeliest tokens agree."""
    ids, plain = llm.tokenize(TEXT), llm.tokenize(TEXT, add_special=False)
    begin = ids[: len(ids) - len(plain)]
    losses, divergences, same = [], [], []
    for start in range(0, len(ids) - window + 1, window):
        part = begin + ids[start : start + window][len(begin) :]
        q, p = (model.logits(part).astype(np.float64) for model in (llm, other))
        q, p = (np.exp(x - x.max(axis=1, keepdims=True)) for x in (q, p))
        q, p = (x / x.sum(axis=1, keepdims=True) for x in (q, p))
        for i in range(window // 2, window - 1):
            losses.append(-math.log(q[i, part[i + 1]]))
            divergences.append(float(np.sum(p[i] * np.log(p[i] / q[i]))))
            same.append(bool(q[i].argmax() == p[i].argmax()))
    return losses, divergences, same


@pytest.fixture
def other(tmp_path: Path, open_tiny: Open) -> LLM:
    """The same architecture and tokenizer with other weights."""
    return open_tiny(write_tiny(tmp_path / "other.gguf", seed=5))


def test_figures(tiny: LLM, other: LLM) -> None:
    told: list[tuple[int, int]] = []
    found = evaluate(
        tiny, TEXT, reference=other, names=("a", "b"), window=32, progress=lambda *event: told.append(event)
    )
    losses, divergences, same = by_definition(tiny, other, 32)
    assert found.tokens == len(losses) == found.windows * 15
    assert found.text_sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
    assert found.perplexity.mean == pytest.approx(math.exp(np.mean(losses)), rel=1e-6)
    error = np.std(losses, ddof=1) / math.sqrt(len(losses))
    assert found.perplexity.error == pytest.approx(found.perplexity.mean * error, rel=1e-6)
    beside = found.comparison
    assert beside is not None
    assert beside.reference == "b"
    assert beside.divergence.mean == pytest.approx(np.mean(divergences), rel=1e-6)
    quantiles = np.quantile(divergences, (0.5, 0.99, 0.999, 1))
    assert (beside.median, beside.percentile_99, beside.percentile_99_9, beside.largest) == pytest.approx(quantiles)
    assert beside.same_top.mean == pytest.approx(np.mean(same))
    assert beside.log_ratio.mean == pytest.approx(math.log(found.perplexity.mean / beside.reference_perplexity.mean))
    assert told == [(i, found.windows) for i in range(found.windows + 1)]
    assert found.divergences is not None
    np.testing.assert_allclose(found.divergences, divergences, atol=1e-9)
    assert [name for name, _ in rows(found)][:2] == ["perplexity", "perplexity of the reference"]


def test_a_model_is_no_distance_from_itself(tiny: LLM) -> None:
    found = evaluate(tiny, TEXT, reference=tiny, window=16, most_windows=2)
    assert found.windows == 2
    assert found.comparison is not None
    assert (found.comparison.largest, found.comparison.same_top.mean) == (0, 1)
    assert found.comparison.log_ratio.mean == 0
    alone = evaluate(tiny, TEXT, window=16, most_windows=2)
    assert alone.comparison is None
    assert alone.perplexity == found.perplexity


def test_stored_predictions_say_what_the_model_says(tiny: LLM, other: LLM, tmp_path: Path) -> None:
    record_predictions(other, TEXT, tmp_path / "p.gguf", window=32, name="b")
    live = evaluate(tiny, TEXT, reference=other, names=("a", "b"), window=32)
    with Predictions.open(tmp_path / "p.gguf") as predictions:
        found = evaluate(tiny, reference=predictions, names=("a", "unused"))
        assert evaluate(tiny, TEXT, reference=predictions, window=32).perplexity == found.perplexity
        assert evaluate(tiny, reference=predictions, most_windows=2).windows == 2
        assert evaluate(other, reference=predictions).comparison.largest < 1e-6  # type: ignore[union-attr]
    assert (found.text_sha256, found.window, found.tokens) == (live.text_sha256, live.window, live.tokens)
    assert found.perplexity == live.perplexity
    assert found.comparison is not None
    assert live.comparison is not None
    assert found.comparison.reference == "b"
    assert found.comparison.same_top == live.comparison.same_top
    assert found.comparison.reference_perplexity.mean == pytest.approx(live.comparison.reference_perplexity.mean)
    assert found.comparison.divergence.mean == pytest.approx(live.comparison.divergence.mean, rel=0.02)
    assert found.divergences is not None
    assert live.divergences is not None
    assert np.corrcoef(found.divergences, live.divergences)[0, 1] > 0.9


def test_predictions_that_do_not_fit(tiny: LLM, open_tiny: Open, tmp_path: Path) -> None:
    record_predictions(tiny, TEXT, tmp_path / "p.gguf", window=32)
    with pytest.raises(RequestError, match="there is no text to score, nor stored predictions of one"):
        evaluate(tiny)
    with Predictions.open(tmp_path / "p.gguf") as predictions:
        with pytest.raises(RequestError, match=r"p.gguf has predictions for another text; leave out the text"):
            evaluate(tiny, TEXT + "x", reference=predictions)
        with pytest.raises(RequestError, match=r"p.gguf has predictions for windows of 32 tokens, not 16"):
            evaluate(tiny, reference=predictions, window=16)
        renamed = tokenizer_entries() | {"tokenizer.ggml.tokens": ["§", *vocabulary()[1:]]}
        for changes in ({"padding": 3}, {"tokenizer": renamed}):
            unlike = open_tiny(write_tiny(tmp_path / "unlike.gguf", **changes))  # type: ignore[arg-type]
            if unlike.vocabulary == tiny.vocabulary and unlike.tokenizer.vocabulary.tokens == vocabulary():
                continue  # padding beyond the tokenizer is no other vocabulary
            with pytest.raises(RequestError, match=r"p.gguf has another vocabulary than a: predictions cannot be"):
                evaluate(unlike, reference=predictions, names=("a", "b"))


def test_what_cannot_be_evaluated(tiny: LLM, open_tiny: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"the text has \d+ tokens, fewer than a window of 512; take a longer text"):
        evaluate(tiny, "hello")
    with pytest.raises(RequestError, match="a window of 4 tokens is too small; 8 is the least"):
        evaluate(tiny, TEXT, window=4)
    padded = open_tiny(write_tiny(tmp_path / "padded.gguf", padding=3))
    with pytest.raises(RequestError, match="b has another vocabulary than a: predictions cannot be compared"):
        evaluate(tiny, TEXT, reference=padded, names=("a", "b"), window=16)
    monkeypatch.setattr(padded, "logits", lambda ids: np.full((len(ids), padded.vocabulary), np.nan, np.float32))
    with pytest.raises(BackendError, match="a predicts what is no number; its weights are damaged"):
        evaluate(padded, TEXT, names=("a", "b"), window=16)
