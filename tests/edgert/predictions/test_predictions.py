"""What is stored of predictions, against the predictions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import BackendError, ConversionError, FileFormatError, RequestError
from edgert_quant.gguf import GgufFile

from edgert import LLM
from edgert.evaluation import evaluate
from edgert.predictions import SAMPLES, TOP, Predictions, is_predictions, layout, record_predictions
from edgert.windows import cut, log_softmax, text_sha256
from tests.edgert.test_evaluation import TEXT
from tests.edgert.tiny_gguf import write_tiny


def test_what_is_stored(tiny: LLM, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = tmp_path / "p.gguf"
    record_predictions(tiny, TEXT, path, window=32, windows=3, top=5, progress=lambda *event: told.append(event))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    with Predictions.open(path) as stored:
        assert (stored.model, stored.text_sha256) == (tiny.path.name, text_sha256(TEXT))
        assert (stored.window, stored.windows, stored.top, stored.samples) == (32, 3, 5, SAMPLES)
        assert (stored.vocabulary, stored.rows_per_window) == (tiny.vocabulary, 15)
        for number, ids in enumerate(cut(tiny, TEXT, 32, 3)):
            assert stored.tokens(number).tolist() == ids
            p = log_softmax(tiny.logits(ids)[16:-1])
            tokens, listed, rest = stored.rows(number)
            assert (tokens.dtype, listed.dtype, rest.dtype) == (np.int32, np.float32, np.float32)
            order = np.argsort(-p, axis=-1, kind="stable")[:, :5]
            np.testing.assert_array_equal(tokens, order)
            np.testing.assert_allclose(listed, np.take_along_axis(p, order, axis=-1), rtol=1e-6)
            np.testing.assert_allclose(np.exp(listed).sum(axis=-1) + np.exp(rest), 1, rtol=1e-6)
            np.testing.assert_allclose(stored.following(number), p[np.arange(15), ids[17:]], rtol=1e-6)
            drawn, drawn_p = stored.sampled(number)
            assert drawn.shape == (15, SAMPLES)
            np.testing.assert_allclose(drawn_p, np.take_along_axis(p, drawn.astype(int), axis=-1), rtol=1e-6)
            assert not (drawn[:, :, None] == tokens[:, None, :]).any()  # they are of the rest
        with pytest.raises(RequestError, match="has 3 windows, none with number 3"):
            stored.rows(3)


def test_samples_are_as_frequent_as_they_are_likely(tiny: LLM, tmp_path: Path) -> None:
    record_predictions(tiny, TEXT, tmp_path / "p.gguf", window=64, top=2)
    mean, expected = [], []
    with Predictions.open(tmp_path / "p.gguf") as stored:
        for number in range(stored.windows):
            p = log_softmax(tiny.logits(stored.tokens(number).tolist())[32:-1])
            ids, _, rest = stored.rows(number)
            others = np.exp(p - rest[:, None])
            np.put_along_axis(others, ids.astype(int), 0, axis=-1)
            expected.append((others * p).sum(axis=-1))
            mean.append(stored.sampled(number)[1].mean(axis=-1))
    assert np.mean(mean) == pytest.approx(np.mean(expected), rel=0.02)


def test_the_same_predictions_make_the_same_file(tiny: LLM, tmp_path: Path) -> None:
    for name in "ab":
        record_predictions(tiny, TEXT, tmp_path / name, window=32, name="model")
    evaluate(tiny, TEXT, window=32, names=("model", ""), save=tmp_path / "c", top=TOP)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    assert {each.name for each in tmp_path.iterdir()} == {"a", "b", "c"}


def test_all_tokens_may_be_listed(tiny: LLM, tmp_path: Path) -> None:
    record_predictions(tiny, TEXT, tmp_path / "p.gguf", window=32, windows=1, top=10**6)
    with Predictions.open(tmp_path / "p.gguf") as stored:
        ids, _, rest = stored.rows(0)
        assert (stored.top, stored.samples, ids.shape) == (tiny.vocabulary, 0, (15, tiny.vocabulary))
        assert np.isneginf(rest).all()
        assert stored.sampled(0)[0].shape == (15, 0)
    found = evaluate(tiny, reference=Predictions.open(tmp_path / "p.gguf"))
    assert found.comparison is not None
    assert found.comparison.largest < 1e-6


def test_ids_are_as_wide_as_they_must_be() -> None:
    assert layout.tensors(1, 8, 2, 2, 1 << 15)["top.ids"][0].name == "I16"
    assert layout.tensors(1, 8, 2, 2, (1 << 15) + 1)["top.ids"][0].name == "I32"


def test_what_cannot_be_stored(tiny: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConversionError, match="there is no folder"):
        record_predictions(tiny, TEXT, tmp_path / "none" / "p.gguf", window=32)
    with pytest.raises(RequestError, match="0 tokens cannot be listed; 1 is the least"):
        record_predictions(tiny, TEXT, tmp_path / "p.gguf", window=32, top=0)
    calls = 0

    def broken(ids: list[int]) -> np.ndarray:
        nonlocal calls
        calls += 1
        return np.full((len(ids), tiny.vocabulary), 0.0 if calls < 3 else np.nan, np.float32)

    monkeypatch.setattr(tiny, "logits", broken)
    with pytest.raises(BackendError, match="predicts what is no number"):
        record_predictions(tiny, TEXT, tmp_path / "p.gguf", window=32)
    assert not list(tmp_path.iterdir())  # half a file is no file


def test_what_is_no_such_file(tiny_path: Path, tmp_path: Path) -> None:
    assert not is_predictions(tiny_path)
    assert not is_predictions(tmp_path)
    assert not is_predictions("org/name")
    with pytest.raises(FileFormatError, match=r"these are no stored predictions, whose type is 'edgert.predictions'"):
        Predictions.open(tiny_path)


def test_a_large_vocabulary_is_written(open_tiny: Callable[..., LLM], tmp_path: Path) -> None:
    wide = open_tiny(write_tiny(tmp_path / "wide.gguf", padding=7))
    record_predictions(wide, TEXT, tmp_path / "p.gguf", window=32, windows=1)
    with GgufFile.open(tmp_path / "p.gguf") as file:
        assert file.metadata.integer("edgert.predictions.vocabulary") == wide.vocabulary
