"""Steps of decoding in few kernels, on a GPU or the host shim: what they find in plans, and that nothing changes."""

# ruff: noqa: E402

import re
import time
from dataclasses import replace

import numpy as np
import pytest
from edgert_models.errors import BackendError
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import Batch, Draw, Drawn
from edgert_runtimes.conformance.cases import plan_of
from edgert_runtimes.conformance.tiny import (
    batch,
    in_rings,
    limits,
    normalized_error,
    random_weights,
    tiny_spec,
    type_of_role,
)
from edgert_runtimes.reference.backend import ReferenceBackend
from edgert_runtimes.weights import MemoryWeights

mx = pytest.importorskip("mlx.core", reason="the mlx package is not installed")

from edgert_runtimes.mlx import session as sessions
from edgert_runtimes.mlx.backend import MlxBackend
from edgert_runtimes.mlx.metal import fused
from edgert_runtimes.mlx.session import MlxSession
from edgert_runtimes.mlx.trial import Trial, compare

PLAN = build_plan(tiny_spec())
WEIGHTS = random_weights(PLAN, 1)

pytestmark = [pytest.mark.mlx, pytest.mark.usefixtures("metal")]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take them wherever they can be."""
    monkeypatch.setattr(sessions, "on_metal", lambda: True)
    monkeypatch.setattr(sessions, "compare", lambda step, limits: Trial(True, "tried"))
    monkeypatch.setenv("EDGERT_MLX_DTYPE", "float32")


def steps() -> list[Batch]:
    """Prompts of two sequences, then both decode, and one alone."""
    first, second = range(5, 0, -1), range(20, 36)
    prompts = batch([(list(range(1, 20)), 0, first), ([9, 8, 7], 0, second)])
    return [prompts, batch([([5], 19, first), ([6], 3, second)]), batch([([7], 20, first)])]


def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that run from now on."""
    names: list[str] = []
    kernel = fused.kernel
    monkeypatch.setattr(fused, "kernel", lambda body: names.append(body) or kernel(body))
    return names


CASES = {
    "qwen3moe": ["heads", "attention", "sum_norm", "route", "sum_norm"],
    "llama": ["heads", "attention", "sum_norm", "sum_norm"],
}


