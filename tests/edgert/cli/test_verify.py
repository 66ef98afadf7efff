"""`edgert evaluate --record`, `edgert verify` and what `edgert inspect` shows of it, as a user types them."""

import json
from pathlib import Path

import pytest
from edgert_quant.gguf import rewrite_metadata

from tests.edgert.cli.support import process, run
from tests.edgert.tiny_gguf import write_tiny

TEXT = "hello world, and the rest of what there is to say about it: nothing much. " * 4
QUICK = ("--backend", "reference")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A text, a model and one to compare it with."""
    (tmp_path / "text.txt").write_text(TEXT)
    write_tiny(tmp_path / "model.gguf")
    write_tiny(tmp_path / "other.gguf", seed=5)
    return tmp_path


def record(folder: Path, *more: str) -> dict[str, object]:
    names = [str(folder / name) for name in ("model.gguf", "text.txt", "other.gguf")]
    result = run("evaluate", *names[:2], "--reference", names[2], "--record", "--window", "32", *more, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_record_verify_and_inspect(folder: Path) -> None:
    model = str(folder / "model.gguf")
    assert json.loads(run("inspect", model, "--json").stdout)["receipt"] is None
    found = record(folder)
    assert (folder / "model.predictions.gguf").is_file()
    result = run("verify", model, *QUICK)
    assert result.exit_code == 0, result.output
    assert "kl_99_9" in result.stdout
    plain = json.loads(run("verify", model, *QUICK, "--json").stdout)
    assert plain["passed"]
    assert plain["receipt"] == found["receipt"]
    assert found["comparison"]["divergence"]["mean"] == plain["receipt"]["kl_mean"]  # type: ignore[index]
    assert json.loads(run("inspect", model, "--json").stdout)["receipt"] == found["receipt"]
    shown = run("inspect", model).stdout
    assert f"  kl_mean               {plain['receipt']['kl_mean']:.6g}\n" in shown
    assert "quality, as the file says; edgert verify checks it:" in shown
    rewrite_metadata(model, {"edgert.quality.kl_mean": "good"})
    assert "edgert.quality.kl_mean: is STRING, not a number" in run("inspect", model).stdout


def test_stored_predictions_serve_many_models(folder: Path) -> None:
    model, other, text = (str(folder / name) for name in ("model.gguf", "other.gguf", "text.txt"))
    stored = str(folder / "stored.gguf")
    saved = run("evaluate", other, text, "--window", "32", "--save-predictions", stored, "--top", "7", *QUICK)
    assert saved.exit_code == 0, saved.output
    shown = run("inspect", stored).stdout
    assert "edgert.predictions.top = 7" in shown
    assert "runs here: no: it is no model but edgert.predictions" in shown
    found = json.loads(run("evaluate", model, "--reference", stored, *QUICK, "--json").stdout)
    assert found["comparison"]["reference"] == "other.gguf"
    assert found["window"] == 32
    recorded = run("evaluate", model, "--reference", stored, "--record", *QUICK)
    assert "to be verified with stored.gguf" in recorded.stdout
    assert not (folder / "model.predictions.gguf").exists()
    assert run("verify", model, *QUICK).exit_code == 0


def test_a_tampered_file_in_a_process(folder: Path) -> None:
    record(folder)
    model = folder / "model.gguf"
    sound = process("verify", str(model), *QUICK)
    assert (sound.returncode, sound.stderr) == (0, "")
    data = bytearray(model.read_bytes())
    data[-1000] ^= 0x10
    model.write_bytes(data)
    result = process("verify", str(model), *QUICK, "--json")
    assert result.returncode == 1
    assert not json.loads(result.stdout)["passed"]
    assert result.stderr.startswith("edgert: model.gguf: the weights are not those of the receipt (weights_sha256)")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("verify", "MODEL"), 64, "has no receipt; edgert evaluate model.gguf"),
        (("verify", "none.gguf"), 64, "there is no file"),
        (("evaluate", "MODEL", "TEXT", "--record"), 64, "--record writes down the distance from a model: name it by"),
        (("evaluate", "MODEL", "TEXT", "--top", "3"), 64, "--top is for stored predictions: give --save-predictions"),
        (("evaluate", "MODEL"), 64, "name a text, or stored predictions of one by"),
        (
            ("evaluate", "MODEL", "--reference", "OTHER", "--record"),
            64,
            "name a text, or stored predictions of one by",
        ),
        (
            ("evaluate", "MODEL", "TEXT", "--reference", "OTHER", "--record", "--window", "32"),
            64,
            "already: give it as",
        ),
    ],
)
def test_bad_input(folder: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    if message.startswith("already"):
        (folder / "model.predictions.gguf").write_bytes(b"")
    names = {"MODEL": "model.gguf", "TEXT": "text.txt", "OTHER": "other.gguf"}
    given = (str(folder / names[word]) if word in names else word for word in arguments)
    result = process(*given, *QUICK)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_where_a_model_comes_from(folder: Path) -> None:
    model, made = str(folder / "model.gguf"), str(folder / "made.gguf")
    origin = ("--distilled-from", "lab/Big", "--distilled-from", "plain", "--dataset", "lab/data")
    assert run("convert", model, made, "--type", "f16", *origin).exit_code == 0
    shown = " ".join(run("inspect", made).stdout.split())
    assert " base_model Big (https://huggingface.co/lab/Big), plain " in shown
    assert " edgert.distill.teachers lab/Big, plain " in shown
    found = json.loads(run("inspect", made, "--json").stdout)["provenance"]
    assert found["dataset"] == "data (https://huggingface.co/datasets/lab/data)"
