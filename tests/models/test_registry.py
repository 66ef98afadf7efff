"""HF configs and GGUF metadata both give a ModelSpec."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Role, Weight
from edgert_models.registry import (
    all_architectures,
    architecture_named,
    architecture_of_config,
    build_plan,
    metadata_from_spec,
    spec_from_config,
    spec_from_gguf,
)
from edgert_models.rope import RopeLayout
from edgert_models.router import SOFTMAX, Router

from tests.models.configs import CONFIGS, Entries


@pytest.mark.parametrize("name", CONFIGS)
def test_spec_survives_gguf(name: str) -> None:
    spec = spec_from_config(CONFIGS[name])
    shapes = {weight.name: weight.shape for weight in build_plan(spec).weights.values()}
    entries = Entries({"general.architecture": spec.architecture, **metadata_from_spec(spec)})
    again = spec_from_gguf(entries, shapes)
    if spec.rope.scaling == "none":  # a file keeps the original context only where a scaling needs it
        assert again.rope.frequencies() == spec.rope.frequencies()
    else:
        assert again.rope.frequencies() == pytest.approx(spec.rope.frequencies())
    assert (again.window_rope is None) == (spec.window_rope is None)
    if spec.window_rope and again.window_rope:
        assert again.window_rope.frequencies() == pytest.approx(spec.window_rope.frequencies())
    assert again.rope.magnitude() == pytest.approx(spec.rope.magnitude())
    assert build_plan(again).weights == build_plan(spec).weights
    for field in (
        "heads",
        "kv_heads",
        "head_size",
        "experts",
        "experts_used",
        "router",
        "sparse",
        "dense_beside",
        "network_norm",
        "chunked",
        "rotated",
        "shared_gate",
        "shared_feed_forward",
        "window",
        "windowed",
        "window_kv_heads",
        "window_head_size",
        "keys_as_values",
        "tied",
        "attention_bias",
        "output_bias",
        "scales",
        "layer_norm",
        "norm_bias",
        "logits_bias",
        "activation",
        "recurrence",
        "positions",
    ):
        assert getattr(again, field) == getattr(spec, field), field


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_has_a_source(name: str) -> None:
    architecture = architecture_of_config(CONFIGS[name])
    spec = spec_from_config(CONFIGS[name])
    for weight in build_plan(spec).weights.values():
        architecture.source(spec, weight.name)


def test_routers_in_gguf() -> None:
    """What llama.cpp's converters write of a router; a count of one group, or none, leaves out none."""
    spec = replace(spec_from_config(CONFIGS["qwen3moe"]), experts=16)
    router = Router(scoring="sigmoid", normalize=False, scale=2.5, bias=True, groups=4, groups_used=2)
    ours = replace(spec, router=router, shared_feed_forward=64)
    shapes = {name: weight.shape for name, weight in build_plan(ours).weights.items()}
    assert shapes["blk.1.exp_probs_b.bias"] == (16,)
    entries = Entries({"general.architecture": "qwen3moe", **metadata_from_spec(ours)})
    written = {
        "expert_gating_func": 2,
        "expert_weights_scale": 2.5,
        "expert_weights_norm": False,
        "expert_group_count": 4,
        "expert_group_used_count": 2,
        "expert_shared_count": 2,
    }
    assert {key: entries[f"qwen3moe.{key}"] for key in written} == written
    assert replace(spec_from_gguf(entries, shapes), rope=spec.rope) == ours
    plain = Entries({"general.architecture": "qwen3moe", **metadata_from_spec(spec)})
    assert not set(written) & {key.removeprefix("qwen3moe.") for key in plain} - {"expert_weights_norm"}
    shapes = {name: weight.shape for name, weight in build_plan(spec).weights.items()}
    of_chosen = Entries({**plain, "qwen3moe.expert_gating_func": 3, "qwen3moe.expert_weights_norm": False})
    of_chosen |= {"qwen3moe.expert_group_count": 0, "qwen3moe.expert_weights_scale": 0.0}
    assert spec_from_gguf(Entries(of_chosen), shapes).router == SOFTMAX
    with pytest.raises(UnsupportedError, match=r"expert_gating_func is 4; supported: 1 \(softmax\), 2 \(sigmoid\), 3"):
        spec_from_gguf(Entries({**plain, "qwen3moe.expert_gating_func": 4}), shapes)


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (Router(scoring="tanh"), "the router's scoring is 'tanh'; supported: softmax, sigmoid"),
        (Router(scale=0.0), "the router's scale is 0.0 and its epsilon 0.0"),
        (Router(scale=math.nan), "the router's scale is nan"),
        (Router(epsilon=-1.0), "its epsilon -1.0"),
        (Router(groups=3), "1 groups used of 3 with 16 experts"),
        (Router(groups=4, groups_used=5), "5 groups used of 4 with 16 experts"),
        (Router(groups=0, groups_used=0), "0 groups used of 0"),
        (Router(groups=16, groups_used=2), "2 experts used of 2 groups of 1, ranked by their best 2"),
        (Router(groups=16, groups_used=1, group_best=1), "2 experts used of 1 groups of 1, ranked by their best 1"),
    ],
)
def test_routers_that_cannot_be(router: Router, message: str) -> None:
    spec = replace(spec_from_config(CONFIGS["qwen3moe"]), experts=16)
    with pytest.raises(UnsupportedError, match=f"model of architecture 'qwen3moe' is out of range: .*{message}"):
        replace(spec, router=router)


