"""Latent attention: the cache's size, yarn's scales of scores, and what is refused."""

import json
import math
from typing import Any

import pytest
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Role
from edgert_models.ops import Attend, HeadLinear
from edgert_models.registry import build_plan, metadata_from_spec, spec_from_config, spec_from_gguf

from tests.models.configs import Entries
from tests.support.golden import FOLDER

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "original_max_position_embeddings": 16}


def config(name: str, **changes: Any) -> dict[str, Any]:
    return {**json.loads((FOLDER / name / "config.json").read_text()), **changes}


def test_the_cache_holds_a_latent_and_nothing_else() -> None:
    plan = build_plan(spec_from_config(config("deepseek-v3")))
    assert [(cache.width, cache.key_width, cache.value_width) for cache in plan.caches] == [(64, 64, 0)] * 2
    attend = next(op for op in plan.ops if isinstance(op, Attend))
    assert attend.v is None
    assert (attend.kv_heads, attend.head_size, attend.value_size, attend.out.width) == (1, 64, 32, 4 * 32)
    keys, values = (op for op in plan.ops[: attend.out.id + 2] if isinstance(op, HeadLinear))
    assert (keys.inward, keys.outward, keys.rest) == (32, 32, 32)
    assert (values.inward, values.outward, values.rest) == (32, 32, 0)
    assert plan.weights[keys.weight].role is Role.HEADS


@pytest.mark.parametrize(
    ("scales", "magnitude", "scores"),
    [
        ({"mscale": 0.707, "mscale_all_dim": 0.707}, 1.0, 0.707),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, 1.0, 1.0),
        ({"mscale": 1.0, "mscale_all_dim": 0.5}, None, 0.5),
        ({"mscale_all_dim": 1.0}, 1 + 0.1 * math.log(40), 1.0),
        ({"mscale": 1.0}, 1 + 0.1 * math.log(40), 0.0),
        ({}, 1 + 0.1 * math.log(40), 0.0),
        ({"attention_factor": 1.5, "mscale_all_dim": 1.0}, 1.5, 1.0),
    ],
)
def test_yarn_scales_turned_elements_and_scores(
    scales: dict[str, float], magnitude: float | None, scores: float
) -> None:
    rope = spec_from_config(config("deepseek-v2", rope_parameters={**YARN, **scales})).rope
    if magnitude is None:
        magnitude = (1 + 0.1 * math.log(40)) / (1 + 0.05 * math.log(40))
    assert rope.magnitude() == pytest.approx(magnitude)
    assert rope.score_factor() == pytest.approx((1 + 0.1 * scores * math.log(40)) ** 2)


def test_a_context_that_is_not_stretched_scales_nothing() -> None:
    rope = spec_from_config(config("deepseek-v2", rope_parameters={**YARN, "factor": 1.0, "mscale_all_dim": 1.0})).rope
    assert (rope.magnitude(), rope.score_factor()) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("deepseek-v3", {"mlp_bias": True}, "mlp_bias=True is not supported; supported: False"),
        ("deepseek-v3", {"rope_interleave": False}, "rope_interleave=False is not supported; supported: True"),
        ("deepseek-v3", {"scoring_func": "softmax"}, "scoring_func='softmax' is not supported; supported: 'sigmoid'"),
        ("deepseek-v2", {"topk_method": "noaux_tc"}, "topk_method='noaux_tc' is not supported; supported: 'greedy'"),
        ("deepseek-v2", {"moe_layer_freq": 2}, "moe_layer_freq=2 is not supported; supported: 1"),
        ("deepseek-v2", {"kv_lora_rank": 0}, "the latent's rank is 0"),
        ("deepseek-v2", {"qk_nope_head_dim": 0}, "keys of 16 are all rotated"),
        ("youtu", {"mlp_bias": True}, "mlp_bias=True is not supported; supported: False"),
    ],
)
def test_refusals(name: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        spec_from_config(config(name, **changes))
    assert reason in str(caught.value)


def test_biases_of_latent_attention() -> None:
    spec = spec_from_config(config("deepseek-v3", attention_bias=True))
    weights = build_plan(spec).weights
    biases = {name for name in weights if name.startswith("blk.0.") and name.endswith(".bias")}
    assert biases == {f"blk.0.attn_{part}.bias" for part in ("q_a", "kv_a_mqa", "output")}
    entries = Entries({"general.architecture": "deepseek2", **metadata_from_spec(spec)})
    again = spec_from_gguf(entries, {name: weight.shape for name, weight in weights.items()})
    assert build_plan(again).weights == weights
