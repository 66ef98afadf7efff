"""From a model and a text to an importance matrix."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import BackendError, EdgertError, FileFormatError, RequestError
from edgert_models.graph import Role
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.convert import convert
from edgert_quant.convert.run import open_source
from edgert_quant.gguf import GgufFile
from edgert_quant.imatrix import read_imatrix
from edgert_runtimes.layerwise import Floats, Layerwise, Observer, Sequences
from edgert_runtimes.weights import GgufWeights

from edgert.calibration import calibrate, run
from edgert.calibration.model import Model, SourceWeights
from tests.edgert.cli.support import ENVIRONMENT
from tests.edgert.tiny_gguf import write_tiny
from tests.support import llama_cpp
from tests.support.golden import FOLDER, NAMES

TEXT = "hello world, and the rest of what there is to say about it: nothing much. " * 12
DEMO = Path(__file__).parents[3] / "models/demo/checkpoint"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


class Everything(Observer):
    """Inputs as they come, row by row."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], list[np.ndarray]] = {}

    def matrix(self, name: str, x: np.ndarray) -> None:
        self.rows.setdefault((name, 0), []).append(x)

    def expert(self, name: str, expert: int, x: np.ndarray, rows: np.ndarray) -> None:
        self.rows.setdefault((name, expert), []).append(x)