def test_a_vector_may_be_stored_as_one_row() -> None:
    vector, matrix = Weight("v", (8,), Role.VECTOR), Weight("m", (2, 8), Role.MATRIX)
    taps = Weight("t", (8, 3), Role.VECTOR)
    assert [vector.stored_as(shape) for shape in ((8,), (1, 8), (8, 1), (1, 1, 8), (2, 4))] == [*[True] * 4, False]
    assert [taps.stored_as(shape) for shape in ((8, 3), (8, 1, 3), (1, 8, 1, 3), (3, 8), (24,))] == [
        *[True] * 3,
        False,
        False,
    ]
    assert [matrix.stored_as(shape) for shape in ((2, 8), (1, 2, 8), (16,))] == [True, False, False]


def test_rope_layouts() -> None:
    assert spec_from_config(CONFIGS["mixtral"]).rope.layout is RopeLayout.INTERLEAVED
    assert spec_from_config(CONFIGS["olmoe"]).rope.layout is RopeLayout.HALVES


def test_rope_that_is_dynamic_scales_nothing_within_the_context() -> None:
    scaled = {**CONFIGS["llama"], "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}
    assert spec_from_config(scaled) == spec_from_config(CONFIGS["llama"])


def test_unknown_gguf_architecture() -> None:
    message = r"model architecture 'mamba' is not supported; supported: .*ernie4_5, .*gemma2, .*gpt-oss, "
    with pytest.raises(UnsupportedError, match=message):
        spec_from_gguf(Entries({"general.architecture": "mamba"}), {})


@pytest.mark.parametrize("name", ["mixtral", "glm4-moe", "command_r"])
def test_files_of_architectures_are_not_their_names(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"model architecture '{name}' is not supported; supported: "):
        architecture_named(name)


def test_every_name_finds_an_architecture_of_that_name() -> None:
    for architecture in all_architectures():
        assert architecture_named(architecture.name).name == architecture.name


def test_a_model_needs_no_other_family() -> None:
    code = (
        "import sys\nfrom edgert_models.registry import architecture_named\narchitecture_named('olmoe')\n"
        "print([name for name in sys.modules if name.startswith('edgert_models.architectures.')])"
    )
    result = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert result.stdout.decode().strip() == "['edgert_models.architectures.olmoe']", result.stderr