@pytest.mark.parametrize("architecture", CASES)
def test_models(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = build_plan(tiny_spec(architecture))
    weights = random_weights(plan, 2)
    ours, reference = (each.load(plan, weights, limits()) for each in (MlxBackend(), ReferenceBackend()))
    assert isinstance(ours, MlxSession)
    prompts, both, alone = steps()
    assert normalized_error(ours.step(prompts), reference.step(prompts)) < 1e-9
    names = called(monkeypatch)
    assert normalized_error(ours.step(both), reference.step(both)) < 1e-9
    # The last sum belongs to the row that is picked, and its norm to another.
    per_layer = CASES[architecture]
    assert names == [*per_layer, *per_layer[:-1]]
    assert normalized_error(ours.step(alone), reference.step(alone)) < 1e-9
    assert ours.report.instruction_set.endswith("; tried")
    ours.close()


def test_windows_in_blocks_of_their_own() -> None:
    plan = build_plan(tiny_spec("qwen3moe", window=5, windowed=(False, True)))
    weights = random_weights(plan, 2)
    given, blocks = in_rings(steps(), plan.reach)
    sizes = limits(window_blocks=blocks)
    ours, reference = (each.load(plan, weights, sizes) for each in (MlxBackend(), ReferenceBackend()))
    for step in given:
        assert normalized_error(ours.step(step), reference.step(step)) < 1e-9
    ours.close()


def loaded(weights: MemoryWeights, **options: object) -> MlxSession:
    return MlxBackend().load(PLAN, weights, limits(**options))  # type: ignore[arg-type]


def test_in_half_precision_products_take_what_was_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGERT_MLX_DTYPE", "float16")
    weights = random_weights(PLAN, 2, type_of_role(BlockType.Q8_0))
    ours, reference = loaded(weights), ReferenceBackend().load(PLAN, weights, limits())
    assert ours._decoding is not None
    read = {key for call in ours._decoding._calls for key in call.inputs if key < 0}
    assert len(read) == 3  # two of the first layer's norms, one of the second's: the last is of the picked row
    prompts, _, alone = steps()
    for step in (prompts, replace(alone, positions=np.array([19], np.int32), lengths=np.array([20], np.int32))):
        assert normalized_error(ours.step(step), reference.step(step)) < 1e-3
    ours.close()


def test_tokens_ahead_and_counts() -> None:
    ours, reference = loaded(WEIGHTS), ReferenceBackend().load(PLAN, WEIGHTS, limits())
    prompts, *_ = steps()
    for each in (ours, reference):
        each.step(prompts)
    before, token = ours.expert_load().sum(), 5
    for position in range(19, 22):
        now, then = (batch([([token], place, range(5, 0, -1))]) for place in (position, position + 1))
        out = ours.step_ahead(now, [Draw()], then)
        assert isinstance(out, Drawn)
        wanted = reference.step(now)
        assert normalized_error(out.logits, wanted) < 1e-9
        token = int(wanted[0].argmax())
        assert out.tokens.tolist() == [token]
    assert ours.expert_load().sum() == before + 3 * 2 * 2
    ours.close()


def test_a_router_without_numbers_is_named() -> None:
    name = "blk.1.ffn_gate_inp.weight"
    tensors = {n: (s.type, s.shape, WEIGHTS.read(n)) for n, s in WEIGHTS.weights.items()}
    tensors[name] = (*tensors[name][:2], np.full((4, 64), np.nan, np.float32).view(np.uint8))
    damaged = loaded(MemoryWeights(tensors))
    with pytest.raises(BackendError, match=r"the router before blk\.1\.ffn_gate_exps\.weight gave NaN"):
        damaged.step(batch([([5], 0, range(5))]))
    damaged.close()


@pytest.mark.parametrize("kind", ["recurrent", "latent", "blocks"])
def test_what_goes_op_by_op(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = called(monkeypatch)
    wires = {
        "recurrent": lambda g, x: g.short_conv(x, "conv", 3),
        "latent": lambda g, x: g.attend(g.linear(x, "q", 128), g.linear(x, "k", 64), None),
        "blocks": lambda g, x: g.attend(g.linear(x, "q", 128), g.linear(x, "k", 64), g.linear(x, "v", 64)),
    }
    plan = plan_of(wires[kind], head_size=32)
    sizes = limits(kv_type="q8_0" if kind == "blocks" else "f32", states=4 if plan.states else 0)
    ours = MlxBackend().load(plan, random_weights(plan, 1), sizes)
    assert ours._decoding is None
    assert not names
    ours.close()


def logits(*numbers: float) -> np.ndarray:
    return np.array([numbers], np.float32)


def test_a_trial_takes_the_faster_way() -> None:
    for slow in (False, True):

        def step(batch: Batch, fused: bool, slow: bool = slow) -> np.ndarray:
            time.sleep(0.004 if fused is slow else 0)
            return logits(1, 2 if fused else 2.001)

        trial = compare(step, limits())
        assert trial.fused is not slow
        assert re.match(r"^a step \d+\.\d\d ms op by op, \d+\.\d\d ms in few kernels$", trial.finding)


def test_a_model_that_is_loaded_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "compare", compare)
    ours = loaded(WEIGHTS)
    assert re.search(r"; a step \d+\.\d\d ms op by op, \d+\.\d\d ms in few kernels$", ours.report.instruction_set)
    assert ours.expert_load().sum() == 0
    prompts, *_ = steps()
    wanted = ReferenceBackend().load(PLAN, WEIGHTS, limits()).step(prompts)
    assert normalized_error(ours.step(prompts), wanted) < 1e-9
    ours.close()


def test_a_trial_finds_what_is_wrong() -> None:
    off = compare(lambda batch, fused: logits(1, 3 if fused else 2), limits())
    assert off == Trial(False, "steps of few kernels are off: their logits differ by 2.0e-01")

    def fails(batch: Batch, fused: bool) -> np.ndarray:
        if fused:
            raise RuntimeError("[metal::Device] Unable to build metal library")
        return logits(1, 2)

    assert compare(fails, limits()).finding == (
        "steps of few kernels failed: [metal::Device] Unable to build metal library"
    )