@pytest.mark.parametrize("tied", [False, True])
def test_sums_of_squares_by_expert(tied: bool, text: Path, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", tied=tied)
    seen: list[tuple[int, int]] = []
    found = calibrate(
        path, text, tmp_path / "i.gguf", window=32, process_output=True, progress=lambda *p: seen.append(p)
    )
    importance = read_imatrix(tmp_path / "i.gguf")
    with Model(path) as model, GgufFile.open(path) as file:
        ids = model.tokenizer.encode(TEXT)
        windows = [[*ids[:1], *ids[i + 1 : i + 32]] for i in range(0, len(ids) - 31, 32)]
        everything = Everything()
        Layerwise(model.plan, Floats(GgufWeights(file))).run(Sequences.of(windows), observer=everything)
        wanted = {n for n, w in model.plan.weights.items() if n.startswith("blk.") and w.role is not Role.VECTOR}
    assert set(importance.sums) == wanted | (set() if tied else {"output.weight"})
    for name, sums in importance.sums.items():
        for expert, count in enumerate(sums.counts):
            rows = np.concatenate([*everything.rows.get((name, expert), []), np.empty((0, sums.in_sum2.shape[1]))])
            assert count == len(rows)
            np.testing.assert_allclose(sums.in_sum2[expert], (rows.astype(float) ** 2).sum(axis=0), rtol=1e-4)
    assert (importance.datasets, importance.chunk_count, importance.chunk_size) == (("text.txt",), len(windows), 32)
    assert (found.windows, found.tokens, found.resumed) == (len(windows), 32 * len(windows), 0)
    assert seen[0] == (0, len(windows))
    assert seen[-1] == (len(windows), len(windows))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["i.gguf", "text.txt", "tiny.gguf"]


def test_a_checkpoint_and_its_file_give_the_same(text: Path, tmp_path: Path) -> None:
    convert(DEMO, tmp_path / "demo.gguf", type="bf16")
    options = {"window": 64, "windows": 3}
    calibrate(DEMO, text, tmp_path / "a.gguf", **options)
    calibrate(tmp_path / "demo.gguf", text, tmp_path / "b.gguf", **options)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    report = convert(DEMO, tmp_path / "q.gguf", type="q4_k_m", imatrix=tmp_path / "a.gguf")
    assert any("fewer than 64 tokens" in warning for warning in report.warnings)


def test_weights_that_are_not_kept_are_the_same(
    text: Path, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate(tiny_path, text, tmp_path / "a.gguf", window=32)
    monkeypatch.setattr("edgert.calibration.model.KEPT_BYTES", 0)
    calibrate(tiny_path, text, tmp_path / "b.gguf", window=32)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_any_rows_of_any_source(name: str, tmp_path: Path) -> None:
    convert(FOLDER / name, tmp_path / "model.gguf", type="f32")
    source = open_source(FOLDER / name, parity=False)
    weights = SourceWeights(source)
    with GgufFile.open(tmp_path / "model.gguf") as file:
        for tensor in file.tensors.values():
            rows = dequantize(file.read(tensor.name), tensor.type)
            last = len(rows) - 1
            for start, count in ((0, None), (last, 1), (0, 1), (min(3, last), min(40, last - 2))):
                if count is None or count > 0:
                    found = dequantize(weights.read(tensor.name, start, count), BlockType.F32)
                    end = None if count is None else start + count
                    np.testing.assert_array_equal(found, rows[start:end], err_msg=tensor.name)
    source.close()


def test_going_on_gives_the_same_bytes(
    text: Path, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "GROUP_TOKENS", 64)
    whole = calibrate(tiny_path, text, tmp_path / "whole.gguf", window=32)

    def stop_at(limit: int):
        def progress(done: int, total: int) -> None:
            if done >= limit:
                raise KeyboardInterrupt

        return progress

    state = tmp_path / "part.gguf.checkpoint"
    for limit in (4, 8):
        with pytest.raises(KeyboardInterrupt):
            calibrate(tiny_path, text, tmp_path / "part.gguf", window=32, save_every=0, progress=stop_at(limit))
        assert state.exists()
        assert not (tmp_path / "part.gguf").exists()
    found = calibrate(tiny_path, text, tmp_path / "part.gguf", window=32)
    assert (found.resumed, found.windows) == (8, whole.windows)
    assert (tmp_path / "part.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert not state.exists()


def test_the_state_of_another_run(text: Path, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GROUP_TOKENS", 64)

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    output, state = tmp_path / "i.gguf", tmp_path / "i.gguf.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        calibrate(tiny_path, text, output, window=32, save_every=0, progress=stop)
    other_model, other_text = write_tiny(tmp_path / "other.gguf", seed=1), tmp_path / "other.txt"
    other_text.write_text(TEXT + "x")
    for arguments, options, what in (
        ((other_model, text), {}, "model"),
        ((tiny_path, other_text), {}, "text"),
        ((tiny_path, text), {"window": 16}, "window"),
        ((tiny_path, text), {"process_output": True}, "options"),
    ):
        message = f"i.gguf.checkpoint: is the state of a calibration with another {what}: remove it, or name another"
        with pytest.raises(RequestError, match=re.escape(message)):
            calibrate(*arguments, output, **{"window": 32, **options})
    data = state.read_bytes()
    state.write_bytes(data[:-1])
    with pytest.raises(FileFormatError, match=r"i\.gguf\.checkpoint"):
        calibrate(tiny_path, text, output, window=32)
    state.write_bytes(tiny_path.read_bytes())
    with pytest.raises(FileFormatError, match="is no state of a calibration; remove it"):
        calibrate(tiny_path, text, output, window=32)
    state.write_bytes(data)
    assert calibrate(tiny_path, text, output, window=32).resumed == 2


def test_a_killed_run_goes_on(tiny_path: Path, tmp_path: Path) -> None:
    text, output, state = tmp_path / "text.txt", tmp_path / "i.gguf", tmp_path / "i.gguf.checkpoint"
    text.write_text(TEXT * 20)
    command = [sys.executable, "-m", "edgert", "calibrate", str(tiny_path), str(text), "--window", "64"]
    environment = {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": "1"}

    def finished(output: Path) -> dict:
        again = [*command, "-o", str(output), "--json"]
        return json.loads(subprocess.run(again, env=environment, capture_output=True, text=True, check=True).stdout)

    killed = subprocess.Popen(
        [*command, "-o", str(output), "--save-every", "0"], env=environment, stdout=subprocess.DEVNULL
    )
    for _ in range(6000):
        if state.exists() or killed.poll() is not None:
            break
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert state.exists()
    assert not output.exists()
    report = finished(output)
    assert 64 <= report["resumed_windows"] < report["windows"]
    assert not state.exists()
    whole = finished(tmp_path / "whole.gguf")
    assert (whole["windows"], whole["resumed_windows"]) == (report["windows"], 0)
    assert (tmp_path / "whole.gguf").read_bytes() == output.read_bytes()


def test_what_is_refused(text: Path, tiny_path: Path, tmp_path: Path) -> None:
    for output in (tiny_path, text):
        with pytest.raises(RequestError, match="is what is read; give another output"):
            calibrate(tiny_path, text, output, window=32)
    with pytest.raises(RequestError, match="there is no folder"):
        calibrate(tiny_path, text, tmp_path / "none" / "i.gguf", window=32)
    with pytest.raises(RequestError, match="a window of 513 tokens is longer than the model's context of 512"):
        calibrate(write_tiny(tmp_path / "short.gguf", context=512), text, tmp_path / "i.gguf", window=513)
    with pytest.raises(RequestError, match="has no tokenizer, so that it cannot read a text"):
        calibrate(write_tiny(tmp_path / "mute.gguf", tokenizer={}), text, tmp_path / "i.gguf", window=32)
    assert not (tmp_path / "i.gguf").exists()


def test_activations_that_are_no_numbers(
    text: Path, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SourceWeights.read

    def damaged(self: SourceWeights, name: str, start: int = 0, count: int | None = None) -> np.ndarray:
        rows = read(self, name, start, count)
        if name == "blk.1.attn_norm.weight":
            rows.view(np.float32)[:] = np.inf
        return rows

    monkeypatch.setattr(SourceWeights, "read", damaged)
    with pytest.raises(BackendError, match=r"inputs of blk\.1\.attn_q\.weight are no numbers; weights are damaged"):
        calibrate(tiny_path, text, tmp_path / "i.gguf", window=32)
    assert not (tmp_path / "i.gguf").exists()


def test_rare_experts(text: Path, tiny_path: Path, tmp_path: Path) -> None:
    found = calibrate(tiny_path, text, tmp_path / "i.gguf", window=16, windows=1)
    (warning,) = found.warnings
    assert "fewer than 64 tokens" in warning
    with pytest.raises(EdgertError, match=r"i\.gguf: expert \d+ of blk\.0 has seen \d+ tokens, fewer than 1000"):
        found.require(1000)


def test_beside_llama_imatrix(text: Path, tmp_path: Path) -> None:
    """The same windows, counts and sums, as far as rounding lets experts be the same."""
    programs = llama_cpp.programs()
    if not (programs / "llama-imatrix").exists():
        pytest.skip("llama-imatrix is not among llama.cpp's binaries")
    convert(DEMO, tmp_path / "demo.gguf", type="f32")
    text.write_text((Path(__file__).parents[3] / "docs/quantization.md").read_text()[:20000])
    command = [programs / "llama-imatrix", "-m", "demo.gguf", "-f", "text.txt", "-o", "theirs.gguf", "-c", "128"]
    command += ["-b", "512", "-t", "2", "--chunks", "20", "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--no-ppl"]
    subprocess.run([str(word) for word in command], cwd=tmp_path, capture_output=True, check=True)
    calibrate(tmp_path / "demo.gguf", text, tmp_path / "ours.gguf", window=128, windows=20)
    ours, theirs = (read_imatrix(tmp_path / f"{name}.gguf") for name in ("ours", "theirs"))
    assert set(ours.sums) == set(theirs.sums)
    assert (ours.chunk_count, ours.chunk_size) == (theirs.chunk_count, theirs.chunk_size)
    for name, sums in ours.sums.items():
        other = theirs.sums[name]
        assert sums.counts.sum() == other.counts.sum()
        assert np.abs(sums.counts - other.counts).sum() <= 0.002 * sums.counts.sum(), name
        error = np.linalg.norm(sums.in_sum2 - other.in_sum2) / np.linalg.norm(other.in_sum2)
        assert error < 2e-3, name
    command = [programs / "llama-quantize", "--imatrix", "ours.gguf", "demo.gguf", "theirs-q.gguf", "q4_k_m"]
    said = subprocess.run([str(word) for word in command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"loaded {len(ours.sums)} importance matrix entries" in said.stdout + said.stderr
