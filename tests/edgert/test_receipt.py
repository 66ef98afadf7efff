"""What a file says of its own quality, and whether that is checked."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import FileFormatError, RequestError, VerificationError
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile, rewrite_metadata, weights_sha256

from edgert import LLM
from edgert.evaluation import evaluate
from edgert.predictions import Predictions, record_predictions
from edgert.receipt import Receipt, predictions_path, record_receipt
from edgert.verification import tolerance, verify
from tests.edgert.test_evaluation import TEXT
from tests.edgert.tiny_gguf import write_tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that has a receipt, the predictions beside it, and the model that predicts."""
    folder = tmp_path_factory.mktemp("made")
    write_tiny(folder / "model.gguf")
    with LLM(write_tiny(folder / "other.gguf", seed=5), backend="reference") as other:
        record_predictions(other, TEXT, folder / "model.predictions.gguf", window=32)
    record_anew(folder)
    return folder


def record_anew(folder: Path, windows: int | None = None) -> None:
    with (
        LLM(folder / "model.gguf", backend="reference") as llm,
        Predictions.open(folder / "model.predictions.gguf") as predictions,
    ):
        found = evaluate(llm, reference=predictions, most_windows=windows)
        record_receipt(folder / "model.gguf", found, predictions, backend="reference")


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """The model in a copy of that folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "model.gguf"


def receipt_of(path: Path) -> Receipt:
    with GgufFile.open(path) as file:
        found = Receipt.read(file.metadata)
    assert found is not None
    return found


def checked(path: Path, predictions: Path | None = None) -> str:
    """What is wrong, in words."""
    with pytest.raises(VerificationError) as caught:
        verify(path, predictions, backend="reference").require()
    return str(caught.value)


def test_a_receipt_is_written_read_and_verified(model: Path, tmp_path: Path) -> None:
    before = {key: value for key, value in asdict(receipt_of(model)).items() if key != "date"}
    with (
        LLM(model, backend="reference") as llm,
        LLM(tmp_path / "other.gguf", backend="reference") as other,
    ):
        live = evaluate(llm, TEXT, reference=other, window=32)
    assert live.comparison is not None
    assert before["kl_mean"] == pytest.approx(live.comparison.divergence.mean, rel=0.05)
    assert before["perplexity"] == pytest.approx(live.perplexity.mean)
    assert before["reference_perplexity"] == pytest.approx(live.comparison.reference_perplexity.mean)
    assert before["same_top"] == live.comparison.same_top.mean
    assert (before["tokens"], before["window"], before["windows"]) == (live.tokens, 32, live.windows)
    assert (before["reference"], before["predictions"]) == ("other.gguf", "model.predictions.gguf")
    with GgufFile.open(model) as file:
        assert before["weights_sha256"] == weights_sha256(file)
        assert file.metadata.string("general.architecture") == "qwen3moe"
    found = verify(model, backend="reference")
    found.require()
    assert [check.name for check in found.checks][:2] == ["weights_sha256", "predictions_sha256"]
    assert all(check.passed for check in found.checks)
    plain = found.plain()
    assert (plain["passed"], plain["receipt"]["kl_mean"]) == (True, before["kl_mean"])


def test_only_the_recorded_windows_are_measured_again(model: Path) -> None:
    record_anew(model.parent, windows=2)
    found = verify(model, backend="reference")
    found.require()
    assert (found.receipt.windows, found.receipt.tokens) == (2, 30)


def test_other_backends_are_close(model: Path, backend_name: str) -> None:
    verify(model, backend=backend_name, threads=2).require()


def test_a_changed_weight(model: Path) -> None:
    with GgufFile.open(model) as file:
        place = file.tensors["blk.1.ffn_down_exps.weight"].offset
    data = bytearray(model.read_bytes())
    data[place] ^= 1
    model.write_bytes(data)
    message = "model.gguf: the weights are not those of the receipt (weights_sha256): they were changed after it was"
    assert checked(model).startswith(message)


@pytest.mark.parametrize(
    ("name", "change"),
    [("kl_mean", 0.97), ("kl_99_9", 1.02), ("same_top", 1.05), ("perplexity", 0.98), ("reference_perplexity", 1.1)],
)
def test_an_edited_figure(model: Path, name: str, change: float) -> None:
    was = getattr(receipt_of(model), name)
    edited = was * change if was else 0.05  # two random models need not agree at all
    rewrite_metadata(model, {f"edgert.quality.{name}": np.float64(edited)})
    assert checked(model).startswith(f"model.gguf: {name} is {was:.6g}, and {edited:.6g} on the receipt; more than ")


def test_other_metadata_that_change_the_model(model: Path) -> None:
    rewrite_metadata(model, {"qwen3moe.rope.freq_base": 50.0})
    assert "on the receipt; more than" in checked(model)


def test_other_predictions(model: Path, tmp_path: Path) -> None:
    with LLM(model, backend="reference") as llm:
        record_predictions(llm, TEXT, tmp_path / "own.gguf", window=32)
    message = "these predictions are not those of the receipt (predictions_sha256): give the file it was made with"
    assert checked(model, tmp_path / "own.gguf") == f"model.gguf: {message}"


def test_where_predictions_are_looked_for(model: Path, tmp_path: Path) -> None:
    moved = tmp_path / "copy.gguf"
    model.rename(moved)
    verify(moved, backend="reference").require()  # under the name that the receipt has
    (tmp_path / "model.predictions.gguf").rename(tmp_path / "p.gguf")
    reason = "has no copy.predictions.gguf nor model.predictions.gguf: name the predictions of other.gguf by"
    with pytest.raises(RequestError, match=reason):
        verify(moved, backend="reference")
    verify(moved, tmp_path / "p.gguf", backend="reference").require()
    rewrite_metadata(moved, {"edgert.quality.predictions": "../elsewhere/p.gguf"})
    with pytest.raises(RequestError, match=r"has no copy.predictions.gguf: name"):
        verify(moved, backend="reference")
    assert predictions_path(Path("a/m-00001-of-00003.gguf")) == Path("a/m.predictions.gguf")


def test_a_file_without_a_receipt(tiny_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"has no receipt; edgert evaluate tiny.gguf … --reference … --record writes"
    ):
        verify(tiny_path, backend="reference")


def test_damaged_receipts(model: Path) -> None:
    for value, message in (("a", "is STRING, not a number"), (-1.0, "is -1.0, below 0"), (np.nan, "is nan, not a")):
        rewrite_metadata(model, {"edgert.quality.kl_mean": value})
        with pytest.raises(FileFormatError, match=f"edgert.quality.kl_mean: {message}"):
            verify(model, backend="reference")
    rewrite_metadata(model, {}, without="edgert.quality.kl_m")
    with pytest.raises(FileFormatError, match=r"edgert.quality.kl_mean: is missing"):
        verify(model, backend="reference")


def test_a_receipt_replaces_the_one_before_and_goes_with_new_weights(model: Path, tmp_path: Path) -> None:
    rewrite_metadata(model, {"edgert.quality.old": 1, "edgert.calibration.text": "kept"})
    with Predictions.open(tmp_path / "model.predictions.gguf") as predictions:
        with LLM(model, backend="reference") as llm:
            found = evaluate(llm, reference=predictions)
            alone = evaluate(llm, TEXT, window=32)
        record_receipt(model, found, predictions, backend="reference")
        with pytest.raises(RequestError, match=r"the evaluation was not made beside model.predictions.gguf"):
            record_receipt(model, alone, predictions, backend="reference")
        with pytest.raises(RequestError, match="was not made beside"):
            record_receipt(model, replace(found, text_sha256="x"), predictions, backend="reference")
    with GgufFile.open(model) as file:
        assert "edgert.quality.old" not in file.metadata
        assert file.metadata.string("edgert.calibration.text") == "kept"
    convert(model, tmp_path / "small.gguf", type="q8_0")
    with GgufFile.open(tmp_path / "small.gguf") as file:
        assert Receipt.read(file.metadata) is None
        assert "edgert.calibration.text" not in file.metadata  # nor was it made so


def test_what_is_close() -> None:
    """Figures of one backend hardly differ; another one rounds activations otherwise."""
    assert tolerance("kl_mean", 0.02, same=True) == pytest.approx(0.0002)
    assert tolerance("kl_mean", 0.02, same=False) == pytest.approx(0.005)
    assert tolerance("perplexity", 10.0, same=False) == pytest.approx(0.1)
    assert tolerance("reference_perplexity", 10.0, same=False) == pytest.approx(0.1)
    assert tolerance("same_top", 0.9, same=False) == pytest.approx(0.02)
