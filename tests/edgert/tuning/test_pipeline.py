"""`convert` with a calibration text, on a tiny model."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import ConversionError, RequestError
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_quant.gguf import GgufFile

from edgert.tuning import pipeline, rounding, sensitivity
from edgert.tuning.finish import Scales, Tuner, finish
from edgert.tuning.kept import Kept
from edgert.tuning.material import Material, Model
from edgert.tuning.packed import Packed, pack
from edgert.tuning.pipeline import Options, Tuned, convert
from edgert.tuning.targets import Targets
from tests.edgert.cli.support import run
from tests.edgert.tiny_gguf import write_tiny

TEXT = "hello world, and the rest of what there is to say about it: nothing much, or less. " * 24
SIZES: dict[str, Any] = {
    "layers": 1,
    "experts": 4,
    "width": 256,
    "feed_forward": 256,
    "expert_feed_forward": 256,
    "heads": 4,
    "head_size": 64,
}


@pytest.fixture(autouse=True)
def fewer_types(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (BlockType.Q2_K, BlockType.IQ3_XXS, BlockType.Q3_K, BlockType.Q4_K, BlockType.Q6_K, BlockType.Q8_0)
    monkeypatch.setattr(sensitivity, "KINDS", kinds)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tuning") / "source.gguf", **SIZES)


def converted(source: Path, output: Path, **options: Any) -> Tuned:
    return convert(source, output, Options(**{"calibration": TEXT, "window": 64, **options}))


def types_of(path: Path) -> dict[str, BlockType]:
    with GgufFile.open(path) as file:
        return {name: tensor.type for name, tensor in file.tensors.items()}


def test_every_step_helps_and_the_budget_holds(source: Path, tmp_path: Path) -> None:
    output, plan = tmp_path / "model.gguf", tmp_path / "plan.toml"
    found = converted(source, output, bits=4.0, steps=8, save_plan=plan)
    assert found.report is not None
    assert 0.98 * 4.0 <= found.report.bits_per_weight <= 4.0  # the model's few matrices are large steps
    steps = found.divergence
    assert steps["compensated"] < steps["rounded"]
    assert steps["tuned"] <= steps["before tuning"] == pytest.approx(steps["compensated"], rel=1e-3)
    stored = types_of(output)
    assert {name: stored[name] for name in found.plan} == found.plan
    assert f'"output.weight" = "{found.plan["output.weight"].name.lower()}"' in plan.read_text()
    assert not (tmp_path / "model.gguf.work").exists()
    with GgufFile.open(output) as file:
        notes = {key: file.metadata[f"edgert.calibration.{key}"] for key in ("steps", "compensated", "divergence")}
    assert notes == {"steps": 8, "compensated": True, "divergence": pytest.approx(steps["tuned"])}
    again = converted(source, tmp_path / "again.gguf", plan=plan, steps=8)
    assert again.plan == found.plan
    assert (tmp_path / "again.gguf").read_bytes() == output.read_bytes()


def test_a_budget_of_bytes(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.gguf"
    converted(source, output, budget=600_000, compensate=False)
    assert 0.98 * 600_000 <= output.stat().st_size <= 600_000


def test_rules_prevail(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.gguf"
    asked = Options(calibration=TEXT, window=64, bits=4.0, compensate=False)
    convert(source, output, asked, tensors=["blk.0.attn_v=q8_0"])
    assert types_of(output)["blk.0.attn_v.weight"] is BlockType.Q8_0


def test_a_stopped_run_goes_on_from_what_was_measured(source: Path, tmp_path: Path) -> None:
    output, work = tmp_path / "model.gguf", tmp_path / "work"

    class StoppedError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "measure" and done == 20:
            raise StoppedError

    asked = Options(calibration=TEXT, window=64, bits=3.5, compensate=False, work=work, keep_work=True)
    with pytest.raises(StoppedError):
        convert(source, output, asked, progress=stop)
    assert not output.exists()
    measured = json.loads((work / "sensitivities.json").read_text())["found"]
    assert len(measured) >= 15
    marked = {key: [value[0] + 0.25, value[1]] for key, value in measured.items()}
    document = json.loads((work / "sensitivities.json").read_text())
    (work / "sensitivities.json").write_text(json.dumps({**document, "found": marked}))
    convert(source, output, asked)
    after = json.loads((work / "sensitivities.json").read_text())["found"]
    assert all(after[key] == value for key, value in marked.items())  # what was there is not measured again
    assert len(after) > len(marked)


@pytest.mark.parametrize(("stage", "after"), [("round", 4), ("finish", 5)])
def test_a_run_stopped_while_rounding_or_tuning_ends_as_if_it_had_not(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, after: int
) -> None:
    output, whole, work = tmp_path / "model.gguf", tmp_path / "whole.gguf", tmp_path / "work"
    monkeypatch.setattr(pipeline, "tune", functools.partial(finish, check=2))
    asked = Options(calibration=TEXT, window=64, type="q3_k_m", steps=9, work=work)
    rounded = list[str]()
    choose = rounding.choose_shrink
    monkeypatch.setattr(rounding, "choose_shrink", lambda w, *a, **b: rounded.append("") or choose(w, *a, **b))
    convert(source, whole, replace(asked, work=tmp_path / "other"))
    all_matrices = len(rounded)

    class StoppedError(Exception):
        pass

    seen: list[tuple[str, int]] = []

    def tell(name: str, done: int, total: int) -> None:
        seen.append((name, done))
        if stopping and (name, done) == (stage, after):
            raise StoppedError

    stopping = True
    with pytest.raises(StoppedError):
        convert(source, output, asked, progress=tell)
    assert not output.exists()
    stopping = False
    seen.clear()
    rounded.clear()
    convert(source, output, asked, progress=tell)
    assert output.read_bytes() == whole.read_bytes()
    if stage == "finish":
        assert not rounded
        assert [done for name, done in seen if name == "finish"] == [5, 6, 7, 8, 9]  # from the last check on
    else:
        assert len(rounded) == all_matrices - (after - 1)  # the first was the embedding, of which rows are looked up
    assert not work.exists()


def test_damaged_and_foreign_work_is_done_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "rounded", "model", "text")
    assert kept.get("a") is None
    kept.put("a", {"rows": np.arange(6, dtype=np.uint8).reshape(2, 3), "count": np.array(3)})
    found = kept.get("a")
    assert found is not None
    assert found["rows"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert Kept(tmp_path, "rounded", "model", "other text").get("a") is None
    (path,) = tmp_path.glob("rounded-*/a.npz")
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:40] + b"x" * 30 + whole[70:]):
        path.write_bytes(damaged)
        assert kept.get("a") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": "hello", "bits": 4.0}, "the calibration text has 1 tokens; two windows of 64 are the least"),
        ({"calibration": "", "bits": 4.0}, "the calibration text has 0 tokens; two windows of 64 are the least"),
        ({"bits": 1.0}, "the budget leaves "),
        ({"budget": 1000}, "the budget leaves 0 bytes for matrices, and they take "),
    ],
)
def test_what_cannot_be(source: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    output = tmp_path / "model.gguf"
    with pytest.raises(RequestError, match=re.escape(message)):
        converted(source, output, **options)
    assert not list(tmp_path.iterdir())


def test_what_was_measured_stays_where_the_file_cannot_be_written(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.gguf"
    output.write_bytes(b"")
    with pytest.raises(ConversionError, match="there is such a file already"):
        convert(source, output, Options(calibration=TEXT, window=64, type="q4_k"), overwrite=False)
    assert list((tmp_path / "model.gguf.work").glob("rounded-*"))


def test_a_teacher_of_another_vocabulary(source: Path, tmp_path: Path) -> None:
    teacher = write_tiny(tmp_path / "teacher.gguf", vocabulary=400)
    with pytest.raises(RequestError, match="the teacher has another vocabulary than the model"):
        converted(source, tmp_path / "model.gguf", type="q4_k", compensate=False, steps=1, teacher=teacher)


def test_towards_a_teacher(source: Path, tmp_path: Path) -> None:
    found = converted(source, tmp_path / "model.gguf", type="q4_k", compensate=False, steps=2, teacher=source)
    assert found.divergence["tuned"] <= found.divergence["before tuning"]


@pytest.mark.parametrize("kind", [BlockType.Q4_K, BlockType.Q3_K, BlockType.Q8_0, BlockType.Q4_1, BlockType.IQ3_S])
def test_slopes_by_scales(kind: BlockType) -> None:
    """What a block is read back as is linear in its scales: differences show the slope, but for rounding to halves."""
    rng = np.random.default_rng(0)
    x, gradient = rng.standard_normal((2, 12, 256)).astype(np.float32)
    scales = Scales(kind, quantize(x, kind))
    slope = scales.slope(gradient, 0)
    direction = rng.choice([-1.0, 1.0], scales.factors.shape).astype(np.float32)
    losses = []
    for sign in (1, -1):
        scales.factors[...] = 1 + np.float32(sign / 4) * direction
        losses.append(float((dequantize(scales.rows(), kind) * gradient).sum(dtype=np.float64)))
    assert float((slope * direction).sum()) == pytest.approx((losses[0] - losses[1]) * 2, rel=1e-2)


def test_biases_of_experts_have_derivatives_of_their_own(tmp_path: Path) -> None:
    model = Model(write_tiny(tmp_path / "model.gguf", "gpt-oss", window=3, attention_bias=True, output_bias=True))
    material = Material(model, TEXT, window=64)
    tuner, batch = Tuner(material, Packed(model.provider)), material.fit[0]
    targets = Targets.of(model.walk().logits(batch)[:, ::-1])  # far from what it says: a slope to speak of
    logits, marks = tuner.walk.forward(batch)
    tuner.walk.backward(batch, marks, targets.slope(logits), tuner)
    name, step = "blk.1.ffn_down_exps.bias", np.float32(1e-2)
    slopes, values = tuner._gradients[name], tuner._floats[name]
    assert len({round(float(row.sum()), 9) for row in slopes}) == len(slopes)
    for expert in range(3):
        before, losses = values[expert].copy(), []
        for sign in (1, -1):
            values[expert] = before + sign * step
            tuner.install()
            losses.append(float(targets.divergence(tuner.walk.logits(batch)).mean()))
        values[expert] = before
        assert float(slopes[expert].sum()) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=2e-2, abs=1e-4)
    model.close()


def test_what_was_measured_of_another_model_is_not_taken(source: Path, tmp_path: Path) -> None:
    other, work = write_tiny(tmp_path / "other.gguf", seed=1, **SIZES), tmp_path / "work"
    found = []
    for model in (source, other):
        converted(model, tmp_path / "model.gguf", bits=4.0, compensate=False, work=work, keep_work=True)
        found.append(json.loads((work / "sensitivities.json").read_text())["found"])
    assert found[0].keys() == found[1].keys()
    assert all(found[0][key] != value for key, value in found[1].items())


def test_finishing_keeps_the_best(source: Path) -> None:
    model = Model(source)
    material = Material(model, TEXT, window=64)
    packed = Packed(model.provider)
    for name in model.matrices:
        packed.put(name, BlockType.Q2_K, pack(model.walk().weights, name, BlockType.Q2_K, None, None))
    before, after = finish(material, packed, steps=12, check=3)
    assert after < before
    assert material.divergence(model.walk(packed), material.held) == pytest.approx(after)
    model.close()


def test_the_command(source: Path, tmp_path: Path) -> None:
    text, plan, output = tmp_path / "text.txt", tmp_path / "plan.toml", tmp_path / "model.gguf"
    text.write_text(TEXT)
    common = ("--calibration", str(text), "--window", "64", "--no-compensate")
    shown = run("convert", str(source), str(output), *common, "--bpw", "4.5", "--only-plan", "--save-plan", str(plan))
    assert shown.exit_code == 0, shown.output
    assert "divergence on held-out windows" in shown.stdout
    assert not output.exists()
    edited = plan.read_text().replace('"output.weight" = "q8_0"', '"output.weight" = "q6_k"')
    plan.write_text(edited)
    shown = run("convert", str(source), str(output), "--plan", str(plan), "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["recipe"] == "plan"
    stored = types_of(output)
    for name, kind in re.findall(r'^"(.+)" = "(.+)"$', edited, re.MULTILINE):
        assert stored[name].name.lower() == kind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bpw", "3"), "--bpw needs a text to measure on: name it by --calibration"),
        (("--budget", "3GiB"), "--budget needs a text to measure on"),
        (("--calibration", "TEXT", "--bpw", "3", "--budget", "1GiB"), "--budget and --bpw both decide on types"),
        (("--calibration", "TEXT", "--bpw", "nan"), "--bpw must be a number from 0.5 to 32, not nan"),
        (("--calibration", "TEXT", "--teacher", "x"), "--teacher says what to tune towards: say for how long"),
        (("--calibration", "none.txt", "--bpw", "3"), "none.txt: No such file or directory"),
        (("--plan", "none.toml"), "none.toml: No such file or directory"),
        (("--plan", "TEXT"), "a plan has a table [tensors]"),
        (("--plan", "BAD"), "blk.0.attn_q.weight = 'q9_k': there is no writing it"),
    ],
)
def test_bad_options(source: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "text").write_text("x = 1")
    (tmp_path / "bad").write_text('[tensors]\n"blk.0.attn_q.weight" = "q9_k"\n')
    names = {"TEXT": str(tmp_path / "text"), "BAD": str(tmp_path / "bad")}
    output = tmp_path / "model.gguf"
    result = run("convert", str(source), str(output), *(names.get(word, word) for word in arguments))
    assert result.exit_code != 0
    assert message in str(result.exception)
    assert not output.exists()
