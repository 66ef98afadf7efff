"""Plans walked through layer by layer: the logits of all backends, and derivatives confirmed by finite differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgert_models import ops
from edgert_models.errors import BackendError
from edgert_models.registry import build_plan, spec_from_gguf
from edgert_models.rope import Rope, RopeLayout
from edgert_models.router import Router
from edgert_models.spec import Latent, ModelSpec, Recurrence, Scales
from edgert_quant.blocks import BlockType
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile
from edgert_runtimes.conformance.tiny import random_weights, tiny_spec, type_of_role
from edgert_runtimes.layerwise import Floats, Layerwise, Observer, Sequences
from edgert_runtimes.weights import GgufWeights

from tests.support.golden import FOLDER, NAMES, expected, relative_error

TEXTS = ([5, 9, 1, 44, 3, 80, 2], [7, 7, 13], [90, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
SPECS = {
    "qwen3moe": {},
    "olmoe": {},
    "mixtral-like": {"architecture": "qwen3moe", "router": Router(normalize=False)},
    "window": {"architecture": "llama", "window": 3},
    "yarn": {
        "architecture": "llama",
        "rope": Rope(dims=16, layout=RopeLayout.INTERLEAVED, scaling="yarn", factor=4.0, original_context=64),
    },
    "tied": {"tied": True},
    "clamps": {"scales": Scales(clamp=0.9)},
    "llama4": {
        "architecture": "llama4",
        "window": 3,
        "windowed": (True, False),
        "chunked": True,
        "qk_norm": "plain",
        "shared_feed_forward": 48,
        "router": Router(scoring="sigmoid", normalize=False, weighs_inputs=True),
        "scales": Scales(queries=0.3, queries_length=3),
    },
    "qwen2moe": {"architecture": "qwen2moe", "shared_feed_forward": 48, "attention_bias": True},
    "command-r": {"architecture": "command-r", "experts": 0, "layer_norm": True, "scales": Scales(logits=0.5)},
    "gemma2": {
        "architecture": "gemma2",
        "experts": 0,
        "window": 3,
        "windowed": (True, False),
        "activation": "gelu",
        "scales": Scales(embedding=2.0, attention_cap=1.5, logits_cap=3.0),
    },
    "gemma4": {
        "architecture": "gemma4",
        "window": 3,
        "windowed": (True, False),
        "window_kv_heads": 1,
        "window_head_size": 8,
        "window_rope": Rope(dims=8, layout=RopeLayout.HALVES),
        "keys_as_values": True,
        "qk_norm": "head",
        "activation": "gelu",
        "feed_forward": 48,
        "scales": Scales(embedding=2.0, attention=1.0, logits_cap=3.0),
    },
    "phimoe": {
        "architecture": "phimoe",
        "attention_bias": True,
        "output_bias": True,
        "layer_norm": True,
        "norm_bias": True,
        "logits_bias": True,
        "router": Router(scoring="sparsemixer", normalize=False, band=0.9),
    },
    "granite": {
        "architecture": "granite",
        "experts": 0,
        "scales": Scales(embedding=3.0, residual=0.5, attention=0.3, logits_divisor=2.0),
    },
    "router": {
        "experts_used": 4,
        "router": Router(scoring="sigmoid", epsilon=0.3, scale=2.5, bias=True, groups=4, groups_used=3),
        "sparse": (False, True),
        "shared_feed_forward": 48,
    },
    "relu": {"activation": "relu"},
    "groups": {
        "shared_feed_forward": 64,
        "router": Router(normalize=False, scale=3.0, group_best=1, groups=4, groups_used=2),
    },
    "lfm2": {
        "architecture": "lfm2",
        "experts": 0,
        "qk_norm": "head",
        "recurrence": Recurrence(layers=(True, False), kernel=3),
    },
    "latent": {
        "architecture": "deepseek2",
        "kv_heads": 1,
        "head_size": 24,
        "value_length": 16,
        "rope": Rope(dims=8, layout=RopeLayout.INTERLEAVED),
        "latent": Latent(rank=16, query_rank=12, key_size=20, value_size=10),
        "scales": Scales(queries=0.3, queries_length=3),
    },
    "gpt-oss": {"architecture": "gpt-oss", "window": 3, "attention_bias": True, "output_bias": True},
}


def spec_of(name: str) -> ModelSpec:
    changes = dict(SPECS[name])
    return tiny_spec(str(changes.pop("architecture", "olmoe" if name == "olmoe" else "qwen3moe")), **changes)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    convert(FOLDER / name, path, type="f32")
    tokens, logits = expected(name)
    with GgufFile.open(path) as file:
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        plan = build_plan(spec_from_gguf(file.metadata, shapes), context=256)
        walk = Layerwise(plan, Floats(GgufWeights(file)))
        found = walk.logits(Sequences.of(tokens.tolist()))
    error, largest = relative_error(found.reshape(logits.shape), logits)
    assert max(error, largest) <= 1e-4


class Gradients:
    """A sink for everything."""

    def __init__(self) -> None:
        self.found: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def wants(self, name: str) -> bool:
        return True

    def take(self, name: str, gradient: np.ndarray, expert: int | None = None) -> None:
        held = self.found.setdefault(name, np.zeros(self.shapes[name]))
        if expert is None:
            held += gradient
        else:
            held[expert] += gradient


@pytest.mark.parametrize("name", SPECS)
def test_derivatives_are_those_that_finite_differences_show(name: str) -> None:
    plan = build_plan(spec_of(name))
    weights = Floats(random_weights(plan, seed=3), keep=True, dtype=np.float64)
    walk, text = Layerwise(plan, weights), Sequences.of(TEXTS)
    rng = np.random.default_rng(1)
    direction = rng.standard_normal((len(text.pick), plan.spec.vocabulary))
    sink = Gradients()
    sink.shapes = {name: weight.shape for name, weight in plan.weights.items()}
    _, marks = walk.forward(text)
    walk.backward(text, marks, direction, sink)
    assert set(sink.found) == set(plan.weights)
    for weight, gradient in sink.found.items():
        value, step = weights.whole(weight), rng.standard_normal(gradient.shape)
        losses = []
        for sign in (1e-5, -1e-5):
            weights.replaced = {weight: value + sign * step}
            losses.append(float((walk.logits(text) * direction).sum()))
        weights.replaced = {}
        slope = (losses[0] - losses[1]) / 2e-5
        assert float((gradient * step).sum()) == pytest.approx(slope, rel=2e-4, abs=1e-6), weight


class Inputs(Observer):
    """An observer that sums up squares and counts rows."""

    def __init__(self) -> None:
        self.ops = 0
        self.squares: dict[tuple[str, int], float] = {}
        self.counts: dict[tuple[str, int], int] = {}

    def after(self, op: ops.Op) -> None:
        self.ops += 1

    def matrix(self, name: str, x: np.ndarray) -> None:
        self.expert(name, -1, x, np.arange(len(x)))

    def expert(self, name: str, expert: int, x: np.ndarray, rows: np.ndarray) -> None:
        self.squares[name, expert] = float((x.astype(np.float64) ** 2).sum())
        self.counts[name, expert] = len(rows)


def test_an_observer_sees_what_enters_each_matrix() -> None:
    plan = build_plan(spec_of("qwen3moe"))
    walk, text, seen = Layerwise(plan, Floats(random_weights(plan))), Sequences.of(TEXTS), Inputs()
    walk.logits(text, observer=seen)
    rows, spec = len(text.tokens), plan.spec
    assert seen.ops == len(plan.ops)
    assert {name for name, _ in seen.counts} == {w for w in plan.weights if w.endswith(".weight")} - {
        name for name in plan.weights if "norm" in name or name == "token_embd.weight"
    }
    assert seen.counts["blk.0.attn_q.weight", -1] == rows
    for part in ("gate", "up", "down"):
        counts = [count for (name, _), count in seen.counts.items() if name == f"blk.1.ffn_{part}_exps.weight"]
        assert sum(counts) == rows * spec.experts_used
    # Inputs of the layer's q, k and v are one normalised value with weights: the same.
    assert seen.squares["blk.1.attn_q.weight", -1] == seen.squares["blk.1.attn_v.weight", -1]


@pytest.mark.parametrize("name", ["qwen3moe", "tied"])
def test_all_can_be_observed_without_making_the_logits(name: str) -> None:
    plan = build_plan(spec_of(name))
    weights = Floats(random_weights(plan), keep=True)
    walk, text, whole, seen = Layerwise(plan, weights), Sequences.of(TEXTS), Inputs(), Inputs()
    walk.logits(text, observer=whole)
    output = "token_embd.weight" if plan.spec.tied else "output.weight"
    weights.replaced[output] = weights.whole(output)[:, :1] if not plan.spec.tied else weights.whole(output)
    walk.observe(text, seen)
    assert (seen.squares, seen.counts, seen.ops) == (whole.squares, whole.counts, whole.ops)


def test_a_run_can_be_divided_at_every_cut() -> None:
    plan = build_plan(spec_of("qwen3moe"))
    walk, text = Layerwise(plan, Floats(random_weights(plan))), Sequences.of(TEXTS)
    whole = walk.logits(text)
    assert len(walk.cuts) > 2 * plan.spec.layers
    for cut in walk.cuts:
        state = walk.run(text, end=cut)
        assert len(state) <= 1
        assert np.array_equal(walk.logits(text, state=state, first=cut), whole)


class Doubler(Observer):
    """Doubles the matrices of experts before they are read."""

    def __init__(self, weights: Floats) -> None:
        self.weights = weights

    def expert(self, name: str, expert: int, x: np.ndarray, rows: np.ndarray) -> None:
        self.weights.replaced_experts[name, expert] = 2 * self.weights.expert(name, expert)


def test_an_observer_can_replace_a_matrix_before_it_is_read() -> None:
    plan = build_plan(spec_of("qwen3moe"))
    weights, text = Floats(random_weights(plan), keep=True), Sequences.of(TEXTS)
    found = Layerwise(plan, weights).logits(text, observer=Doubler(weights))
    weights.replaced_experts = {}
    weights.replaced = {name: 2 * weights.whole(name) for name in plan.weights if name.endswith("_exps.weight")}
    assert np.array_equal(Layerwise(plan, weights).logits(text), found)


def test_experts_are_read_one_by_one_or_kept_and_it_makes_no_difference() -> None:
    plan = build_plan(spec_of("qwen3moe"))
    provider = random_weights(plan, type_of=type_of_role(BlockType.Q8_0))
    text = Sequences.of(TEXTS)
    once, kept = (Layerwise(plan, Floats(provider, keep=keep)).logits(text) for keep in (False, True))
    assert np.array_equal(once, kept)


def test_picked_rows_and_what_follows_them() -> None:
    text = Sequences.of([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10]], second_half=True)
    assert text.pick.tolist() == [3, 4, 8]
    assert text.targets().tolist() == [5, 6, 10]
    assert Sequences.of([[1, 2], [3]]).targets().tolist() == [2, -1, -1]


def test_a_router_that_gives_no_number_is_named() -> None:
    plan = build_plan(spec_of("qwen3moe"))
    weights = Floats(random_weights(plan))
    weights.replaced["blk.0.ffn_gate_inp.weight"] = np.full((8, 64), np.nan, np.float32)
    with pytest.raises(BackendError, match=r"router before blk\.0\.ffn_gate_exps\.weight gave NaN"):
        Layerwise(plan, weights).logits(Sequences.of(TEXTS))
